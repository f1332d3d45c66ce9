"""The history of fixes, partitioned by the day it was received on.

`devices.retention` makes the partitions ahead and drops the old ones; the default partition
catches what falls outside them, so that a missed night never costs a fix.
"""

from django.db import migrations

FORWARD = """
CREATE TABLE devices_fix (
  device_id bigint NOT NULL,
  key bigint NOT NULL,
  received_at timestamptz NOT NULL,
  recorded_at timestamptz NOT NULL,
  lat double precision NOT NULL,
  lng double precision NOT NULL,
  accuracy_m real,
  speed_mps real,
  heading_deg real,
  altitude_m real,
  battery real,
  verdict smallint NOT NULL
) PARTITION BY RANGE (received_at);
CREATE TABLE devices_fix_default PARTITION OF devices_fix DEFAULT;
-- repeats of late or named fixes; one device's history
CREATE INDEX devices_fix_by_device ON devices_fix (device_id, key);
-- everything received between two instants (backtests, retention)
CREATE INDEX devices_fix_by_time ON devices_fix USING brin (received_at) WITH (autosummarize = on);

ALTER TABLE devices_devicestate SET (
  fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1
);
ALTER TABLE devices_presence SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
"""


class Migration(migrations.Migration):
    dependencies = [("devices", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, "DROP TABLE devices_fix;")]

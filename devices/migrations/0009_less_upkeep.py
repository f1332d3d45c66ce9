"""How often autovacuum gathers statistics of what ingest writes.

Every batch changes these tables, so the usual thresholds (a twentieth of the rows of the private
cluster, a tenth by default) were reached every time autovacuum looked: it sampled and sorted all of
them anew every 15 s, though what queries need of it (how many rows, how many geofences a device is
in) hardly changes. In a crowded city, at half of what two cores take, such bursts made the slowest
hundredth of requests wait for a processor (docs/performance.md).

Statistics follow where a table has grown severalfold. Beliefs and hot rows are vacuumed as early as
before: a crowded city is a twentieth slower where the dead rows of beliefs stay longer.
"""

from django.db import migrations

FORWARD = """
ALTER TABLE devices_devicestate SET (autovacuum_analyze_scale_factor = 10);
ALTER TABLE devices_presence SET (autovacuum_analyze_scale_factor = 5);
ALTER TABLE devices_transition SET (
  autovacuum_vacuum_insert_scale_factor = 1, autovacuum_analyze_scale_factor = 1
);
"""
BACKWARD = """
ALTER TABLE devices_devicestate SET (autovacuum_analyze_scale_factor = 0.1);
ALTER TABLE devices_presence RESET (autovacuum_analyze_scale_factor);
ALTER TABLE devices_transition RESET (
  autovacuum_vacuum_insert_scale_factor, autovacuum_analyze_scale_factor
);
"""
# A partitioned table has no such settings: each part has its own (`devices.retention` sets those
# of the parts it makes).
_EACH_DAY = """
DO $$
DECLARE part regclass;
BEGIN
  FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'devices_fix'::regclass LOOP
    EXECUTE format('ALTER TABLE %s {}', part);
  END LOOP;
END $$;
"""
_SET = "SET (autovacuum_vacuum_insert_scale_factor = 1, autovacuum_analyze_scale_factor = 1)"
_RESET = "RESET (autovacuum_vacuum_insert_scale_factor, autovacuum_analyze_scale_factor)"


class Migration(migrations.Migration):
    dependencies = [("devices", "0008_undo_profile_imports")]
    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.RunSQL(_EACH_DAY.format(_SET), _EACH_DAY.format(_RESET)),
    ]

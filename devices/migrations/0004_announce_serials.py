"""Tell every process at once that a device's tokens were revoked: open sockets must close.

The trigger names `serial`, so the updates of ingest, which never write it, cost nothing.
"""

from django.db import migrations

FORWARD = """
CREATE FUNCTION devices_announce_serial() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    PERFORM pg_notify('nearcast_keys', 'device:' || OLD.device_id || ':0');
  ELSIF NEW.serial <> OLD.serial THEN
    PERFORM pg_notify('nearcast_keys', 'device:' || NEW.device_id || ':' || NEW.serial);
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER devices_announce_serial AFTER UPDATE OF serial OR DELETE ON devices_devicestate
  FOR EACH ROW EXECUTE FUNCTION devices_announce_serial();
"""

BACKWARD = """
DROP TRIGGER devices_announce_serial ON devices_devicestate;
DROP FUNCTION devices_announce_serial();
"""


class Migration(migrations.Migration):
    dependencies = [("devices", "0003_believed_jumps")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]

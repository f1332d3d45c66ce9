"""Publishing and writing geofences take turns.

The trigger of 0002 reads the arming rows, and who publishes reads the geofences: two transactions
that each began before the other's commit would see neither, and a place would stay unarmed. So
every statement that writes geofences holds a shared lock until its transaction ends, which
`campaigns.publishing` takes exclusively before it changes arming rows. By statement, before any
row is locked: a lock taken for each row would be waited for with that row in hand.
"""

from django.db import migrations

FORWARD = """
CREATE FUNCTION geofences_await_arming() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtext('geofences_arming'), 0);
  RETURN NULL;
END $$;

CREATE TRIGGER geofences_await_arming BEFORE INSERT OR UPDATE ON geofences_geofence
  FOR EACH STATEMENT EXECUTE FUNCTION geofences_await_arming();
"""

BACKWARD = """
DROP TRIGGER geofences_await_arming ON geofences_geofence;
DROP FUNCTION geofences_await_arming();
"""


class Migration(migrations.Migration):
    dependencies = [("geofences", "0010_undo_imports")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]

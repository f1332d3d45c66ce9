"""Marks changed campaigns and wakes every evaluator: as for geofences, no writer can forget."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION campaigns_mark_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.changed_xid := pg_current_xact_id()::text::bigint;
  PERFORM pg_notify('nearcast_campaigns', '');
  RETURN NEW;
END $$;
CREATE TRIGGER campaigns_mark_change BEFORE INSERT OR UPDATE ON campaigns_campaign
  FOR EACH ROW EXECUTE FUNCTION campaigns_mark_change();
"""
BACKWARD = """
DROP TRIGGER campaigns_mark_change ON campaigns_campaign;
DROP FUNCTION campaigns_mark_change();
"""


class Migration(migrations.Migration):
    dependencies = [("campaigns", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]

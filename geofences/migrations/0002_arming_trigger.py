"""The trigger that keeps a geofence's arming, shape version and change mark true.

In the database because many writers touch geofences (admin, REST, imports, publishing) and none
may forget. NOTIFY wakes every process that holds a matching index.
"""

from django.db import migrations

FORWARD = """
CREATE FUNCTION geofences_mark_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  was_armed boolean := false;
BEGIN
  SELECT max(a.until),
         coalesce(array_agg(DISTINCT a.dwell_s) FILTER (WHERE a.dwell_s IS NOT NULL), '{}')
    INTO NEW.armed_until, NEW.dwell_thresholds
    FROM geofences_arming a
   WHERE a.brand_id = NEW.brand_id AND (a.geofence_id = NEW.id OR a.tag = ANY (NEW.tags));
  IF NEW.dwell_s IS NOT NULL THEN
    NEW.dwell_thresholds := NEW.dwell_thresholds || NEW.dwell_s;
  END IF;
  SELECT coalesce(array_agg(DISTINCT t ORDER BY t), '{}')
    INTO NEW.dwell_thresholds FROM unnest(NEW.dwell_thresholds) t;
  IF TG_OP = 'UPDATE' THEN
    was_armed := OLD.retired_at IS NULL
      AND (OLD.track_visits OR coalesce(OLD.armed_until > now(), false));
    IF NOT ST_OrderingEquals(OLD.geometry, NEW.geometry)
       OR OLD.radius_m IS DISTINCT FROM NEW.radius_m THEN
      NEW.shape_version := OLD.shape_version + 1;
      was_armed := false;
    END IF;
  END IF;
  IF NOT was_armed THEN
    NEW.armed_at := now();
  END IF;
  NEW.changed_xid := pg_current_xact_id()::text::bigint;
  RETURN NEW;
END $$;

CREATE TRIGGER geofences_mark_change BEFORE INSERT OR UPDATE ON geofences_geofence
  FOR EACH ROW EXECUTE FUNCTION geofences_mark_change();

CREATE FUNCTION geofences_announce_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('nearcast_geofences', '');
  RETURN NULL;
END $$;

CREATE TRIGGER geofences_announce_change AFTER INSERT OR UPDATE OR DELETE ON geofences_geofence
  FOR EACH STATEMENT EXECUTE FUNCTION geofences_announce_change();
CREATE TRIGGER geofences_announce_change AFTER INSERT OR UPDATE OR DELETE ON geofences_geofencecover
  FOR EACH STATEMENT EXECUTE FUNCTION geofences_announce_change();

ALTER TABLE geofences_geofencecover ALTER COLUMN interior SET STORAGE EXTERNAL;
ALTER TABLE geofences_geofencecover ALTER COLUMN boundary SET STORAGE EXTERNAL;
"""

BACKWARD = """
DROP TRIGGER geofences_announce_change ON geofences_geofencecover;
DROP TRIGGER geofences_announce_change ON geofences_geofence;
DROP TRIGGER geofences_mark_change ON geofences_geofence;
DROP FUNCTION geofences_announce_change();
DROP FUNCTION geofences_mark_change();
"""


class Migration(migrations.Migration):
    dependencies = [("geofences", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]

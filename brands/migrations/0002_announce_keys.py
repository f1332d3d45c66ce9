"""Tell every process at once that an app key changed: a revoked one must not live in a cache."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION brands_announce_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('nearcast_keys', 'key:' || COALESCE(NEW.digest, OLD.digest));
  RETURN NULL;
END $$;

CREATE TRIGGER brands_announce_key AFTER INSERT OR UPDATE OR DELETE ON brands_appkey
  FOR EACH ROW EXECUTE FUNCTION brands_announce_key();
"""

BACKWARD = """
DROP TRIGGER brands_announce_key ON brands_appkey;
DROP FUNCTION brands_announce_key();
"""


class Migration(migrations.Migration):
    dependencies = [("brands", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]

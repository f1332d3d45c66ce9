"""A push token belongs to one device of a brand, and takes nothing from another's.

Built beside the old one, without stopping registration.
"""

from django.db import migrations, models

TABLE = "devices_device"


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("devices", "0009_less_upkeep")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    f"CREATE UNIQUE INDEX CONCURRENTLY one_push_token_per_brand ON {TABLE}"
                    " (brand_id, push_token) WHERE push_token IS NOT NULL",
                    "DROP INDEX CONCURRENTLY one_push_token_per_brand",
                ),
                migrations.RunSQL(
                    "DROP INDEX CONCURRENTLY one_device_per_push_token",
                    f"CREATE UNIQUE INDEX CONCURRENTLY one_device_per_push_token ON {TABLE}"
                    " (push_token) WHERE push_token IS NOT NULL",
                ),
            ],
            state_operations=[
                migrations.RemoveConstraint("device", "one_device_per_push_token"),
                migrations.AddConstraint(
                    "device",
                    models.UniqueConstraint(
                        fields=("brand", "push_token"),
                        condition=models.Q(push_token__isnull=False),
                        name="one_push_token_per_brand",
                    ),
                ),
            ],
        ),
    ]

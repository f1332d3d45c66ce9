"""An index of what did not go out, for support's searches by state; built beside the traffic."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("notifications", "0001_initial")]
    operations = [
        AddIndexConcurrently(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(
                    ("state__in", ("failed", "expired", "suppressed", "cancelled", "parked"))
                ),
                fields=["campaign_id", "created_at"],
                name="deliveries_not_sent",
            ),
        ),
    ]

"""One decision a moment, indexed by the moment; room beside a budget's running sums.

Moments come in their order, so that their twenty decisions go to the last page of the index and
not to one for each device and campaign. Built beside the old one, without stopping evaluation.
"""

from __future__ import annotations

from django.db import migrations, models

TABLE = "campaigns_decision"


class Migration(migrations.Migration):
    atomic = False

    dependencies = (("campaigns", "0012_name_relevance_rules"),)

    operations = (
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    f"CREATE UNIQUE INDEX CONCURRENTLY decided_once ON {TABLE}"
                    " (moment_id, campaign_id, moment_kind, device_id)",
                    migrations.RunSQL.noop,
                ),
                migrations.RunSQL(
                    f"ALTER TABLE {TABLE} ADD CONSTRAINT decided_once UNIQUE"
                    " USING INDEX decided_once",
                    f"ALTER TABLE {TABLE} DROP CONSTRAINT decided_once",
                ),
                migrations.RunSQL(
                    f"ALTER TABLE {TABLE} DROP CONSTRAINT one_decision_per_moment",
                    f"ALTER TABLE {TABLE} ADD CONSTRAINT one_decision_per_moment"
                    " UNIQUE (device_id, campaign_id, moment_kind, moment_id)",
                ),
            ],
            state_operations=[
                migrations.RemoveConstraint("decision", "one_decision_per_moment"),
                migrations.AddConstraint(
                    "decision",
                    models.UniqueConstraint(
                        fields=("moment_id", "campaign_id", "moment_kind", "device_id"),
                        name="decided_once",
                    ),
                ),
            ],
        ),
        # A sum is written again with every offer: its next version stays on its page (HOT).
        migrations.RunSQL(
            "ALTER TABLE campaigns_spend SET (fillfactor = 50)",
            "ALTER TABLE campaigns_spend RESET (fillfactor)",
        ),
    )

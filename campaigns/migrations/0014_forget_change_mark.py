"""Drops the change mark of campaigns and its trigger: the catalogue sees a change by the rows."""

from __future__ import annotations

from importlib import import_module

from django.db import migrations

mark = import_module("campaigns.migrations.0002_change_mark")


class Migration(migrations.Migration):
    dependencies = (("campaigns", "0013_decisions_in_the_order_of_moments"),)

    operations = (
        migrations.RunSQL(mark.BACKWARD, mark.FORWARD),
        migrations.RemoveField("campaign", "changed_xid"),
    )

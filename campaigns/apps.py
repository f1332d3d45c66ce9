"""Registers the app `campaigns` with Django and its tables with `devices.holdings`."""

from __future__ import annotations

from django.apps import AppConfig


class CampaignsConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "campaigns"
    verbose_name = "Campaigning"

    def ready(self) -> None:
        """Say what this app holds about a device."""
        from campaigns.personal import HOLDINGS
        from devices.holdings import hold

        hold(*HOLDINGS)

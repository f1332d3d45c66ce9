"""Registers the app `devices` with Django and its tables with `devices.holdings`."""

from __future__ import annotations

from django.apps import AppConfig


class DevicesConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "devices"
    verbose_name = "Support"

    def ready(self) -> None:
        """Say what this app holds about a device."""
        from devices.holdings import OWN, hold

        hold(*OWN)

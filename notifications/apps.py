"""Registers the app `notifications` with Django and its tables with `devices.holdings`."""

from __future__ import annotations

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "notifications"
    verbose_name = "Support"

    def ready(self) -> None:
        """Say what this app holds about a device."""
        from devices.holdings import hold
        from notifications.personal import HOLDINGS

        hold(*HOLDINGS)

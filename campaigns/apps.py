"""Registers the app `campaigns` with Django, and with what lies below: holdings and gates."""

from __future__ import annotations

from django.apps import AppConfig


class CampaignsConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "campaigns"
    verbose_name = "Campaigning"

    def ready(self) -> None:
        """Say what this app holds about a device, and look at offers before they are sent."""
        from campaigns import coupons, spending, waiting
        from campaigns.personal import HOLDINGS
        from campaigns.standing import still_live
        from devices.holdings import hold
        from notifications.delivering import add_gate
        from notifications.outbox import on_unsent, on_withheld

        hold(*HOLDINGS)
        add_gate(still_live)
        add_gate(waiting.still_right)
        add_gate(spending.still_paid)
        add_gate(coupons.still_theirs)
        on_withheld(waiting.keep_why)
        on_unsent(spending.give_back)
        on_unsent(coupons.give_back)

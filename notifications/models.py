"""What is owed to devices and what came of it. Only `outbox` and `leases` write Delivery."""

from __future__ import annotations

from enum import StrEnum

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.timezone import now


class DeliveryState(StrEnum):
    """pending → sending → sent | failed | expired | suppressed | cancelled; parked: broken row."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    PARKED = "parked"


class FeedbackEvent(StrEnum):
    """What the app says came of an offer."""

    RECEIVED = "received"
    OPENED = "opened"
    DISMISSED = "dismissed"
    REDEEMED = "redeemed"


class DeliveryAction(StrEnum):
    """What staff may do to a delivery, or make one for; each is logged with its actor."""

    RESEND = "resend"
    CANCEL = "cancel"
    TEST = "test"


def _choices(kinds: type[StrEnum]) -> list[tuple[str, str]]:
    return [(kind.value, kind.value.title()) for kind in kinds]


class Delivery(models.Model):
    """One offer owed to one device: the outbox row, a snapshot of what to send and why."""

    id = models.BigAutoField(primary_key=True)
    brand_id = models.BigIntegerField()
    device_id = models.BigIntegerField()
    person = models.CharField(max_length=160)  # external id, or the device: caps count by it
    campaign_id = models.BigIntegerField()
    campaign_name = models.CharField(max_length=200)
    campaign_version = models.IntegerField(default=1)
    variant = models.CharField(max_length=40, blank=True)
    decision_id = models.BigIntegerField(null=True)
    moment_kind = models.CharField(max_length=16)  # transition, event, schedule, timer, test
    moment_id = models.BigIntegerField(null=True)
    geofence_id = models.BigIntegerField(null=True)
    key = models.CharField(max_length=160)  # campaign and moment: one offer for each
    channel = models.CharField(max_length=16, default="push")
    transactional = models.BooleanField(default=False)
    # {title, body, deep_link?, image_url?, data?, push?: platform options}
    content = models.JSONField()
    # Re-checked at send time: {only_while_inside: geofence_id?, quiet_hours?: {from, to, policy},
    # timezone?, …}; unknown names are refused at enqueue.
    gates = models.JSONField(default=dict)
    state = models.CharField(max_length=12, choices=_choices(DeliveryState))
    reason = models.CharField(max_length=200, blank=True)  # why it is failed, suppressed, parked…
    priority = models.SmallIntegerField(default=0)
    created_at = models.DateTimeField(default=now)
    due_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    lease_until = models.DateTimeField(null=True)
    attempt_count = models.SmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "deliveries"
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(fields=("device_id", "key"), name="one_offer_per_moment"),
        )
        indexes = (
            models.Index(
                fields=("due_at", "id"),
                condition=Q(state__in=("pending", "sending")),
                name="deliveries_to_claim",
            ),
            models.Index(fields=("device_id", "created_at"), name="deliveries_by_device"),
            models.Index(fields=("campaign_id", "created_at"), name="deliveries_by_campaign"),
            models.Index(fields=("brand_id", "person", "created_at"), name="deliveries_by_person"),
            models.Index(  # support: what did not go out; few rows, so that sending pays nothing
                fields=("campaign_id", "created_at"),
                condition=Q(state__in=("failed", "expired", "suppressed", "cancelled", "parked")),
                name="deliveries_not_sent",
            ),
        )

    def __str__(self) -> str:
        return f"delivery {self.pk} of {self.campaign_name}"

    @property
    def customer(self) -> str:
        """The brand's own id of whom it is for; empty where the device alone is known."""
        return "" if self.person == f"device:{self.device_id}" else self.person


class Attempt(models.Model):
    """One try at sending a delivery, and the provider's answer."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="attempts")
    at = models.DateTimeField()
    outcome = models.CharField(max_length=16)  # sent, or a PushErrorKind
    error = models.CharField(max_length=400, blank=True)
    provider_message_id = models.CharField(max_length=200, blank=True)
    latency_ms = models.IntegerField(default=0)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.outcome} at {self.at}"


class Feedback(models.Model):
    """What the app says came of a delivery; a repeat changes nothing."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="feedback")
    event = models.CharField(max_length=12, choices=_choices(FeedbackEvent))
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField(default=now)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(fields=("delivery", "event"), name="one_feedback_per_event"),
        )

    def __str__(self) -> str:
        return f"{self.event} at {self.occurred_at}"


class DeliveryActionLog(models.Model):
    """Who resent or cancelled a delivery, when and why."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="actions")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True)
    action = models.CharField(max_length=12, choices=_choices(DeliveryAction))
    at = models.DateTimeField(default=now)
    note = models.CharField(max_length=400, blank=True)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.action} at {self.at}"

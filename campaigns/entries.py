"""One row that support reads, as an entry of a timeline, in words.

The rows are those that the code itself decided by: transitions, events, decisions, deliveries,
attempts, feedback and what staff did. Nothing here changes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.urls import reverse

from brands import wallclock
from brands.templatetags.nearcast import seconds as span
from campaigns import sentences, words
from campaigns.models import Campaign, Completion, Decision, Verdict
from campaigns.reasons import Reason
from devices.models import Device, Event, Transition
from devices.presence import TransitionKind, TransitionReason
from geofences.models import Geofence
from notifications.models import Attempt, Delivery, DeliveryActionLog, DeliveryState, Feedback

Facts = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened. `tone` is good, bad, warn, brand or nothing."""

    at: datetime
    id: int
    kind: str
    icon: str
    title: str
    text: str = ""
    tone: str = ""
    facts: Facts = ()
    url: str = ""
    language: str = "en"  # of the text


ENTERED_BECAUSE = {
    TransitionReason.INITIAL: "It was already there when the geofence was armed.",
    TransitionReason.SILENCE: "It fell silent for too long and was given up.",
    TransitionReason.GEOFENCE_ENDED: "The geofence ended.",
    TransitionReason.GEOFENCE_MOVED: "The geofence was moved or drawn anew.",
    TransitionReason.DISARMED: "No campaign needed the geofence any more.",
    TransitionReason.CONSENT_WITHDRAWN: "The person withdrew the consent to location.",
}
STATE_TONES = {
    DeliveryState.SENT: "good",
    DeliveryState.FAILED: "bad",
    DeliveryState.PARKED: "bad",
    DeliveryState.EXPIRED: "warn",
    DeliveryState.SUPPRESSED: "warn",
    DeliveryState.CANCELLED: "warn",
}
STATE_WORDS = {
    DeliveryState.PENDING: "waits to be sent",
    DeliveryState.SENDING: "is being sent",
    DeliveryState.SENT: "was sent",
    DeliveryState.FAILED: "could not be sent",
    DeliveryState.EXPIRED: "expired before it could be sent",
    DeliveryState.SUPPRESSED: "was held back at the last moment",
    DeliveryState.CANCELLED: "was cancelled",
    DeliveryState.PARKED: "is broken and was set aside",
}
ATTEMPT_WORDS = {
    "sent": "The push service took it",
    "transient": "The push service could not take it now; it will be tried again",
    "rejected": "The push service refused it",
    "token_gone": "The push service no longer knows this phone",
}
FEEDBACK_ICONS = {
    "received": "mark_chat_read",
    "opened": "touch_app",
    "dismissed": "swipe",
    "redeemed": "redeem",
}
_PAST = {
    TransitionKind.ENTERED: "Entered",
    TransitionKind.DWELLED: "Stayed in",
    TransitionKind.EXITED: "Left",
}


def facts_of(trace: Mapping[str, Any]) -> Facts:
    """A decision's trace as pairs to show; instants become times."""
    facts = [
        (_fact_name(key), _fact_value(key, value))
        for key, value in trace.items()
        if key != "withheld"
    ]
    told = trace.get("withheld")
    if isinstance(told, Mapping):
        facts.append(("held back at", _fact_value("at", told.get("at"))))
        facts.append(("held back for", words.label(str(told.get("reason", "")))))
        facts += facts_of(told.get("seen") or {})
    return tuple(facts)


def _fact_name(key: str) -> str:
    return key.removesuffix("_s").removesuffix("_m").replace("_", " ")


def _fact_value(key: str, value: Any) -> Any:
    if (key == "at" or key.endswith("_at")) and isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, UTC)
    if key.endswith("_s") and isinstance(value, int):
        return span(value)
    if key.endswith("_m") and isinstance(value, int | float):
        return f"{value:,.0f} m"
    if key == "wanted" and isinstance(value, Mapping):
        return sentences.condition(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {part}" for name, part in value.items())
    return "unknown" if value is None else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names of the places and campaigns that some rows speak of."""

    places: Mapping[int, str]
    campaigns: Mapping[int, str]
    zones: Mapping[int, ZoneInfo]  # of devices

    def place(self, geofence_id: int | None) -> str:
        if geofence_id is None:
            return "no place"
        return self.places.get(geofence_id) or f"geofence {geofence_id}, which is gone"

    def campaign(self, campaign_id: int) -> str:
        return self.campaigns.get(campaign_id) or f"campaign {campaign_id}, which is gone"


def names_of(brand_id: int, rows: Iterable[Any]) -> Names:
    """Look up every name once."""
    seen = list(rows)
    places = _ids(seen, "geofence_id")
    campaigns = _ids(seen, "campaign_id")
    return Names(
        places=dict(
            Geofence.objects.filter(brand_id=brand_id, pk__in=places).values_list("pk", "name")
        ),
        campaigns=dict(
            Campaign.objects.filter(brand_id=brand_id, pk__in=campaigns).values_list("pk", "name")
        ),
        zones=zones_of(_ids([row for row in seen if isinstance(row, Decision)], "device_id")),
    )


def zones_of(device_ids: Iterable[int]) -> dict[int, ZoneInfo]:
    """Whose clock the words about a device go by: its own, else its brand's."""
    ids = list(device_ids)
    if not ids:
        return {}
    known = Device.objects.filter(pk__in=ids).values_list("pk", "timezone", "brand__timezone")
    return {key: wallclock.zone(own, brands) for key, own, brands in known}


def _ids(rows: Iterable[Any], column: str) -> set[int]:
    found = (getattr(row, column, None) for row in rows)
    return {one for one in found if one is not None}


def of_transition(row: Transition, names: Names) -> Entry:
    kind = TransitionKind(row.kind)
    because = ENTERED_BECAUSE.get(TransitionReason(row.reason)) if row.reason else None
    told = f"±{row.accuracy_m:.0f} m" if row.accuracy_m else ""
    late_s = (row.recorded_at - row.occurred_at).total_seconds()
    facts: list[tuple[str, Any]] = []
    if 1 <= late_s < 60:
        facts.append(("noticed", f"{late_s:.0f} s later"))
    if row.lat is not None and row.lng is not None:
        facts.append(("position", f"{row.lat:.6f}, {row.lng:.6f} {told}".strip()))
    else:
        facts.append(("told by", "the server's clock: no position was due"))
    if kind is not TransitionKind.ENTERED:
        stayed_s = round((row.occurred_at - row.entered_at).total_seconds())
        facts.append(("stayed", span(stayed_s)))
    if row.parked_reason:
        facts.append(("set aside", row.parked_reason))
    after = f" for {span(row.dwell_s)}" if kind is TransitionKind.DWELLED else ""
    return Entry(
        at=row.occurred_at,
        id=row.pk,
        kind="transition",
        icon={"entered": "login", "dwelled": "timelapse", "exited": "logout"}[row.kind],
        tone="brand",
        title=f"{_PAST[kind]} {names.place(row.geofence_id)}{after}",
        text=because or (f"Noticed {span(late_s)} later." if late_s >= 60 else ""),
        facts=tuple(facts),
    )


def of_event(row: Event) -> Entry:
    return Entry(
        at=row.occurred_at,
        id=row.pk,
        kind="event",
        icon="bolt",
        title=f"Event {row.name}",
        text=", ".join(f"{key}: {value}" for key, value in row.properties.items()),
        facts=_when_told(row.received_at - row.occurred_at),
    )


def of_round(row: Decision) -> Entry:
    """The moment of a schedule: no row brought it about."""
    return Entry(
        at=row.decided_at,
        id=row.pk,
        kind="event",
        icon="schedule",
        tone="brand",
        title="The campaign’s time came round",
    )


def of_wait(row: Completion) -> Entry:
    """The moment of a sequence that waited to see whether anything calls it off."""
    return Entry(
        at=row.due_at,
        id=row.pk,
        kind="event",
        icon="hourglass_bottom",
        tone="brand",
        title="The sequence was complete, and its wait was over",
        facts=(("complete since", row.completed_at),),
    )


def _when_told(after: timedelta) -> Facts:
    late_s = after.total_seconds()
    return (("told us", f"{span(late_s)} later"),) if late_s >= 1 else ()


def said(row: Decision, language: str, zones: Mapping[int, ZoneInfo]) -> str:
    """A decision's reason in words, and why its offer did not go out where it did not."""
    tz = zones.get(row.device_id) or wallclock.zone("UTC")
    wanted = row.trace.get("wanted")
    if row.reason == Reason.NOT_IN_AUDIENCE and language == "en" and isinstance(wanted, Mapping):
        seen = _fact_value("seen", row.trace.get("seen"))
        return f"Not in the audience: it asks that {sentences.condition(wanted)}; seen was {seen}."
    return words.message(row.reason, row.trace, language, tz)


def of_decision(row: Decision, names: Names, language: str = "en") -> Entry:
    sends = row.verdict == Verdict.SEND
    return Entry(
        at=row.decided_at,
        id=row.pk,
        kind="decision",
        icon="check_circle" if sends else "block",
        tone="good" if sends else "warn",
        title=f"{names.campaign(row.campaign_id)}: {'send' if sends else 'no offer'}",
        text=said(row, language, names.zones),
        language=language,
        facts=(("version", row.campaign_version), *facts_of(row.trace)),
        url=reverse("admin:campaigns_decision_change", args=[row.pk]),
    )


def of_delivery(row: Delivery) -> Entry:
    state = DeliveryState(row.state)
    return Entry(
        at=row.created_at,
        id=row.pk,
        kind="delivery",
        icon="outgoing_mail",
        tone=STATE_TONES.get(state, ""),
        title=f"“{row.content.get('title', '')}” {STATE_WORDS[state]}",
        text=row.reason,
        url=reverse("admin:notifications_delivery_change", args=[row.pk]),
    )


def of_attempt(row: Attempt) -> Entry:
    sent = row.outcome == "sent"
    facts: list[tuple[str, Any]] = [("took", f"{row.latency_ms} ms")]
    if row.provider_message_id:
        facts.append(("message id", row.provider_message_id))
    return Entry(
        at=row.at,
        id=row.pk,
        kind="attempt",
        icon="send" if sent else "sms_failed",
        tone="good" if sent else "bad",
        title=ATTEMPT_WORDS.get(row.outcome, row.outcome.replace("_", " ").capitalize()),
        text=row.error,
        facts=tuple(facts),
    )


def of_feedback(row: Feedback) -> Entry:
    return Entry(
        at=row.occurred_at,
        id=row.pk,
        kind="feedback",
        icon=FEEDBACK_ICONS.get(row.event, "feedback"),
        tone="good",
        title=f"The phone says: {row.event}",
        facts=_when_told(row.received_at - row.occurred_at),
    )


def of_action(row: DeliveryActionLog) -> Entry:
    who = row.actor.get_full_name() or row.actor.get_username() if row.actor else "The back office"
    did = {"resend": "sent it again", "cancel": "cancelled it", "test": "sent it as a test"}
    return Entry(
        at=row.at,
        id=row.pk,
        kind="action",
        icon="support_agent",
        tone="brand",
        title=f"{who} {did.get(row.action, row.action)}",
        text=row.note,
    )


def of_ending(delivery: Delivery, why: str, language: str) -> Entry:
    state = DeliveryState(delivery.state)
    at = delivery.expires_at if state is DeliveryState.EXPIRED else delivery.due_at
    return Entry(
        at=max(at, delivery.created_at),
        id=delivery.pk,
        kind="ending",
        icon="block",
        tone=STATE_TONES[state],
        title=f"It {STATE_WORDS[state]}",
        text=why or delivery.reason,
        language=language if why else "en",
    )

"""Everything that led to one delivery and came of it; `campaigns.entries` has the words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from brands import wallclock
from campaigns import entries, words
from campaigns.entries import Entry, Names
from campaigns.models import Decision
from campaigns.timeline import KINDS
from devices.models import Event, Transition
from geofences.models import Geofence
from notifications.models import Delivery, DeliveryAction, DeliveryState

_ORDER_OF_KINDS = (*KINDS, "attempt", "feedback", "action", "ending")
_LEADS_TO = ("decision", "delivery", "attempt", "feedback")
_ENDED = {DeliveryState.EXPIRED, DeliveryState.SUPPRESSED, DeliveryState.PARKED}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStory:
    """Everything that led to a delivery and came of it."""

    entries: Sequence[Entry]
    visit: Sequence[Transition]
    decision: Decision | None
    others: Sequence[Entry]  # what other campaigns decided at the same moment
    geofence: Geofence | None


def of_one_delivery(delivery: Delivery, language: str = "en") -> DeliveryStory:
    """Gather a delivery's whole story, with reasons in a language."""
    brand_id = delivery.brand_id
    visit, decisions = _visit_of(delivery), _decisions_at_its_moment(delivery)
    own = next((row for row in decisions if row.campaign_id == delivery.campaign_id), None)
    names = entries.names_of(brand_id, [*visit, *decisions, delivery])
    told = [entries.of_transition(row, names) for row in visit]
    told += [entries.of_event(row) for row in _event_of(delivery)]
    told += [entries.of_decision(own, names, language)] if own else []
    told += _what_became_of(delivery, own, names, language)
    return DeliveryStory(
        entries=_in_order(told),
        visit=visit,
        decision=own,
        others=[entries.of_decision(row, names, language) for row in decisions if row is not own],
        geofence=Geofence.objects.filter(brand_id=brand_id, pk=delivery.geofence_id or 0).first(),
    )


def _in_order(told: Sequence[Entry]) -> list[Entry]:
    """By time, but nothing before what led to it: clocks differ, and an answer is noted late.

    A push service's answer is written down after the phone has said that the push arrived.
    """
    earliest: dict[str, datetime] = {}
    floor = min(entry.at for entry in told)
    for kind in _LEADS_TO:
        floor = max(floor, min((one.at for one in told if one.kind == kind), default=floor))
        earliest[kind] = floor
    return sorted(
        told,
        key=lambda entry: (
            max(entry.at, earliest.get(entry.kind, entry.at)),
            _ORDER_OF_KINDS.index(entry.kind),
        ),
    )


def _visit_of(delivery: Delivery) -> list[Transition]:
    """All transitions of the visit that set it off."""
    if delivery.moment_kind != "transition":
        return []
    of_device = Transition.objects.filter(device_id=delivery.device_id)
    moment = of_device.filter(pk=delivery.moment_id or 0).first()
    return list(of_device.filter(visit_id=moment.visit_id)) if moment else []


def _event_of(delivery: Delivery) -> list[Event]:
    """The event that set it off, if one did."""
    if delivery.moment_kind != "event":
        return []
    return list(Event.objects.filter(pk=delivery.moment_id or 0, brand_id=delivery.brand_id)[:1])


def _decisions_at_its_moment(delivery: Delivery) -> list[Decision]:
    """Its own and those of the campaigns that were asked with it."""
    if not delivery.moment_id:
        return []
    return list(
        Decision.objects.filter(
            device_id=delivery.device_id,
            brand_id=delivery.brand_id,
            moment_kind=delivery.moment_kind,
            moment_id=delivery.moment_id,
        )
    )


def _what_became_of(
    delivery: Delivery, own: Decision | None, names: Names, language: str
) -> Iterator[Entry]:
    actions = list(delivery.actions.select_related("actor"))
    sent_again = any(row.action == DeliveryAction.RESEND for row in actions)
    # Sent again, it is due and expires anew: when it first did is not known any more.
    times = () if sent_again else (("due", delivery.due_at), ("expires", delivery.expires_at))
    yield Entry(
        at=delivery.created_at,
        id=delivery.pk,
        kind="delivery",
        icon="outgoing_mail",
        title="The offer was written down to be sent",
        facts=(
            *times,
            ("priority", delivery.priority),
            *(("checked again when sent", key.replace("_", " ")) for key in delivery.gates),
        ),
    )
    yield from (entries.of_attempt(row) for row in delivery.attempts.all())
    yield from (entries.of_feedback(row) for row in delivery.feedback.all())
    yield from map(entries.of_action, actions)
    if delivery.state in _ENDED:
        zone = names.zones.get(delivery.device_id) or wallclock.zone("UTC")
        why = words.withheld(own.trace, language, zone) if own else ""
        yield entries.of_ending(delivery, why, language)

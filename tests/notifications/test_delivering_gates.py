"""What is looked at again before an offer goes out, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from devices.models import Device, DeviceState, Presence
from notifications import delivering
from notifications.courier import Courier
from notifications.gates import Hold, Stop, Subject
from notifications.models import Attempt, Delivery
from notifications.offers import current_offers
from tests.factories import make_brand, make_device
from tests.notifications.rows import (
    NOON,
    FakeSender,
    deliver,
    make_delivery,
    the_delivery,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def above() -> Iterator[Callable[[Any], None]]:
    """Add a gate for the length of a test."""
    before = list(delivering._gates)
    yield delivering.add_gate
    delivering._gates[:] = before


def test_it_leaves_an_offer_without_token_to_the_inbox(
    courier: Courier, sender: FakeSender
) -> None:
    device = make_device(make_brand(), push_token=None)
    delivery = make_delivery(device)
    deliver(courier)

    delivery.refresh_from_db()
    assert sender.sent == []
    assert (delivery.state, delivery.channel, delivery.reason) == (
        "sent",
        "inbox",
        "no_push_token",
    )
    [offer] = current_offers([device.pk], now=NOON)[device.pk]
    assert offer.delivery_id == delivery.pk


@pytest.mark.parametrize(
    ("token_days_ago", "fix_days_ago", "channel", "reason"),
    [
        (271, None, "inbox", "push_token_idle"),
        (271, 271, "inbox", "push_token_idle"),
        (269, None, "push", ""),
        (271, 1, "push", ""),  # its app runs
        (None, None, "push", ""),  # nothing is known against it
    ],
)
def test_it_pushes_to_no_phone_that_was_silent_for_longer_than_a_token_lives(
    courier: Courier,
    token_days_ago: int | None,
    fix_days_ago: int | None,
    channel: str,
    reason: str,
) -> None:
    def at(days_ago: int | None) -> datetime | None:
        return None if days_ago is None else NOON - timedelta(days=days_ago)

    device = make_device(make_brand(), push_token_at=at(token_days_ago))
    DeviceState.objects.filter(device=device).update(received_at=at(fix_days_ago))
    make_delivery(device)
    deliver(courier)

    assert (the_delivery().channel, the_delivery().reason) == (channel, reason)
    device.refresh_from_db()
    assert device.push_token, "it is pushed to again when it is heard of"


@pytest.mark.parametrize(
    ("changed", "fields", "reason"),
    [
        ({"consent_location": False}, {}, "no_location_consent"),
        (
            {"consent_location": False},
            {"moment_kind": "event", "gates": {"by_location": True}},
            "no_location_consent",
        ),
        ({"consent_marketing": False}, {}, "no_marketing_consent"),
        ({}, {"gates": {"only_while_inside": 7}}, "left_the_geofence"),
        (
            {"timezone": "UTC"},
            {"gates": {"quiet_hours": {"from": "11:00", "to": "13:00", "policy": "drop"}}},
            "quiet_hours",
        ),
    ],
)
def test_it_suppresses_what_is_no_longer_right_and_says_why(
    courier: Courier,
    sender: FakeSender,
    changed: dict[str, Any],
    fields: dict[str, Any],
    reason: str,
) -> None:
    device = make_device(make_brand())
    make_delivery(device, **fields)
    Device.objects.filter(pk=device.pk).update(**changed)
    deliver(courier)

    delivery = the_delivery()
    assert (delivery.state, delivery.reason) == ("suppressed", reason)
    assert delivery.attempt_count == 0
    assert sender.sent == []
    assert not Attempt.objects.exists()


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"moment_kind": "transition"}, "suppressed"),
        ({"moment_kind": "transition", "geofence_id": 7}, "suppressed"),
        ({"moment_kind": "schedule", "geofence_id": 7}, "suppressed"),
        # a sequence: its wait is over, or an event told late of its last step, at a place
        ({"moment_kind": "timer", "geofence_id": 7}, "suppressed"),
        ({"moment_kind": "event", "geofence_id": 7}, "suppressed"),
        # … or it ended elsewhere than at a place
        ({"moment_kind": "timer"}, "sent"),
        ({"moment_kind": "event"}, "sent"),
        # staff chose the place, and this phone
        ({"moment_kind": "test", "geofence_id": 7}, "sent"),
    ],
)
def test_it_sends_nothing_owed_for_a_place_once_consent_to_location_is_withdrawn(
    courier: Courier, fields: dict[str, Any], state: str
) -> None:
    make_delivery(make_device(make_brand(), consent_location=False), **fields)
    deliver(courier)

    assert the_delivery().state == state


@pytest.mark.parametrize(
    ("state", "sent"), [("inside", True), ("leaving", True), ("entering", False)]
)
def test_it_sends_while_inside_is_what_we_believe(courier: Courier, state: str, sent: bool) -> None:
    device = make_device(make_brand())
    make_delivery(device, gates={"only_while_inside": 7})
    Presence.objects.create(
        device_id=device.pk,
        geofence_id=7,
        brand_id=device.brand_id,
        state=state,
        visit_id=1,
        entered_at=NOON,
        since_at=NOON,
        due_at=NOON,
    )
    deliver(courier)

    assert the_delivery().state == ("sent" if sent else "suppressed")


def test_it_holds_through_quiet_hours_and_sends_at_their_end(
    courier: Courier, sender: FakeSender
) -> None:
    make_delivery(
        make_device(make_brand(), timezone="UTC"),
        gates={"quiet_hours": {"from": "11:00", "to": "12:30", "policy": "hold"}},
    )
    deliver(courier)
    assert the_delivery().due_at == NOON + timedelta(minutes=30)
    assert (the_delivery().reason, the_delivery().attempt_count) == ("quiet_hours", 0)
    deliver(courier, minutes=29)
    assert sender.sent == []
    deliver(courier, minutes=30)

    assert the_delivery().state == "sent"


def test_it_expires_what_waited_too_long(courier: Courier, sender: FakeSender) -> None:
    make_delivery(make_device(make_brand()))
    deliver(courier, hours=2)

    assert the_delivery().state == "expired"
    assert sender.sent == []


def test_it_sends_nothing_to_a_device_that_was_erased(courier: Courier, sender: FakeSender) -> None:
    device = make_device(make_brand())
    make_delivery(device)
    Device.objects.filter(pk=device.pk).delete()
    deliver(courier)

    assert (the_delivery().state, the_delivery().reason) == ("suppressed", "device_gone")
    assert sender.sent == []


def test_it_obeys_a_gate_of_an_app_above(
    courier: Courier, sender: FakeSender, above: Callable[[Any], None]
) -> None:
    device = make_device(make_brand())
    stopped, held, free = (make_delivery(device) for _ in range(3))

    def gate(deliveries: Sequence[Subject], /, *, now: datetime) -> Mapping[int, Hold | Stop]:
        assert len(deliveries) == 3
        until = now + timedelta(minutes=5)
        return {stopped.pk: Stop(reason="campaign_paused"), held.pk: Hold(until=until, reason="w")}

    above(gate)
    deliver(courier)

    states = dict(Delivery.objects.values_list("pk", "state"))
    assert states == {stopped.pk: "suppressed", held.pk: "pending", free.pk: "sent"}
    assert Delivery.objects.get(pk=stopped.pk).reason == "campaign_paused"


def test_it_waits_with_a_batch_whose_gate_fails(
    courier: Courier, sender: FakeSender, above: Callable[[Any], None]
) -> None:
    make_delivery(make_device(make_brand()))

    def gate(_deliveries: Sequence[Subject], /, *, now: datetime) -> Mapping[int, Hold | Stop]:
        raise RuntimeError("the campaign's rows are gone")

    above(gate)
    deliver(courier)

    assert sender.sent == []
    assert (the_delivery().state, the_delivery().reason) == ("pending", "gate_failed")
    assert the_delivery().due_at == NOON + timedelta(minutes=1)

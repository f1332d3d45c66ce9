"""Worked stories: what marketers ask for, from rows to offers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils.timezone import now

from brands.models import Brand
from campaigns.evaluation import evaluate_once
from campaigns.models import Completion, Decision
from devices.models import Device
from geofences.models import Geofence
from notifications.models import Delivery
from tests.campaigns.rows import make_campaign, make_event, make_transition
from tests.factories import make_brand, make_circle, make_device

pytestmark = pytest.mark.django_db

DAY_S = 86_400
LOW_THEN_PASS = {
    "on": "sequence",
    "steps": [{"on": "event", "event": "balance_low"}, {"on": "entered", "tags": ["topup"]}],
    "within_s": 3 * DAY_S,
}


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def ann(brand: Brand) -> Device:
    return make_device(brand, external_id="ann")


@pytest.fixture
def topup(brand: Brand) -> Geofence:
    return make_circle(brand, name="Kiosk", tags=["topup"])


def settle(at: datetime | None = None) -> list[str]:
    """Evaluate until nothing is left; the reasons given, in order."""
    before = set(Decision.objects.values_list("id", flat=True))
    while evaluate_once(now=at or now()):
        pass
    return list(
        Decision.objects.exclude(pk__in=before).order_by("id").values_list("reason", flat=True)
    )


def ago(**span: float) -> dict[str, Any]:
    return {"occurred_at": now() - timedelta(**span)}


def test_the_balance_falls_low_then_the_phone_passes_a_top_up_shop(
    brand: Brand, ann: Device, topup: Geofence
) -> None:
    make_campaign(brand, trigger=LOW_THEN_PASS, only_while_inside=True)
    make_event(None, brand, "balance_low", external_id="ann", **ago(hours=5))
    assert settle() == []
    entry = make_transition(ann, topup)
    assert settle() == ["matched"]
    delivery = Delivery.objects.get()
    assert delivery.content["body"] == "One for you at Kiosk"
    assert (delivery.moment_kind, delivery.moment_id) == ("transition", entry.pk)
    assert delivery.gates["only_while_inside"] == topup.pk
    assert delivery.gates["by_location"] is True
    make_transition(ann, topup)
    assert settle() == ["sequence_incomplete"]  # that low balance has been answered


def test_without_a_low_balance_nothing_is_said_and_it_is_said_why(
    brand: Brand, ann: Device, topup: Geofence
) -> None:
    make_campaign(brand, trigger=LOW_THEN_PASS)
    make_event(ann, brand, "balance_low", **ago(days=4))
    make_transition(ann, topup)
    assert settle() == ["sequence_incomplete"]
    trace = Decision.objects.get().trace
    assert (trace["matched"], trace["of"]) == (2, 2)
    assert trace["lacks"].endswith("s too late")


def test_a_low_balance_that_is_told_late_still_counts(
    brand: Brand, ann: Device, topup: Geofence
) -> None:
    make_campaign(brand, trigger=LOW_THEN_PASS)
    make_transition(ann, topup, **ago(minutes=5))
    assert settle() == ["sequence_incomplete"]
    late = make_event(None, brand, "balance_low", external_id="ann", **ago(minutes=10))
    assert settle() == ["matched"]
    delivery = Delivery.objects.get()
    assert (delivery.moment_kind, delivery.moment_id) == ("event", late.pk)
    assert delivery.geofence_id == topup.pk
    assert delivery.content["body"] == "One for you at Kiosk"


def test_one_told_so_late_that_the_moment_is_past_does_not(
    brand: Brand, ann: Device, topup: Geofence
) -> None:
    make_campaign(brand, trigger=LOW_THEN_PASS)
    make_transition(ann, topup, **ago(hours=2))
    make_event(None, brand, "balance_low", external_id="ann", **ago(hours=3))
    settle()
    assert not Delivery.objects.exists()


RIVALS = {
    "on": "sequence",
    "steps": [
        {"on": "entered", "tags": ["rival"], "times": 2},
        {"on": "entered", "tags": ["ours"], "days": ["mon", "tue", "wed", "thu", "fri"]},
    ],
    "within_s": 14 * DAY_S,
    "unless": {"on": "event", "event": "purchase"},
    "for_s": DAY_S,
    "again_after_s": 30 * DAY_S,
}
WEDNESDAY = datetime.fromisoformat("2026-06-10T12:00:00+00:00")


@pytest.mark.parametrize(
    ("visits", "day", "bought_after_h", "reasons"),
    [
        ((3, 9), WEDNESDAY, None, ["matched"]),
        ((3, 9), WEDNESDAY, 20, ["called_off"]),
        ((3, 9), WEDNESDAY, 25, ["matched"]),  # after the day that was waited
        ((3,), WEDNESDAY, None, []),
        ((3, 15), WEDNESDAY, None, []),
        ((3, 9), WEDNESDAY + timedelta(days=3), None, []),  # a Saturday
    ],
)
def test_twice_at_a_rivals_then_with_us_on_a_weekday_and_nothing_bought(
    brand: Brand,
    ann: Device,
    visits: tuple[int, ...],
    day: datetime,
    bought_after_h: int | None,
    reasons: list[str],
) -> None:
    rival, ours = make_circle(brand, tags=["rival"]), make_circle(brand, tags=["ours"])
    make_campaign(brand, trigger=RIVALS)
    for days in visits:
        make_transition(ann, rival, occurred_at=day - timedelta(days=days))
    make_transition(ann, ours, occurred_at=day)
    settle(day + timedelta(seconds=5))
    assert not Delivery.objects.exists()
    if bought_after_h is not None:
        at = day + timedelta(hours=bought_after_h)
        make_event(None, brand, "purchase", external_id="ann", occurred_at=at)
    assert settle(day + timedelta(days=1, seconds=5)) == reasons
    assert Delivery.objects.exists() is (reasons == ["matched"])
    assert settle(day + timedelta(days=1, seconds=10)) == []
    if reasons == ["matched"]:
        assert Decision.objects.get(verdict="send").moment_kind == "timer"


def test_a_wait_that_ended_long_ago_fires_nothing(brand: Brand, ann: Device) -> None:
    shop = make_circle(brand, tags=["ours"])
    trigger = {
        "on": "sequence",
        "steps": [{"on": "entered", "tags": ["ours"]}],
        "unless": {"on": "event", "event": "purchase"},
        "for_s": 3600,
    }
    make_campaign(brand, trigger=trigger)
    make_transition(ann, shop, occurred_at=WEDNESDAY)
    settle(WEDNESDAY)
    assert settle(WEDNESDAY + timedelta(hours=5)) == ["too_late"]
    assert Completion.objects.get().settled_at is not None


def test_the_third_visit_over_two_phones(brand: Brand, ann: Device, topup: Geofence) -> None:
    other = make_device(brand, external_id="ann")
    trigger = {"on": "sequence", "steps": [{"on": "entered", "tags": ["topup"]}], "nth": 3}
    make_campaign(brand, trigger=trigger)
    for number, device in enumerate((ann, other, ann, other)):
        make_transition(device, topup, **ago(seconds=60 - number))
    assert sorted(settle()) == ["matched"] + ["sequence_incomplete"] * 3
    assert Delivery.objects.get().device_id == ann.pk


def test_a_visit_that_waits_to_be_judged_completes_nothing_before_its_turn(
    brand: Brand, ann: Device, topup: Geofence
) -> None:
    trigger = {
        "on": "sequence",
        "steps": [{"on": "entered", "tags": ["topup"], "times": 3}],
        "within_s": 7 * DAY_S,
    }
    make_campaign(brand, trigger=trigger)
    visits = [make_transition(ann, topup, **ago(minutes=back)) for back in (12, 8, 4)]

    while evaluate_once(now=now(), limit=1):
        pass

    decided = Decision.objects.order_by("id").values_list("moment_id", "reason")
    ids = [visit.pk for visit in visits]
    assert list(decided) == list(
        zip(ids, ["sequence_incomplete", "sequence_incomplete", "matched"], strict=True)
    )


def test_the_first_time_back_after_a_month(brand: Brand, ann: Device, topup: Geofence) -> None:
    trigger = {
        "on": "sequence",
        "steps": [{"on": "entered", "tags": ["topup"]}],
        "absent_s": 30 * DAY_S,
    }
    make_campaign(brand, trigger=trigger)
    make_transition(ann, topup, processed_at=now(), **ago(days=40))
    make_transition(ann, topup, **ago(seconds=9))
    make_transition(ann, topup, **ago(seconds=3))
    assert sorted(settle()) == ["matched", "sequence_incomplete"]
    assert Delivery.objects.count() == 1


def test_a_sequence_rests_as_long_as_it_is_told(brand: Brand, ann: Device, topup: Geofence) -> None:
    trigger = {
        "on": "sequence",
        "steps": [{"on": "entered", "tags": ["topup"]}],
        "again_after_s": DAY_S,
    }
    make_campaign(brand, trigger=trigger)
    make_transition(ann, topup, **ago(seconds=9))
    assert settle() == ["matched"]
    make_transition(ann, topup, **ago(seconds=3))
    assert settle() == ["sequence_rests"]
    trace = Decision.objects.get(reason="sequence_rests").trace
    assert trace["next_at"] == trace["last_at"] + DAY_S * 1000


def test_a_sequence_arms_every_place_it_needs(brand: Brand) -> None:
    rival, ours = make_circle(brand, tags=["rival"]), make_circle(brand, tags=["ours"])
    watched = make_circle(brand, tags=["watched"])
    audience = {"visits": {"tags": ["watched"]}, "value": 1}
    make_campaign(brand, trigger=RIVALS, audience=audience)
    for place in (rival, ours, watched):
        place.refresh_from_db()
        assert place.armed_until is not None


def test_a_purchase_of_another_order_does_not_call_it_off(brand: Brand, ann: Device) -> None:
    trigger = {
        "on": "sequence",
        "steps": [{"on": "event", "event": "cart"}],
        "unless": {"on": "event", "event": "purchase"},
        "for_s": 600,
        "key": "order",
    }
    content = {"title": "Forgotten?", "body": "Order {{ event.properties.order }}"}
    make_campaign(brand, trigger=trigger, content=content)
    for order in (1, 2):
        at = WEDNESDAY + timedelta(seconds=order)
        make_event(ann, brand, "cart", occurred_at=at, properties={"order": order})
    bought_at = WEDNESDAY + timedelta(minutes=5)
    make_event(ann, brand, "purchase", occurred_at=bought_at, properties={"order": 1})
    settle(bought_at)
    assert sorted(settle(WEDNESDAY + timedelta(minutes=11))) == ["called_off", "matched"]
    assert Delivery.objects.get().content["body"] == "Order 2"

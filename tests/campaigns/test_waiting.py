"""Offers that waited: asked again when they go out, by what is known and live then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Brand, Role
from campaigns import coupons, publishing
from campaigns.evaluation import evaluate_once
from campaigns.models import BrandGuard, Coupon, Decision, Spend
from campaigns.waiting import still_right
from devices import auth
from devices.models import Device
from geofences.models import Geofence
from notifications import outbox
from notifications.courier import Courier
from notifications.delivering import deliver_once
from notifications.models import Delivery
from tests.campaigns.rows import make_campaign, make_event, make_transition
from tests.factories import make_brand, make_circle, make_device, make_key
from tests.notifications.rows import FakeSender
from tests.staff import logged_in, make_member

pytestmark = pytest.mark.django_db

EVENING = datetime(now().year + 1, 1, 15, 20, 0, tzinfo=UTC)  # 22:00 in Helsinki
MORNING = EVENING + timedelta(hours=10)
LATER: dict[str, Any] = {"quiet_hours": "hold"}
NOT_AGAIN = {"name": "has it", "attribute": "has_it", "op": "ne", "value": True}


@pytest.fixture
def brand() -> Brand:
    return make_brand(quiet_hours={"from": "21:00", "to": "08:00"})


@pytest.fixture
def shop(brand: Brand) -> Geofence:
    return make_circle(brand, name="Kiosk")


@pytest.fixture
def ann(brand: Brand) -> Device:
    return make_device(brand, external_id="ann", push_token="token-ann")


def by(device: Device) -> dict[str, str]:
    return {"Authorization": f"Bearer {auth.issue(device.pk, device.brand_id, 1)}"}


def held(device: Device, shop: Geofence, at: datetime = EVENING) -> Delivery:
    """The device comes by in the evening; its offer waits for the morning."""
    make_transition(device, shop, occurred_at=at)
    evaluate_once(now=at)
    delivery = Delivery.objects.get(device_id=device.pk, created_at=at)
    assert delivery.due_at > delivery.created_at
    return delivery


def after_the_night(courier: Courier, at: datetime = MORNING) -> list[tuple[str, str]]:
    deliver_once(courier, now=at)
    return list(Delivery.objects.order_by("id").values_list("state", "reason"))


def test_nothing_changed_and_it_goes_out(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier, sender: FakeSender
) -> None:
    make_campaign(brand, shop, guards=[NOT_AGAIN], audience={"platform": ann.platform}, **LATER)
    held(ann, shop)
    assert after_the_night(courier) == [("sent", "")]
    assert [push.token for push in sender.sent] == ["token-ann"]
    assert "withheld" not in Decision.objects.get().trace


def test_who_bought_it_over_night_is_not_told_of_it_and_everything_says_why(
    client: Client, brand: Brand, shop: Geofence, courier: Courier, sender: FakeSender
) -> None:
    """From the phone's door to support's page: told in the evening, bought before the morning."""
    pool = coupons.new_pool(brand, name="Spring", slug="spring")
    Coupon.objects.create(pool=pool, brand_id=brand.pk, code="ONE")
    make_campaign(
        brand,
        shop,
        guards=[NOT_AGAIN],
        budget={"total": {"sends": 1}},
        coupon_pool="spring",
        content={"title": "Hi", "body": "{{ coupon.code }}"},
        **LATER,
    )
    device = make_device(brand, external_id="ann")
    held(device, shop)
    assert Spend.objects.get(day=None, geofence_id=None).sends == 1
    assert Coupon.objects.get().state == "drawn"
    key = {"Authorization": f"Bearer {make_key(brand)}"}
    told = client.put(
        "/v1/gateway/profiles",
        {"profiles": [{"external_id": "ann", "attributes": {"has_it": True}}]},
        content_type="application/json",
        headers=key,
    )
    assert told.status_code == 200, told.content

    assert after_the_night(courier) == [("suppressed", "contradicts_attribute")]
    assert sender.sent == []
    assert Spend.objects.get(day=None, geofence_id=None).sends == 0
    assert Coupon.objects.get().state == "free"
    seen = client.get("/v1/offers", headers=by(device)).json()
    assert seen["results"] == []

    (answer,) = client.get("/v1/decisions", headers=key).json()["results"]
    assert (answer["verdict"], answer["reason"]) == ("send", "held")
    withheld = answer["trace"]["withheld"]
    assert withheld["reason"] == "contradicts_attribute"
    assert (withheld["seen"]["rule"], withheld["seen"]["seen"]) == ("has it", True)
    assert withheld["at"] == round(MORNING.timestamp() * 1000)
    clock = f"{MORNING + timedelta(hours=2):%Y-%m-%d %H:%M} Europe/Helsinki"
    assert f"It was held back at {clock}: It contradicts what is known: has_it" in answer["message"]
    french = client.get("/v1/decisions", headers=key | {"Accept-Language": "fr"}).json()
    assert f"Elle a été retenue le {clock} : Cela contredit" in french["results"][0]["message"]

    desk = logged_in(make_member(brand, Role.SUPPORT))
    for page in (
        reverse("admin:campaigns_decision_change", args=[answer["id"]]),
        reverse("admin:notifications_delivery_change", args=[Delivery.objects.get().pk]),
        reverse("admin:devices_device_change", args=[device.pk]),
    ):
        assert "It contradicts what is known" in desk.get(page).content.decode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"consent_marketing": False}, "no_marketing_consent"),
        ({"consent_location": False}, "no_location_consent"),
        ({"attributes": {"plan": "postpaid"}}, "not_in_audience"),
        ({"external_id": "bob"}, "somebody_else"),
        ({"external_id": None}, "somebody_else"),
    ],
)
def test_what_changed_of_the_person_counts(
    brand: Brand,
    shop: Geofence,
    ann: Device,
    courier: Courier,
    change: dict[str, Any],
    reason: str,
) -> None:
    Device.objects.filter(pk=ann.pk).update(attributes={"plan": "prepaid"})
    audience = {"all": [{"attribute": "plan", "value": "prepaid"}, {"consent": "marketing"}]}
    make_campaign(brand, shop, audience=audience, **LATER)
    held(ann, shop)
    Device.objects.filter(pk=ann.pk).update(**change)
    assert after_the_night(courier) == [("suppressed", reason)]
    assert Decision.objects.get().trace["withheld"]["reason"] == reason


def test_a_purchase_of_the_very_thing_in_the_night_counts(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier
) -> None:
    bob = make_device(brand, external_id="bob")
    rule = {"event": "purchase", "same": {"sku": "event.sku"}, "within_s": 86_400}
    trigger = {"on": "event", "event": "looked"}
    make_campaign(brand, trigger=trigger, guards=[rule], **LATER)
    for device in (ann, bob):
        make_event(device, brand, "looked", occurred_at=EVENING, properties={"sku": "shoe"})
    evaluate_once(now=EVENING)
    at = EVENING + timedelta(hours=1)
    make_event(ann, brand, "purchase", occurred_at=at, properties={"sku": "shoe"})
    make_event(bob, brand, "purchase", occurred_at=at, properties={"sku": "sock"})
    deliver_once(courier, now=MORNING)
    states = dict(Delivery.objects.values_list("person", "state"))
    assert states == {"ann": "suppressed", "bob": "sent"}
    trace = Decision.objects.get(device_id=ann.pk).trace["withheld"]
    assert trace["reason"] == "contradicts_event"
    assert trace["seen"]["ago_s"] == 9 * 3_600


def test_a_rule_of_the_brand_counts_though_it_is_newer(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier
) -> None:
    Device.objects.filter(pk=ann.pk).update(attributes={"has_it": True})
    make_campaign(brand, shop, **LATER)
    held(ann, shop)
    BrandGuard.objects.create(brand=brand, name="x", rule={k: v for k, v in NOT_AGAIN.items()
                                                           if k != "name"})  # fmt: skip
    assert after_the_night(courier) == [("suppressed", "contradicts_attribute")]


def test_time_that_went_by_takes_nobody_out_of_the_audience(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier
) -> None:
    """Bought within the hour, first time here: true in the evening, and that is what counts."""
    bought = {"event": "purchase", "value": 1, "within_s": 3_600}
    first = {"visits": "here", "op": "eq", "value": 1}
    make_campaign(brand, shop, audience={"all": [bought, first]}, **LATER)
    make_event(ann, brand, "purchase", occurred_at=EVENING - timedelta(minutes=30))
    held(ann, shop)
    again = MORNING - timedelta(minutes=5)
    make_transition(ann, shop, occurred_at=again, processed_at=again)
    assert after_the_night(courier) == [("sent", "")]


def test_it_was_told_something_else_meanwhile(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier
) -> None:
    told = {"offer": {"label": "opening"}, "within_s": 3_600 * 12}
    make_campaign(brand, shop, guards=[told], labels=["opening"], **LATER)
    other = make_circle(brand)
    held(ann, shop)
    make_campaign(brand, other, name="New", labels=["opening"], group="x", **LATER)
    held(ann, other, at=EVENING + timedelta(hours=1))
    states = [state for state, _ in after_the_night(courier)]
    assert states == ["suppressed", "sent"]
    assert Decision.objects.earliest("id").trace["withheld"]["reason"] == "contradicts_offer"


def test_an_offer_does_not_stand_in_its_own_way(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier
) -> None:
    once = {"offer": {"label": "opening"}, "within_s": 3_600}
    make_campaign(brand, shop, guards=[once], labels=["opening"], **LATER)
    held(ann, shop)
    assert after_the_night(courier) == [("sent", "")]


def test_the_campaign_ended_while_it_waited(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier
) -> None:
    campaign = make_campaign(brand, shop, **LATER)
    held(ann, shop)
    ends = {"ends_at": (MORNING - timedelta(hours=1)).isoformat()}
    publishing.edit(campaign, raw=campaign.draft | ends, actor=None)
    publishing.publish(campaign, actor=None, now=now())
    assert after_the_night(courier) == [("suppressed", "outside_window")]


def test_it_is_never_held_past_the_campaigns_end(brand: Brand, shop: Geofence, ann: Device) -> None:
    make_campaign(brand, shop, ends_at=(MORNING - timedelta(hours=1)).isoformat(), **LATER)
    make_transition(ann, shop, occurred_at=EVENING)
    evaluate_once(now=EVENING)
    assert not Delivery.objects.exists()
    assert Decision.objects.get().reason == "outside_window"


def test_it_waits_for_the_morning_of_where_the_phone_is_by_now(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier
) -> None:
    make_campaign(brand, shop, expires_after_s=8 * 3_600, **LATER)
    held(ann, shop)
    Device.objects.filter(pk=ann.pk).update(timezone="America/New_York")
    assert after_the_night(courier) == [("pending", "quiet_hours")]
    there = Delivery.objects.get().due_at
    assert there == EVENING.replace(hour=13, minute=0) + timedelta(days=1)  # 08:00 in New York
    assert after_the_night(courier, there) == [("sent", "")]


def test_what_a_stopped_worker_left_over_keeps_the_hours(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier
) -> None:
    parts = [{"from": "09:00", "to": "18:00"}]
    noon = EVENING.replace(hour=10)
    for number, outside in enumerate(("drop", "hold")):
        make_campaign(brand, shop, name=outside, group=str(number), dayparts=parts,
                      outside_dayparts=outside, expires_after_s=86_400)  # fmt: skip
    make_transition(ann, shop, occurred_at=noon)
    evaluate_once(now=noon)
    deliver_once(courier, now=noon.replace(hour=17))  # 19:00 in Helsinki
    found = {one.campaign_name: one for one in Delivery.objects.all()}
    assert (found["drop"].state, found["drop"].reason) == ("suppressed", "outside_daypart")
    assert (found["hold"].state, found["hold"].due_at) == (
        "pending", noon.replace(hour=7) + timedelta(days=1),
    )  # fmt: skip


def test_a_coupon_that_ran_out_over_night_is_not_given(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier
) -> None:
    pool = coupons.new_pool(brand, name="S", slug="s", last_day=EVENING.date())
    Coupon.objects.create(pool=pool, brand_id=brand.pk, code="ONE")
    content = {"title": "Hi", "body": "{{ coupon.code }}"}
    make_campaign(brand, shop, coupon_pool="s", content=content, **LATER)
    held(ann, shop)
    assert after_the_night(courier) == [("suppressed", "coupon_over")]


def test_it_is_not_in_the_inbox_before_it_was_asked_again(
    client: Client, brand: Brand, shop: Geofence, courier: Courier
) -> None:
    make_campaign(brand, shop, **LATER)
    device = make_device(brand)
    delivery = held(device, shop)
    past = now() - timedelta(minutes=1)
    Delivery.objects.update(created_at=past - timedelta(hours=9), due_at=past)
    assert client.get("/v1/offers", headers=by(device)).json()["results"] == []
    Delivery.objects.update(due_at=delivery.due_at)
    assert after_the_night(courier)[0][0] == "sent"
    assert len(client.get("/v1/offers", headers=by(device)).json()["results"]) == 1


def test_what_support_sends_again_is_asked_as_well(
    brand: Brand, shop: Geofence, ann: Device, courier: Courier
) -> None:
    noon = EVENING.replace(hour=10)
    make_campaign(brand, shop, guards=[NOT_AGAIN])
    make_transition(ann, shop, occurred_at=noon)
    evaluate_once(now=noon)
    deliver_once(courier, now=noon)
    Device.objects.filter(pk=ann.pk).update(attributes={"has_it": True})
    at = noon + timedelta(hours=1)
    outbox.resend(Delivery.objects.get().pk, actor_id=None, note="", now=at)
    assert after_the_night(courier, at) == [("suppressed", "contradicts_attribute")]


def test_a_batch_asks_once_however_many_waited(
    brand: Brand, shop: Geofence, courier: Courier
) -> None:
    event = {"event": "purchase", "within_s": 86_400}
    told = {"offer": {"label": "x"}, "within_s": 60}
    bought = {"not": {"event": "purchase", "value": 9, "within_s": 3_600}}
    make_campaign(brand, shop, guards=[NOT_AGAIN, event, told], audience=bought, **LATER)

    def queries(count: int, at: datetime) -> int:
        for _ in range(count):
            make_transition(make_device(brand), shop, occurred_at=at)
        evaluate_once(now=at)
        with CaptureQueriesContext(connection) as seen:
            deliver_once(courier, now=at + timedelta(hours=10))
        return len(seen)

    queries(1, EVENING)
    assert queries(2, EVENING + timedelta(days=1)) == queries(20, EVENING + timedelta(days=2))


def test_what_goes_out_at_once_is_not_asked_again(
    brand: Brand, shop: Geofence, ann: Device
) -> None:
    make_campaign(brand, shop, guards=[NOT_AGAIN])
    at = EVENING.replace(hour=10)
    make_transition(ann, shop, occurred_at=at)
    evaluate_once(now=at)
    with CaptureQueriesContext(connection) as seen:
        assert still_right(list(Delivery.objects.all()), now=at + timedelta(seconds=5)) == {}
    assert len(seen) == 1  # the test's own

"""The inbox and feedback, as a device asks for them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils.timezone import now

from devices import auth
from devices.models import Device
from notifications.models import Delivery, Feedback
from tests.factories import make_brand, make_device

pytestmark = pytest.mark.django_db


def make_delivery(device: Device, **fields: Any) -> Delivery:
    return Delivery.objects.create(
        **{
            "brand_id": device.brand_id,
            "device_id": device.pk,
            "person": "c-1",
            "campaign_id": 7,
            "campaign_name": "Spring",
            "moment_kind": "transition",
            "key": f"k{Delivery.objects.count()}",
            "content": {"title": "Hello", "body": "Coffee?", "data": {"a": "b"}},
            "state": "sent",
            "due_at": now(),
            "expires_at": now() + timedelta(hours=1),
        }
        | fields
    )


class App:
    def __init__(self, device: Device) -> None:
        self.client = Client()
        token = auth.issue(device.pk, device.brand_id, 1)
        self.headers = {"authorization": f"Bearer {token}"}

    def offers(self) -> list[dict[str, Any]]:
        answer = self.client.get("/v1/offers", headers=self.headers)
        assert answer.status_code == 200
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    def say(self, delivery_id: Any, **said: Any) -> int:
        return self.client.post(
            f"/v1/deliveries/{delivery_id}/feedback",
            said,
            content_type="application/json",
            headers=self.headers,
        ).status_code


@pytest.fixture
def device() -> Device:
    return make_device(make_brand())


def test_it_lists_current_offers_newest_first(device: Device) -> None:
    older, newer = make_delivery(device), make_delivery(device)
    offers = App(device).offers()
    assert [offer["delivery_id"] for offer in offers] == [newer.pk, older.pk]
    assert offers[0]["title"] == "Hello"
    assert offers[0]["data"] == {"a": "b"}
    assert offers[0]["campaign"] == {"id": 7, "name": "Spring"}


@pytest.mark.parametrize(
    "fields",
    [
        *({"state": state} for state in ("suppressed", "cancelled", "expired", "parked", "failed")),
        {"expires_at": now() - timedelta(seconds=1)},
        {"state": "pending", "due_at": now() + timedelta(hours=1)},
    ],
)
def test_it_leaves_out_what_is_over_or_not_yet(device: Device, fields: dict[str, Any]) -> None:
    make_delivery(device, **fields)
    assert App(device).offers() == []


@pytest.mark.parametrize(
    ("event", "stays"),
    [("received", True), ("opened", True), ("dismissed", False), ("redeemed", False)],
)
def test_it_leaves_out_what_the_person_is_done_with(
    device: Device, event: str, stays: bool
) -> None:
    app, delivery = App(device), make_delivery(device)
    assert app.say(delivery.pk, event=event) == 204
    assert bool(app.offers()) == stays


def test_it_shows_a_device_its_own_offers_only(device: Device) -> None:
    make_delivery(make_device(device.brand))
    make_delivery(make_device(make_brand()))
    assert App(device).offers() == []


def test_it_takes_a_repeat_as_if_it_were_the_first(device: Device) -> None:
    app, delivery = App(device), make_delivery(device)
    for _ in range(3):
        assert app.say(delivery.pk, event="opened", occurred_at="2026-01-01T00:00:00Z") == 204
    assert Feedback.objects.count() == 1


def test_it_keeps_each_event_once(device: Device) -> None:
    app, delivery = App(device), make_delivery(device)
    for event in ("received", "opened", "redeemed", "opened"):
        assert app.say(delivery.pk, event=event) == 204
    assert Feedback.objects.count() == 3


def test_it_notes_when_it_happened(device: Device) -> None:
    app, delivery = App(device), make_delivery(device)
    at = now() - timedelta(minutes=5)
    app.say(delivery.pk, event="opened", occurred_at=at.isoformat())
    app.say(delivery.pk, event="received", occurred_at=int(at.timestamp() * 1000))
    assert app.say(delivery.pk, event="received", occurred_at=None) == 204
    kept = dict(Feedback.objects.values_list("event", "occurred_at"))
    assert kept.keys() == {"opened", "received"}
    assert all(abs(each - at) < timedelta(milliseconds=2) for each in kept.values())


def test_it_knows_nothing_of_other_devices_deliveries(device: Device) -> None:
    app = App(device)
    for other in (make_device(device.brand), make_device(make_brand())):
        assert app.say(make_delivery(other).pk, event="opened") == 404
    for delivery_id in (0, 10**12, 2**63 - 1, 2**63, 10**40, "x", "-1"):
        assert app.say(delivery_id, event="opened") == 404
    assert not Feedback.objects.exists()


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"event": "loved"},
        {"event": 1},
        {"event": "opened", "occurred_at": "soon"},
        {"event": "opened", "occurred_at": []},
        {"event": "opened", "occurred_at": True},
    ],
)
def test_it_says_what_is_wrong(device: Device, said: dict[str, Any]) -> None:
    assert App(device).say(make_delivery(device).pk, **said) == 422
    assert not Feedback.objects.exists()

"""Promise 2: per visit, a trigger fires once: never twice, never none.

What may repeat on the way to the phone is promise 6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from django.utils.timezone import now

from campaigns.models import Decision
from devices.models import Device, Transition
from notifications.models import Attempt, Delivery, DeliveryState
from tests.campaigns.rows import make_transition
from tests.live_server import LiveWeb
from tests.places import AT_THE_DOOR, DOWN_THE_ROAD
from tests.processes import emulator, until, workers
from tests.promises.conftest import Shop, make_devices

PHONES = 240
DEATHS = 2

pytestmark = pytest.mark.django_db(transaction=True)


def _at_least(count: Callable[[], int], wanted: int) -> bool:
    return count() >= wanted


def test_it_decides_once_on_each_visit_though_evaluators_are_killed(shop: Shop) -> None:
    for device in make_devices(shop.brand, PHONES):
        make_transition(device, shop.place)
    for death in range(1, DEATHS + 1):
        with workers("evaluate") as worker:
            wanted = PHONES * death // (DEATHS + 2)
            until(partial(_at_least, Decision.objects.count, wanted), "some are decided")
            worker.kill()
    with workers("evaluate"), workers("evaluate"):
        until(lambda: not Transition.objects.filter(processed_at=None).exists(), "all are decided")

    decided = Counter(Decision.objects.values_list("moment_id", flat=True))
    owed = Counter(Delivery.objects.values_list("device_id", flat=True))
    assert len(decided) == len(owed) == PHONES
    assert set(decided.values()) == set(owed.values()) == {1}


def test_it_sends_every_offer_though_senders_are_killed(shop: Shop) -> None:
    devices = make_devices(shop.brand, PHONES)
    for device in devices:
        make_transition(device, shop.place)
    with workers("evaluate"):
        until(lambda: Delivery.objects.count() == PHONES, "all offers are owed")
    with emulator(latency_ms=40) as fcm:
        for death in range(1, DEATHS + 1):
            with workers("deliver", emulator_url=fcm.url) as worker:
                wanted = PHONES * death // (DEATHS + 2)
                until(partial(_at_least, sent, wanted), "some are sent")
                worker.kill()
            let_leases_run_out()
        with workers("deliver", emulator_url=fcm.url):
            until(lambda: sent() == PHONES, "all are sent")
        arrived = fcm.all_pushes()

    assert set(arrived) == {device.push_token for device in devices}, "a push for everybody"
    for pushes in arrived.values():
        assert len({identity(push) for push in pushes}) == 1, "repeats are the same offer"
    assert Attempt.objects.filter(outcome="sent").count() == PHONES


def test_it_enters_once_however_often_a_fix_is_sent(
    shop: Shop, live_web: LiveWeb, bearer: Callable[[Device], dict[str, str]]
) -> None:
    [device] = make_devices(shop.brand, 1)
    begin_ms = int((now() - timedelta(minutes=1)).timestamp() * 1000)
    fixes = [
        {"lat": place.lat, "lng": place.lng, "recorded_at": begin_ms + at_s * 1000, "accuracy_m": 8}
        for at_s, place in ((0, DOWN_THE_ROAD), (10, AT_THE_DOOR), (20, AT_THE_DOOR))
    ]
    with httpx.Client(base_url=live_web.base_url, headers=bearer(device)) as phone:
        until(lambda: knows(phone, "shop-1"), "the shop is armed in the web process")
        for batch in (fixes, fixes, fixes[::-1], fixes[1:2], [*fixes, *fixes]):
            answer = phone.post("/v1/locations", json={"locations": batch})
            assert answer.json() == {"accepted": len(batch), "rejected": []}

    assert [each.kind for each in Transition.objects.filter(device_id=device.pk)] == ["entered"]


def sent() -> int:
    return Delivery.objects.filter(state=DeliveryState.SENT).count()


def let_leases_run_out() -> None:
    """Time passes: what a dead worker had claimed is free again."""
    Delivery.objects.filter(state=DeliveryState.SENDING).update(lease_until=now())


def identity(push: dict[str, Any]) -> tuple[str, str]:
    """What a phone tells repeats apart by: shown under one key, and one delivery id."""
    message = push["message"]
    return message["android"]["collapse_key"], message["data"]["delivery_id"]


def knows(phone: httpx.Client, external_id: str) -> bool:
    """Whether the web process has armed a place yet."""
    answer = phone.get(
        "/v1/geofences/nearby", params={"lat": AT_THE_DOOR.lat, "lng": AT_THE_DOOR.lng}
    )
    return external_id in answer.text

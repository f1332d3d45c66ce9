"""Promise 3: a stale fix never fires an offer. It is kept as history."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils.timezone import now

from campaigns.evaluation import evaluate_once
from campaigns.models import Decision
from devices.fixes import FixVerdict
from devices.models import Device, Fix, Transition
from notifications.models import Delivery
from tests.live_server import LiveWeb
from tests.places import AT_THE_DOOR, DOWN_THE_ROAD, Place
from tests.processes import until
from tests.promises.conftest import Shop, make_devices
from tests.promises.test_2_once_per_visit import knows

pytestmark = pytest.mark.django_db(transaction=True)


def fix(place: Place, *, minutes_ago: float) -> dict[str, Any]:
    at = now() - timedelta(minutes=minutes_ago)
    return {"lat": place.lat, "lng": place.lng, "recorded_at": at.isoformat(), "accuracy_m": 8}


def test_it_keeps_a_fix_that_comes_after_a_newer_one_and_fires_nothing(
    shop: Shop, live_web: LiveWeb, bearer: Callable[[Device], dict[str, str]]
) -> None:
    [device] = make_devices(shop.brand, 1)
    with httpx.Client(base_url=live_web.base_url, headers=bearer(device)) as phone:
        until(lambda: knows(phone, "shop-1"), "the shop is armed in the web process")
        for late_or_not in (
            fix(DOWN_THE_ROAD, minutes_ago=1),
            fix(AT_THE_DOOR, minutes_ago=3),  # it was there before, and says so only now
        ):
            answer = phone.post("/v1/locations", json=late_or_not)
            assert answer.json() == {"accepted": 1, "rejected": []}
    evaluate_once(now=now())

    kept = Fix.objects.filter(device_id=device.pk).order_by("recorded_at")
    assert [each.verdict for each in kept] == [FixVerdict.LATE, FixVerdict.USED]
    assert not Transition.objects.exists()
    assert not Delivery.objects.exists()


def test_it_tells_an_old_entry_and_makes_no_offer_of_it(
    shop: Shop, live_web: LiveWeb, bearer: Callable[[Device], dict[str, str]]
) -> None:
    [device] = make_devices(shop.brand, 1)
    with httpx.Client(base_url=live_web.base_url, headers=bearer(device)) as phone:
        until(lambda: knows(phone, "shop-1"), "the shop is armed in the web process")
        # A phone without reception sends its afternoon in the evening.
        answer = phone.post(
            "/v1/locations",
            json={
                "locations": [
                    fix(DOWN_THE_ROAD, minutes_ago=200),
                    fix(AT_THE_DOOR, minutes_ago=190),
                    fix(DOWN_THE_ROAD, minutes_ago=150),
                ]
            },
        )
        assert answer.json() == {"accepted": 3, "rejected": []}
    evaluate_once(now=now())

    told = Transition.objects.order_by("id").values_list("kind", flat=True)
    assert list(told) == ["entered", "exited"]
    assert Fix.objects.filter(device_id=device.pk).count() == 3
    assert not Delivery.objects.exists()
    assert set(Decision.objects.values_list("reason", flat=True)) == {"too_late"}

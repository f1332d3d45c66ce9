"""Promise 9: a malformed row, campaign or template is parked with its reason and stops nothing."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from django.db import connection
from django.utils.timezone import now

from campaigns.evaluation import evaluate_once
from campaigns.models import CampaignVersion, Decision
from devices.models import Device, Fix
from notifications.models import Delivery, DeliveryState
from tests.campaigns.rows import make_campaign, make_transition
from tests.live_server import LiveWeb
from tests.places import AT_THE_DOOR
from tests.processes import emulator, until, workers
from tests.promises.conftest import Shop, make_devices
from tests.promises.test_3_stale_fixes import fix

pytestmark = pytest.mark.django_db(transaction=True)


def test_it_takes_the_good_fixes_of_a_bad_batch(
    shop: Shop, live_web: LiveWeb, bearer: Callable[[Device], dict[str, str]]
) -> None:
    [device] = make_devices(shop.brand, 1)
    good = fix(AT_THE_DOOR, minutes_ago=1)
    bad = [
        {**good, "lat": 91},
        {**good, "lat": "north"},
        {**good, "recorded_at": "the day after"},
        {"lat": 1},
        None,
        {**good, "lat": 0, "lng": 0},
    ]

    answer = httpx.post(
        f"{live_web.base_url}/v1/locations",
        headers=bearer(device),
        json={"locations": [*bad, good]},
    )

    assert answer.status_code == 200
    assert answer.json()["accepted"] == 1
    assert [each["index"] for each in answer.json()["rejected"]] == list(range(len(bad)))
    assert all(each["code"] and each["message"] for each in answer.json()["rejected"])
    assert Fix.objects.filter(device_id=device.pk).count() == 1


def test_it_decides_for_the_others_beside_a_broken_campaign(shop: Shop) -> None:
    broken = make_campaign(shop.brand, shop.place, name="Broken", group="other")
    CampaignVersion.objects.filter(campaign=broken).update(
        definition={"trigger": {"on": "entered", "geofences": [shop.place.pk]}, "caps": "none"}
    )
    broken.save()  # by which the catalogue sees the change
    for device in make_devices(shop.brand, 3):
        make_transition(device, shop.place)

    while evaluate_once(now=now()):
        pass

    assert Delivery.objects.filter(campaign_id=shop.campaign.pk).count() == 3
    told = Decision.objects.filter(campaign_id=broken.pk).values_list("verdict", "reason")
    assert list(told) == [("refuse", "malformed")] * 3


def test_it_sends_the_others_beside_a_broken_delivery(shop: Shop) -> None:
    devices = make_devices(shop.brand, 3)
    for device in devices:
        make_transition(device, shop.place)
    evaluate_once(now=now())
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE notifications_delivery SET content = '[1, 2]' WHERE device_id = %s",
            (devices[0].pk,),
        )

    with emulator() as fcm, workers("deliver", emulator_url=fcm.url):
        until(
            lambda: not Delivery.objects.filter(state__in=("pending", "sending")).exists(),
            "all are settled",
        )
        arrived = fcm.all_pushes()

    parked = Delivery.objects.get(device_id=devices[0].pk)
    assert parked.state == DeliveryState.PARKED
    assert parked.reason
    assert set(arrived) == {device.push_token for device in devices[1:]}

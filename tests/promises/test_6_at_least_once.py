"""Promise 6: every offer is delivered at least once, and twice only across one honest gap.

The gap is a sender that dies between the provider's yes and our record of it. The repeat has the
collapse key and the delivery id of the first, by which the phone shows and counts one offer.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from devices.models import Device
from notifications.models import Attempt, Delivery, DeliveryState, Feedback
from tests.campaigns.rows import make_transition
from tests.processes import emulator, until, workers
from tests.promises.conftest import Shop, make_devices
from tests.promises.test_2_once_per_visit import identity, let_leases_run_out, sent

PHONES = 120
SLOW_MS = 1_500  # long enough to die in

pytestmark = pytest.mark.django_db(transaction=True)


def test_it_repeats_what_was_under_way_when_its_sender_died_and_nothing_else(
    shop: Shop, client: Client, bearer: Callable[[Device], dict[str, str]]
) -> None:
    told, caught = make_devices(shop.brand, 2)
    with emulator(latency_ms=SLOW_MS) as fcm:
        with workers("evaluate", "deliver", emulator_url=fcm.url) as sender:
            make_transition(told, shop.place)
            until(lambda: sent() == 1, "the first is sent, and recorded")
            make_transition(caught, shop.place)
            until(fcm.in_flight, "the provider has the second")
            sender.kill()
        until(lambda: fcm.pushes(caught.push_token or ""), "it says yes, and nobody hears it")
        assert Delivery.objects.get(device_id=caught.pk).state == DeliveryState.SENDING
        assert Attempt.objects.count() == 1

        let_leases_run_out()
        with workers("evaluate", "deliver", emulator_url=fcm.url):
            until(lambda: sent() == 2, "the second is sent again")
        once, twice = (fcm.pushes(each.push_token or "") for each in (told, caught))

    offer = Delivery.objects.get(device_id=caught.pk)
    assert len(once) == 1, "what was recorded is not repeated"
    assert [identity(push) for push in twice] == [(f"nc{offer.pk}", str(offer.pk))] * 2
    assert Attempt.objects.filter(delivery=offer, outcome="sent").count() == 1
    for push in twice:  # a phone that was shown both
        _, delivery_id = identity(push)
        at = f"/v1/deliveries/{delivery_id}/feedback"
        said = {"event": "received"}
        answer = client.post(at, said, content_type="application/json", headers=bearer(caught))
        assert answer.status_code == 204
    assert Feedback.objects.filter(delivery=offer).count() == 1


def test_it_repeats_nothing_where_no_sender_dies(shop: Shop) -> None:
    devices = make_devices(shop.brand, PHONES)
    with emulator(latency_ms=SLOW_MS // 3) as fcm:
        with (
            workers("evaluate", "deliver", emulator_url=fcm.url),
            workers("deliver", emulator_url=fcm.url),
        ):
            for device in devices:
                make_transition(device, shop.place)
            until(fcm.in_flight, "they are at it")
        # Both were asked to end with pushes under way, and heard what came of them.
        assert sent() > 0
        with workers("evaluate", "deliver", emulator_url=fcm.url):
            until(lambda: sent() == PHONES, "all are sent")
        arrived = fcm.all_pushes()

    assert {token: len(pushes) for token, pushes in arrived.items()} == {
        device.push_token: 1 for device in devices
    }
    assert Attempt.objects.filter(outcome="sent").count() == PHONES

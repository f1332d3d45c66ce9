"""Promise 8: consent is checked before matching and before sending; erasure leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import httpx
import pytest
from django.db import connection
from django.test import Client
from django.utils.timezone import now

from campaigns.evaluation import evaluate_once
from devices.models import Device, Fix, Presence, Transition
from notifications.models import Delivery, DeliveryState
from tests.campaigns.rows import make_transition
from tests.factories import make_device
from tests.live_server import LiveWeb
from tests.places import AT_THE_DOOR, DOWN_THE_ROAD
from tests.processes import emulator, until, workers
from tests.promises.conftest import Shop, make_devices
from tests.promises.test_2_once_per_visit import knows
from tests.promises.test_3_stale_fixes import fix

pytestmark = pytest.mark.django_db(transaction=True)

Bearer = Callable[[Device], dict[str, str]]


def test_it_keeps_no_fix_of_who_has_not_agreed(
    shop: Shop, live_web: LiveWeb, bearer: Bearer
) -> None:
    device = make_device(shop.brand, consent_location=False)

    answer = httpx.post(
        f"{live_web.base_url}/v1/locations",
        headers=bearer(device),
        json=fix(AT_THE_DOOR, minutes_ago=1),
    )

    assert answer.json()["accepted"] == 0
    assert answer.json()["rejected"][0]["code"] == "consent_withdrawn"
    assert not Fix.objects.filter(device_id=device.pk).exists()
    assert not Transition.objects.exists()


def test_it_sends_nothing_to_who_has_changed_their_mind_since(shop: Shop, client: Client) -> None:
    unwilling, willing = make_devices(shop.brand, 2)
    for device in (unwilling, willing):
        make_transition(device, shop.place)
    evaluate_once(now=now())
    assert Delivery.objects.filter(state=DeliveryState.PENDING).count() == 2
    Device.objects.filter(pk=unwilling.pk).update(consent_marketing=False)

    with emulator() as fcm, workers("deliver", emulator_url=fcm.url):
        until(lambda: fcm.pushes(willing.push_token or ""), "the willing one is told")
        until(
            lambda: not Delivery.objects.filter(state__in=("pending", "sending")).exists(),
            "both are settled",
        )
        arrived = fcm.pushes(unwilling.push_token or "")

    assert arrived == []
    assert Delivery.objects.get(device_id=unwilling.pk).state == DeliveryState.SUPPRESSED


def test_it_erases_every_row_that_names_a_device(
    shop: Shop, live_web: LiveWeb, bearer: Bearer
) -> None:
    word = "a-word-that-names-nobody-else"
    device, bystander = make_device(shop.brand, installation_id=word, external_id=word), None
    [bystander] = make_devices(shop.brand, 1)
    with httpx.Client(base_url=live_web.base_url) as api:
        for each in (device, bystander):
            headers = bearer(each)
            until(partial(knows_as, api, headers), "the shop is armed in the web process")
            for place, ago in ((DOWN_THE_ROAD, 2.0), (AT_THE_DOOR, 1.0)):
                api.post("/v1/locations", headers=headers, json=fix(place, minutes_ago=ago))
            event = {"name": "purchase", "occurred_at": now().isoformat()}
            assert api.post("/v1/events", headers=headers, json=event).json()["accepted"] == 1
        evaluate_once(now=now() + timedelta(seconds=1))
        before = naming(device.pk, word)
        answer = api.delete("/v1/devices/me", headers=bearer(device))
        again = api.get("/v1/devices/me", headers=bearer(device))

    assert len(before) >= 8, "there was something of every kind to erase"
    assert answer.status_code in {200, 204}
    assert naming(device.pk, word) == {}
    assert again.status_code == 401
    assert Fix.objects.filter(device_id=bystander.pk).count() == 2
    assert Presence.objects.filter(device_id=bystander.pk).exists()


def knows_as(api: httpx.Client, headers: dict[str, str]) -> bool:
    with httpx.Client(base_url=api.base_url, headers=headers) as phone:
        return knows(phone, "shop-1")


def naming(device_id: int, word: str) -> dict[str, int]:
    """Rows of any table that name the device by its id, or hold the word anywhere."""
    found = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid"
            " AND a.attname = 'device_id') FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition AND c.relname <> 'spatial_ref_sys'"
        )
        for table, has_device in cursor.fetchall():
            named = "device_id = %(device)s OR" if has_device else ""
            if table == "devices_device":
                named = "id = %(device)s OR"
            cursor.execute(
                f'SELECT count(*) FROM "{table}" t WHERE {named} t::text LIKE %(word)s',
                {"device": device_id, "word": f"%{word}%"},
            )
            if count := cursor.fetchone()[0]:
                found[table] = count
    return found

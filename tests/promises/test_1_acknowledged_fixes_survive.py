"""Promise 1: an acknowledged fix survives `kill -9` of any process at any moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest
from django.db import connection

from config import processes
from devices.fixes import key_of_id
from devices.models import Device, Fix
from tests.factories import make_brand, make_device
from tests.live_server import free_port
from tests.places import ACROSS_TOWN
from tests.processes import running, until

PHONES = 12
ACKNOWLEDGED = 400

pytestmark = pytest.mark.django_db(transaction=True)


class Phone(threading.Thread):
    """Sends fixes one after the other until nobody answers; remembers what was acknowledged."""

    def __init__(self, base_url: str, device: Device, headers: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._base_url, self._headers, self._name = base_url, headers, f"fix-{device.pk}"
        self.acknowledged: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._base_url, headers=self._headers, timeout=30) as client:
            for number in range(1_000_000):
                fix_id = f"{self._name}-{number}"
                fix = {
                    "id": fix_id,
                    "lat": ACROSS_TOWN.lat,
                    "lng": ACROSS_TOWN.lng,
                    "recorded_at": int(time.time() * 1000),
                }
                try:
                    answer = client.post("/v1/locations", json=fix)
                except httpx.TransportError:
                    return
                if answer.is_success and answer.json()["accepted"] == 1:
                    self.acknowledged.append(fix_id)


def test_it_keeps_every_acknowledged_fix_when_web_is_killed_in_mid_stream(
    bearer: Callable[[Device], dict[str, str]],
) -> None:
    brand = make_brand()
    devices = [make_device(brand) for _ in range(PHONES)]
    port = free_port()
    base_url = f"http://127.0.0.1:{port}"
    _, *command = processes.web(host="127.0.0.1", port=port, workers=2).command
    with running(*command) as web:
        until(lambda: answers(f"{base_url}/readyz"), "the server is ready", within_s=60)
        phones = [Phone(base_url, device, bearer(device)) for device in devices]
        for phone in phones:
            phone.start()
        until(
            lambda: sum(len(phone.acknowledged) for phone in phones) >= ACKNOWLEDGED,
            f"{ACKNOWLEDGED} fixes are acknowledged",
        )
        web.kill()
        for phone in phones:
            phone.join(30)

    acknowledged = {
        (device.pk, key_of_id(fix_id))
        for device, phone in zip(devices, phones, strict=True)
        for fix_id in phone.acknowledged
    }
    stored = set(Fix.objects.values_list("device_id", "key"))
    assert len(acknowledged) >= ACKNOWLEDGED
    assert acknowledged <= stored


def test_the_database_says_committed_only_when_it_is_on_the_disk() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, setting FROM pg_settings"
            " WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')"
        )
        settings = dict(cursor.fetchall())

    assert settings == {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False

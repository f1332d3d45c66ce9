"""The whole road with nothing faked, for the tests that walk it as outsiders do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from brands.models import KeyKind
from tests.factories import make_brand, make_key
from tests.live_server import LiveWeb
from tests.places import SHOP, SHOP_RADIUS_M, Place
from tests.processes import Emulator, emulator, workers

SHOP_FEATURE = {
    "type": "Feature",
    "geometry": {"type": "Point", "coordinates": [SHOP.lng, SHOP.lat]},
    "properties": {
        "external_id": "shop-1",
        "name": "Shop on the corner",
        "radius_m": SHOP_RADIUS_M,
        "tags": ["shop"],
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """The whole of it, running: a brand's back office, what apps speak to, and what FCM got."""

    office: httpx.Client
    api: httpx.Client
    app_key: str
    fcm: Emulator


@contextmanager
def open_road(live_web: LiveWeb) -> Iterator[Road]:
    """A brand with a shop, and every process between a phone's fix and its push."""
    brand = make_brand(timezone="Europe/Helsinki")
    server_key = make_key(brand)
    with (
        httpx.Client(
            base_url=live_web.base_url, headers={"Authorization": f"Bearer {server_key}"}
        ) as office,
        httpx.Client(base_url=live_web.base_url) as api,
        emulator() as fcm,
        workers("evaluate", "deliver", "clock", emulator_url=fcm.url),
    ):
        assert office.post("/v1/geofences", json=SHOP_FEATURE).status_code == 201
        yield Road(office=office, api=api, app_key=make_key(brand, KeyKind.PUBLISHABLE), fcm=fcm)


class Phone:
    """An app on a phone: all it knows is the wire."""

    def __init__(self, api: httpx.Client, app_key: str, name: str, **said: Any) -> None:
        self.push_token = f"token-{name}"
        answer = api.post(
            "/v1/devices",
            headers={"Authorization": f"Bearer {app_key}"},
            json={
                "installation_id": name,
                "platform": "android",
                "push_token": self.push_token,
                "consent": {"location": True, "marketing": True, "version": "1"},
                **said,
            },
        )
        assert answer.status_code == 201, answer.text
        self.api, self.device_id = api, answer.json()["device_id"]
        self.headers = {"Authorization": f"Bearer {answer.json()['token']}"}
        self._clock_ms = int(time.time() * 1000) - 60_000

    def is_at(self, place: Place) -> None:
        """Reports a place; the server has it durably when this returns."""
        self._clock_ms += 5_000
        fix = {
            "lat": place.lat,
            "lng": place.lng,
            "recorded_at": self._clock_ms,
            "accuracy_m": 8,
        }
        answer = self.api.post("/v1/locations", headers=self.headers, json=fix)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"accepted": 1, "rejected": []}


def nearby(api: httpx.Client, phone: Phone) -> Any:
    """What the phone is told to monitor: what is armed where the doors match."""
    answer = api.get(
        "/v1/geofences/nearby",
        headers=phone.headers,
        params={"lat": SHOP.lat, "lng": SHOP.lng},
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["geofences"]

"""A phone walks into a shop, and one push arrives: the whole road, nothing faked.

Real HTTP, PostGIS, workers, firebase-admin and the FCM emulator; every step as an outsider takes
it, with keys and nothing else.
"""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from brands.models import KeyKind
from tests.factories import make_brand, make_key
from tests.live_server import LiveWeb
from tests.places import AT_THE_DOOR, DOWN_THE_ROAD, SHOP, SHOP_RADIUS_M, Place
from tests.processes import emulator, until, workers

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
CAMPAIGN = {
    "name": "Coffee for whoever comes in",
    "trigger": {"on": "entered", "tags": ["shop"]},
    "content": {
        "title": "Welcome",
        "body": "A coffee at {{ place.name }}?",
        "locales": {"fr": {"title": "Bienvenue", "body": "Un café, {{ place.name }} ?"}},
    },
}


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


@pytest.mark.django_db(transaction=True)
def test_it_pushes_one_offer_to_a_phone_that_walks_into_a_shop(live_web: LiveWeb) -> None:
    brand = make_brand(timezone="Europe/Helsinki")
    app_key, server_key = make_key(brand, KeyKind.PUBLISHABLE), make_key(brand)
    office = httpx.Client(
        base_url=live_web.base_url, headers={"Authorization": f"Bearer {server_key}"}
    )
    with (
        office,
        httpx.Client(base_url=live_web.base_url) as api,
        emulator() as fcm,
        workers("evaluate", "deliver", "clock", emulator_url=fcm.url),
    ):
        assert office.post("/v1/geofences", json=SHOP_FEATURE).status_code == 201
        draft = office.post("/v1/campaigns", json=CAMPAIGN)
        assert draft.status_code == 201, draft.text
        published = office.post(f"/v1/campaigns/{draft.json()['id']}/publish")
        assert published.status_code == 200, published.text
        phone = Phone(api, app_key, "anna", locale="fr-FR", timezone="Europe/Paris")

        until(lambda: nearby(api, phone), "the shop is armed in the web process")
        phone.is_at(DOWN_THE_ROAD)
        phone.is_at(AT_THE_DOOR)
        phone.is_at(AT_THE_DOOR)

        push = until(lambda: fcm.pushes(phone.push_token), "a push arrives")[0]
        message: Any = push["message"]
        assert message["notification"]["title"] == "Bienvenue"
        assert message["notification"]["body"] == "Un café, Shop on the corner ?"

        # Whatever the phone's second fix inside might have set off is over once somebody who
        # came later has been served.
        later = Phone(api, app_key, "bert")
        later.is_at(DOWN_THE_ROAD)
        later.is_at(AT_THE_DOOR)
        until(lambda: fcm.pushes(later.push_token), "the next one's push arrives")
        assert len(fcm.pushes(phone.push_token)) == 1

        [offer] = api.get("/v1/offers", headers=phone.headers).json()["results"]
        for event in ("received", "opened", "opened"):
            answer = api.post(
                f"/v1/deliveries/{offer['delivery_id']}/feedback",
                headers=phone.headers,
                json={"event": event},
            )
            assert answer.status_code == 204, answer.text

        mine = {"device_id": phone.device_id}
        [transition] = office.get("/v1/transitions", params=mine).json()["results"]
        [decision] = office.get("/v1/decisions", params=mine).json()["results"]
        [delivery] = office.get("/v1/deliveries", params=mine).json()["results"]

    assert (transition["kind"], transition["geofence"]["external_id"]) == ("entered", "shop-1")
    assert decision["verdict"] == "send"
    assert decision["moment"] == {"kind": "transition", "id": transition["id"]}
    assert (delivery["state"], delivery["campaign"]["name"]) == ("sent", CAMPAIGN["name"])
    assert delivery["decision_id"] == decision["id"]
    assert [each["outcome"] for each in delivery["attempts"]] == ["sent"]
    assert [each["event"] for each in delivery["feedback"]] == ["received", "opened"]


def nearby(api: httpx.Client, phone: Phone) -> Any:
    """What the phone is told to monitor: what is armed where the doors match."""
    answer = api.get(
        "/v1/geofences/nearby",
        headers=phone.headers,
        params={"lat": SHOP.lat, "lng": SHOP.lng},
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["geofences"]

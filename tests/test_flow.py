"""A phone walks into a shop, and one push arrives: the whole road, nothing faked.

Real HTTP, PostGIS, workers, firebase-admin and the FCM emulator; every step as an outsider takes
it, with keys and nothing else.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.live_server import LiveWeb
from tests.places import AT_THE_DOOR, DOWN_THE_ROAD
from tests.processes import until
from tests.road import Phone, nearby, open_road

CAMPAIGN = {
    "name": "Coffee for whoever comes in",
    "trigger": {"on": "entered", "tags": ["shop"]},
    "content": {
        "title": "Welcome",
        "body": "A coffee at {{ place.name }}?",
        "locales": {"fr": {"title": "Bienvenue", "body": "Un café, {{ place.name }} ?"}},
    },
}


@pytest.mark.django_db(transaction=True)
def test_it_pushes_one_offer_to_a_phone_that_walks_into_a_shop(live_web: LiveWeb) -> None:
    with open_road(live_web) as road:
        office, api, fcm = road.office, road.api, road.fcm
        draft = office.post("/v1/campaigns", json=CAMPAIGN)
        assert draft.status_code == 201, draft.text
        published = office.post(f"/v1/campaigns/{draft.json()['id']}/publish")
        assert published.status_code == 200, published.text
        phone = Phone(api, road.app_key, "anna", locale="fr-FR", timezone="Europe/Paris")

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
        later = Phone(api, road.app_key, "bert")
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

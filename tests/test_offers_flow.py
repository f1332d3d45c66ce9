"""An experiment with coupons, from the back office to the till: the whole road, nothing faked.

A campaign with a pool of signed codes, a hold-out, a goal and a budget; phones walk in, some of
them get a code, one of them shows it at a till. Real HTTP, PostGIS, workers and FCM emulator.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest

from campaigns import codes
from campaigns.experiments import is_held_out
from tests.live_server import LiveWeb
from tests.places import AT_THE_DOOR, DOWN_THE_ROAD
from tests.processes import until
from tests.road import Phone, nearby, open_road

POOL = {"name": "Free coffee", "slug": "free-coffee", "kind": "signed"}
CAMPAIGN = {
    "name": "A coffee on us",
    "trigger": {"on": "entered", "tags": ["shop"]},
    "coupon_pool": "free-coffee",
    "content": {"title": "A coffee on us", "body": "Show {{ coupon.code }} at {{ place.name }}"},
    "holdout": 0.5,
    "goal": {"event": "purchase", "within_s": 3_600},
    "budget": {"total": {"sends": 2}, "cost": 250, "currency": "EUR"},
}


@pytest.mark.django_db(transaction=True)
def test_a_coupon_is_drawn_pushed_and_redeemed_and_the_experiment_knows(live_web: LiveWeb) -> None:
    with open_road(live_web) as road:
        office, api, fcm = road.office, road.api, road.fcm
        pool = said(office.post("/v1/coupon-pools", json=POOL), 201)
        campaign = said(office.post("/v1/campaigns", json=CAMPAIGN), 201)
        assert campaign["sentence"].count("coupon of “free-coffee”") == 1
        said(office.post(f"/v1/campaigns/{campaign['id']}/publish"))

        names = [f"customer-{number}" for number in range(40)]
        held = [name for name in names if is_out(name, campaign["id"])][:2]
        treated = [name for name in names if not is_out(name, campaign["id"])][:3]
        phones = {
            name: Phone(api, road.app_key, name, external_id=name) for name in (*held, *treated)
        }
        until(lambda: nearby(api, phones[held[0]]), "the shop is armed in the web process")
        for name in (*held, *treated):
            phones[name].is_at(DOWN_THE_ROAD)
            phones[name].is_at(AT_THE_DOOR)
            until(partial(decisions, office, phones[name]), "somebody is judged")

        verdicts = {name: decisions(office, phone)[0] for name, phone in phones.items()}
        assert [verdicts[name]["reason"] for name in held] == ["held_out"] * 2
        assert [verdicts[name]["reason"] for name in treated] == [
            "matched", "matched", "budget_spent",
        ]  # fmt: skip
        assert verdicts[treated[2]]["message"] == ("Budget: 2 of 2 in all; next: never.")

        # The push carries a code that the till can check by itself …
        lucky = phones[treated[0]]
        push = until(lambda: fcm.pushes(lucky.push_token), "a push arrives")[0]
        code = push["message"]["notification"]["body"].split()[1]
        key = said(office.get(f"/v1/coupon-pools/{pool['id']}/key"))["key"]
        assert codes.read(bytes.fromhex(key), code) == (1, None)
        assert not any(fcm.pushes(phones[name].push_token) for name in (*held, treated[2]))
        [offer] = until(
            lambda: said(api.get("/v1/offers", headers=lucky.headers))["results"], "it is shown"
        )
        assert code in offer["body"]

        # … and redeem, once.
        receipt = {"code": code.lower().replace("-", ""), "reference": "receipt 1"}
        taken = said(office.post("/v1/coupons/redeem", json=receipt))
        assert taken["delivery_id"] == offer["delivery_id"]
        assert said(office.post("/v1/coupons/redeem", json=receipt))["repeated"] is True
        other = receipt | {"reference": "receipt 2"}
        assert office.post("/v1/coupons/redeem", json=other).status_code == 409
        at = taken["redeemed_at"]
        bought = {"name": "purchase", "external_id": treated[0], "occurred_at": at}
        said(office.post("/v1/gateway/events", json={"events": [bought]}))

        [delivery] = said(office.get("/v1/deliveries", params={"device_id": lucky.device_id}))[
            "results"
        ]
        found = said(office.get(f"/v1/campaigns/{campaign['id']}/results"))
        stock = said(office.get(f"/v1/coupon-pools/{pool['id']}"))["stock"]

    assert [each["event"] for each in delivery["feedback"]] == ["redeemed"]
    assert (found["lift"]["treated"], found["lift"]["control"]) == ([2, 1], [2, 0])
    assert (stock["drawn"], stock["redeemed"], stock["left"]) == (1, 1, None)


def said(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def is_out(name: str, campaign_id: int) -> bool:
    return is_held_out(name, campaign_id=campaign_id, share=0.5)


def decisions(office: httpx.Client, phone: Phone) -> Any:
    return said(office.get("/v1/decisions", params={"device_id": phone.device_id}))["results"]

"""The management paths of campaigns and of what they led to, each brand its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from django.test import Client
from django.utils.timezone import now

from brands.models import Brand, Membership, Role
from campaigns.evaluation import evaluate_once
from campaigns.models import Campaign, Decision, Segment
from devices.models import Transition
from notifications.models import Attempt, Delivery, Feedback
from tests.campaigns.rows import COFFEE, a_definition, make_campaign, make_transition
from tests.factories import make_brand, make_circle, make_device, make_key

pytestmark = pytest.mark.django_db

Call = Callable[..., Any]


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def call(brand: Brand) -> Call:
    return caller(make_key(brand))


def caller(secret: str) -> Call:
    client = Client(headers={"authorization": f"Bearer {secret}"})

    def call(method: str, path: str, body: Any = None, **extra: Any) -> Any:
        sent = "" if body is None else json.dumps(body)
        return client.generic(method, f"/v1/{path}", sent, "application/json", **extra)

    return call


def test_a_campaign_goes_from_draft_to_live_to_ended(brand: Brand, call: Call) -> None:
    make_circle(brand, external_id="shop", name="Corner")
    body = {"name": "Coffee", "trigger": {"on": "entered", "geofences": ["shop"]}}
    created = call("POST", "campaigns", body)
    assert created.status_code == 201
    draft = created.json()
    assert (draft["state"], draft["version"], draft["trigger"]) == ("draft", None, body["trigger"])
    assert [lack["field"] for lack in draft["missing"]] == ["content"]
    assert "enters “Corner”" in draft["sentence"]
    path = f"campaigns/{draft['id']}"

    refused = call("POST", f"{path}/publish")
    assert refused.status_code == 422
    assert refused.json()["code"] == "not_publishable"
    assert refused.json()["fields"] == {"content": ["Say what the offer is."]}

    assert call("PATCH", path, {"content": COFFEE}).status_code == 200
    live = call("POST", f"{path}/publish").json()
    assert (live["state"], live["version"], live["differs"]) == ("live", 1, False)
    changed = call("PATCH", path, {"priority": 3}).json()
    assert (changed["differs"], changed["priority"]) == (True, 3)
    assert call("POST", f"{path}/publish").json()["version"] == 2
    assert call("POST", f"{path}/rollback", {"version": 1}).json()["version"] == 3
    assert call("POST", f"{path}/rollback", {"version": 99}).status_code == 404
    versions = call("GET", f"{path}/versions").json()
    assert [(one["number"], one["definition"].get("priority")) for one in versions] == [
        (3, None),
        (2, 3),
        (1, None),
    ]
    assert call("POST", f"{path}/pause").json()["state"] == "paused"
    assert call("POST", f"{path}/pause").status_code == 409
    assert call("POST", f"{path}/resume").json()["state"] == "live"
    assert call("POST", f"{path}/end").json()["state"] == "ended"
    assert call("POST", f"{path}/publish").json()["code"] == "wrong_state"


def test_what_it_answers_can_be_sent_back(brand: Brand, call: Call) -> None:
    campaign = make_campaign(brand, make_circle(brand), priority=4)
    answer = call("GET", f"campaigns/{campaign.pk}").json()
    again = call("PUT", f"campaigns/{campaign.pk}", answer)
    assert again.status_code == 200
    assert again.json()["priority"] == 4
    bare = call("PUT", f"campaigns/{campaign.pk}", {"name": "Bare"}).json()
    assert "priority" not in bare
    assert bare["name"] == "Bare"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": 3}, "name"),
        ({"name": "x", "tigger": {}}, "tigger"),
        ({"name": "x", "caps": [{"limit": "x"}]}, "caps[0].limit"),
        ({"name": "x", "audience": {"segment": "nobody"}}, "audience.segment"),
        ({"name": "x\ud800"}, "name"),
        ({"name": "x", "content": {"data": {"a": "\0"}}}, "content.data.a"),
        ({"name": "x", "trigger": {"on": "entered", "geofences": [2**63]}}, "trigger.geofences[0]"),
        ({"name": "x", "starts_at": "9999-12-31T23:59:59-14:00"}, "starts_at"),
        ({"name": "x", "ends_at": "0001-01-01T00:00:00+14:00"}, "ends_at"),
        ({"name": "x", "trigger": {"on": "schedule", "at": "9999-12-31T00:00:00Z"}}, "trigger"),
        ([], "non_field_errors"),
    ],
)
def test_a_malformed_campaign_names_its_field(call: Call, body: Any, field: str) -> None:
    answer = call("POST", "campaigns", body)
    assert answer.status_code == 422
    assert list(answer.json()["fields"]) == [field]


def test_a_body_that_is_not_json_is_the_callers_fault(call: Call) -> None:
    client = caller("x")
    assert client("GET", "campaigns").status_code == 401
    sent = Client().post("/v1/campaigns", "{", "application/json")
    assert sent.status_code in {401, 403}


def test_campaigns_are_listed_by_page_and_filtered(brand: Brand, call: Call) -> None:
    for number in range(3):
        Campaign.objects.create(brand=brand, name=f"c{number}")
    first = call("GET", "campaigns?limit=2").json()
    assert [one["name"] for one in first["results"]] == ["c2", "c1"]
    second = call("GET", f"campaigns?limit=2&cursor={first['next']}").json()
    assert [one["name"] for one in second["results"]] == ["c0"]
    assert second["next"] is None
    assert call("GET", "campaigns?state=live").json()["results"] == []
    ordered = call("GET", "campaigns?ordering=name").json()
    assert [one["name"] for one in ordered["results"]] == ["c0", "c1", "c2"]


def test_segments_are_kept_by_brand_and_checked(brand: Brand, call: Call) -> None:
    tree = {"attribute": "tier", "value": "gold"}
    made = call("POST", "segments", {"name": "Gold", "slug": "gold", "tree": tree})
    assert made.status_code == 201
    path = f"segments/{made.json()['id']}"
    nested = {"name": "VIP", "slug": "vip", "tree": {"segment": "gold"}}
    assert call("POST", "segments", nested).status_code == 201
    assert call("POST", "segments", nested).json()["fields"]["slug"]
    circle = call("PATCH", path, {"tree": {"segment": "vip"}})
    assert circle.status_code == 422
    assert "circle" in circle.json()["fields"]["tree"][0]
    assert call("PATCH", path, {"tree": {"colour": 1}}).status_code == 422
    assert call("DELETE", path).status_code == 409  # VIP uses it
    assert call("PATCH", path, {"slug": "golden"}).status_code == 409  # by this name
    assert call("PATCH", path, {"name": "Golden"}).json()["name"] == "Golden"
    assert [one["slug"] for one in call("GET", "segments").json()["results"]] == ["gold", "vip"]


@pytest.fixture
def story(brand: Brand) -> dict[str, Any]:
    """One device was offered coffee, another was refused."""
    shop = make_circle(brand, name="Corner", external_id="shop")
    campaign = make_campaign(brand, shop, audience={"platform": "android"})
    winner = make_device(brand, external_id="ann")
    loser = make_device(brand, platform="ios")
    for device in (winner, loser):
        make_transition(device, shop)
    evaluate_once(now=now())
    delivery = Delivery.objects.get()
    Attempt.objects.create(delivery=delivery, at=now(), outcome="sent")
    Feedback.objects.create(delivery=delivery, event="opened", occurred_at=now())
    return {"shop": shop, "campaign": campaign, "winner": winner, "loser": loser}


def test_a_decision_says_why_in_words(call: Call, story: dict[str, Any]) -> None:
    path = f"decisions?device={story['loser'].pk}&verdict=refuse&reason=not_in_audience"
    (decision,) = call("GET", path).json()["results"]
    assert decision["campaign"] == {"id": story["campaign"].pk, "name": "Coffee"}
    assert decision["moment"]["kind"] == "transition"
    assert decision["geofence"]["name"] == "Corner"
    assert decision["message"].startswith("Not in the audience: it asks that platform is android")
    answer = call("GET", path, headers={"Accept-Language": "nl, fr-CH;q=0.9, en;q=0.8"})
    assert answer.json()["results"][0]["message"].startswith("Hors de l’audience")
    assert answer["Content-Language"] == "fr"
    assert "Accept-Language" in answer["Vary"]
    assert decision["trace"]["seen"] == "ios"
    alone = call("GET", f"decisions/{decision['id']}").json()
    assert alone == decision


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 2),
        ("external_id=ann", 1),
        ("external_id=nobody", 0),
        ("verdict=send", 1),
        ("after={past}&before={future}", 2),
        ("after={future}", 0),
        ("before={past_ms}", 0),
        ("campaign=0", 0),
        ("ordering=decided_at", 2),
    ],
)
def test_decisions_are_found(call: Call, story: dict[str, Any], query: str, count: int) -> None:
    past, future = now() - timedelta(hours=1), now() + timedelta(hours=1)
    query = query.format(
        past=past.isoformat().replace("+", "%2B"),
        future=future.isoformat(),  # with a + that becomes a space
        past_ms=round(past.timestamp() * 1000),
    )
    answer = call("GET", f"decisions?{query}")
    assert answer.status_code == 200, answer.content
    assert len(answer.json()["results"]) == count


@pytest.mark.parametrize(
    "query", ["after=soon", "device=x", "verdict=perhaps", "reason=none", "after=99999999999999999"]
)
def test_a_filter_that_means_nothing_is_refused(call: Call, query: str) -> None:
    answer = call("GET", f"decisions?{query}")
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid"


def test_deliveries_show_what_came_of_them(call: Call, story: dict[str, Any]) -> None:
    (delivery,) = call("GET", "deliveries?external_id=ann&state=pending").json()["results"]
    assert delivery["campaign"] == {"id": story["campaign"].pk, "name": "Coffee"}
    assert delivery["content"]["body"] == "One for you at Corner"
    assert [one["outcome"] for one in delivery["attempts"]] == ["sent"]
    assert [one["event"] for one in delivery["feedback"]] == ["opened"]
    assert delivery["device_id"] == story["winner"].pk


def test_transitions_carry_their_place(call: Call, story: dict[str, Any]) -> None:
    path = f"transitions?device={story['winner'].pk}&kind=entered&geofence={story['shop'].pk}"
    (transition,) = call("GET", path).json()["results"]
    assert transition["geofence"] == {
        "id": story["shop"].pk,
        "external_id": "shop",
        "name": "Corner",
    }
    assert transition["visit_id"] == Transition.objects.get(pk=transition["id"]).visit_id


@pytest.mark.parametrize(
    "path", ["campaigns", "segments", "transitions", "decisions", "deliveries"]
)
def test_one_brand_never_sees_or_touches_anothers_rows(
    brand: Brand, story: dict[str, Any], path: str
) -> None:
    Segment.objects.create(brand=brand, name="x", slug="x", tree={})
    model = {
        "campaigns": Campaign,
        "segments": Segment,
        "transitions": Transition,
        "decisions": Decision,
        "deliveries": Delivery,
    }[path]
    theirs = f"{path}/{model._default_manager.order_by('pk')[0].pk}"
    stranger = caller(make_key(make_brand()))
    assert stranger("GET", path).json()["results"] == []
    assert stranger("GET", f"{path}?brand={brand.slug}").json()["results"] == []
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        assert stranger(method, theirs, {"name": "mine"}).status_code in {404, 405}
    for order in ("publish", "pause", "resume", "end", "rollback"):
        assert stranger("POST", f"{theirs}/{order}", {"version": 1}).status_code == 404
    assert Campaign.objects.get().state == "live"


def test_anothers_geofence_cannot_be_armed(brand: Brand, call: Call) -> None:
    theirs = make_circle(make_brand(), external_id="theirs")
    for place in (theirs.pk, "theirs"):
        body = {"name": "x", **a_definition(trigger={"on": "entered", "geofences": [place]})}
        made = call("POST", "campaigns", body).json()
        assert call("POST", f"campaigns/{made['id']}/publish").status_code == 422


def test_support_may_look_and_a_marketer_may_act(brand: Brand) -> None:
    campaign = make_campaign(brand, make_circle(brand))
    for role, allowed in ((Role.SUPPORT, False), (Role.MARKETER, True)):
        user = User.objects.create_user(role.value)
        Membership.objects.create(user=user, brand=brand, role=role)
        client = Client()
        client.force_login(user)
        assert client.get("/v1/campaigns").status_code == 200
        answer = client.post(f"/v1/campaigns/{campaign.pk}/pause")
        assert answer.status_code == (200 if allowed else 403)
    assert list(campaign.log.values_list("actor__username", flat=True))[:1] == ["marketer"]


@pytest.mark.parametrize("ordering", ["name", "-name"])
def test_segments_of_one_name_are_each_listed_once(brand: Brand, call: Call, ordering: str) -> None:
    made = Segment.objects.bulk_create(
        Segment(brand=brand, slug=f"s{number}", name="Regulars", tree={}) for number in range(30)
    )
    Segment.objects.filter(pk__in=[one.pk for one in made[::3]]).update(slug=F("slug"))
    seen: list[int] = []
    at = ""
    for _ in range(10):
        page = call("GET", f"segments?limit=7&ordering={ordering}{at}").json()
        seen += [one["id"] for one in page["results"]]
        if page["next"] is None:
            break
        at = f"&cursor={page['next']}"
    assert sorted(seen) == sorted(one.pk for one in made)


@pytest.mark.parametrize("path", ["transitions", "decisions", "deliveries"])
@pytest.mark.parametrize("number", ["134.9", "1e3", "x", "NaN"])
def test_what_is_no_whole_number_is_nobodys_id(call: Call, path: str, number: str) -> None:
    refused = call("GET", f"{path}?device_id={number}")
    assert (refused.status_code, [*refused.json()["fields"]]) == (422, ["device_id"])
    for known in ("134", "-1", "9" * 40, ""):
        assert call("GET", f"{path}?device_id={known}").status_code == 200

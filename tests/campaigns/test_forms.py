"""Between a definition and the fields of the builder: there and back, and which is to blame."""

from __future__ import annotations

import json
from typing import Any

import pytest

from campaigns import definition
from campaigns.forms import CampaignForm, field_of, initial_of
from tests.campaigns.pages import untouched
from tests.factories import make_brand

pytestmark = pytest.mark.django_db


RICH: list[dict[str, Any]] = [
    {},
    {
        "guards": [
            {"attribute": "city", "against": "place.metadata.city", "source": "crm"},
            {"name": "Has some", "event": "purchase", "same": {"sku": "offer.sku"}, "within_s": 60},
            {"offer": {"label": "shoes"}, "within_s": 3600},
        ],
        "labels": ["shoes", "spring"],
    },
    {"trigger": {"on": "entered", "tags": ["shop", "café"]}},
    {"trigger": {"on": "dwelled", "geofences": [7, "ext-1"], "dwell_s": 90}},
    {"trigger": {"on": "exited", "geofences": ["a"], "tags": ["b"]}},
    {"trigger": {"on": "event", "event": "balance_low", "where": {"plan": "prepaid"}}},
    {
        "trigger": {
            "on": "schedule",
            "tags": ["stadium"],
            "times": ["09:00", "17:30"],
            "days": ["mon", "fri"],
            "zone": "brand",
            "within_s": 7200,
        }
    },
    {
        "trigger": {
            "on": "schedule",
            "geofences": [7],
            "at": "2030-01-01T09:30:00Z",
            "since": "2029-12-31T00:00:00Z",
        }
    },
    {
        "trigger": {
            "on": "sequence",
            "steps": [
                {"on": "event", "event": "balance_low", "where": {"plan": "prepaid", "left": 2.5}},
                {"on": "entered", "geofences": [7, "ext-1"], "times": 3, "days": ["mon", 2]},
                {"on": "dwelled", "tags": ["shop", "café"], "dwell_s": 90},
                {"on": "exited", "tags": ["shop"], "days": ["Sunday"]},
            ],
            "within_s": 100_000,
            "unless": {"on": "event", "event": "purchase", "where": {"online": False}},
            "for_s": 1_800,
            "key": "order_id",
            "nth": 3,
            "every": True,
            "absent_s": 90 * 86_400,
            "once": True,
            "again_after_s": 3_601,
        }
    },
    {
        "trigger": {
            "on": "sequence",
            "steps": [{"on": "entered", "tags": ["airport"]}],
            "unless": {"on": "dwelled", "geofences": ["a"], "dwell_s": 60, "days": [6, 7]},
            "for_s": 1,
        }
    },
    {"trigger": {"on": "sequence"}},
    {
        # What only the API says of it, though it means nothing there.
        "trigger": {
            "on": "sequence",
            "steps": [{"on": "schedule", "times": 2}],
            "tags": ["shop"],
            "dwell_s": 60,
            "at": "2030-01-01T09:30:00Z",
            "days": ["mon"],
        }
    },
    {
        "trigger": {"on": "entered", "tags": ["x"]},
        "starts_at": "2026-12-01T09:30:00+00:00",
        "ends_at": "2026-12-24T18:00:00+00:00",
        "dayparts": [{"days": ["mon", "fri"], "from": "07:00", "to": "24:00"}, {"from": "22:00"}],
        "outside_dayparts": "hold",
        "quiet_hours": "hold",
    },
    {
        "audience": {
            "all": [
                {"attribute": "tier", "op": "in", "value": ["gold", 3, True]},
                {"any": [{"platform": ["ios"]}, {"not": {"all": [{"locale": ["fr"]}]}}]},
                {"visits": {"tags": ["own"]}, "measure": "dwell_s", "value": 600},
            ]
        },
        "caps": [
            {"limit": 3, "window_s": 5400, "scope": "person"},
            {"limit": 1, "per": "week", "scope": "tag", "tag": "own"},
            {"limit": 2, "per": "hour", "scope": "channel", "channel": "push"},
        ],
    },
    {
        "budget": {
            "total": {"sends": 9000, "money": 123456},
            "per_day": {"money": 5000},
            "per_place_and_day": {"sends": 3},
            "cost": 250,
            "currency": "EUR",
            "timezone": "Europe/Helsinki",
            "even": True,
        },
        "coupon_pool": "gone",
        "variants": [
            {"name": "a", "content": {"title": "A", "locales": {"fr": {"title": "À"}}}},
            {"name": "b", "weight": 2.5},
        ],
        "holdout": 0.125,
        "goal": {"event": "purchase", "where": {"kind": "coffee"}, "within_s": 7200},
        "optimise": {"burn_in": 50},
    },
    {
        "budget": {"per_place": {"money": 1500}, "cost": 100, "currency": "JPY"},
        "goal": {"geofences": [7], "tags": ["till", "shop"]},
    },
    {"goal": {"feedback": "redeemed"}, "holdout": 0.1},
    {
        "content": {
            "title": "Hi {{ place.name }} ",
            "body": "Line\nbreak",
            "deep_link": "app://x",
            "image_url": "https://example.com/i.png",
            "data": {"k": "v"},
            "push": {"urgency": "normal"},
            "locales": {"fr": {"title": "Salut"}, "de-AT": {"body": "Servus"}},
        },
        "priority": -3,
        "score": 2.5,
        "score_by": {"dwell_s": 0.01},
        "group": "cafe",
        "expires_after_s": 90,
        "max_age_s": 7_200,
        "only_while_inside": True,
        "initial_state": "require_exit",
        "transactional": True,
    },
]


@pytest.mark.parametrize("raw", RICH)
def test_it_changes_nothing_where_nothing_was_touched(raw: dict[str, Any]) -> None:
    brand = make_brand()
    before = definition.decode(raw)
    form = CampaignForm(brand=brand, base=raw, initial=initial_of(before, name="N"))
    again = CampaignForm(untouched(form), brand=brand, base=raw)
    assert again.is_valid(), again.errors
    after = again.raw()
    if not raw.get("trigger"):
        assert after.pop("trigger") == {"on": "entered"}
    if not raw.get("content"):
        assert "content" not in after
    assert definition.decode(after) == before


def test_it_keeps_what_it_cannot_show() -> None:
    """What only the API can say survives a marketer's save."""
    raw = {
        "trigger": {"on": "pattern", "steps": [{"on": "entered"}]},
        "weather": {"rain": 5},
    }
    brand = make_brand()
    shown = CampaignForm(brand=brand, base=raw, initial={"name": "N", "on": "pattern"})
    form = CampaignForm(untouched(shown), brand=brand, base=raw)
    assert form.is_valid(), form.errors
    assert form.raw()["trigger"] == raw["trigger"]
    assert form.raw()["weather"] == raw["weather"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("trigger", "on"),
        ("trigger.geofences[3]", "places"),
        ("trigger.tags[0]", "places"),
        ("trigger.dwell_s", "dwell"),
        ("trigger.steps", "steps"),
        ("trigger.steps[1].geofences", "steps"),
        ("trigger.unless.event", "unless"),
        ("trigger.for_s", "unless_for"),
        ("trigger.again_after_s", "again_after"),
        ("caps[0].limit", "caps"),
        ("audience.all[1].any[0].value", "audience"),
        ("content", "title"),
        ("content.locales.fr.title", "locales"),
        ("content.data.from", "extras"),
        ("expires_after_s", "expires_after"),
        ("ends_at", "ends_at"),
        ("brand", None),
    ],
)
def test_it_puts_a_message_beside_the_field_it_concerns(path: str, field: str | None) -> None:
    assert field_of(path) == field


def test_it_leaves_a_sequence_behind_where_another_trigger_is_chosen() -> None:
    brand = make_brand()
    raw = {"trigger": {"on": "sequence", "steps": [{"on": "entered", "tags": ["a"]}], "nth": 2}}
    form = CampaignForm(brand=brand, base=raw, initial=initial_of(definition.decode(raw), name="N"))
    sent = untouched(form)
    sent["on"], sent["places"] = "exited", json.dumps({"tags": ["b"]})
    again = CampaignForm(sent, brand=brand, base=raw)
    assert again.is_valid(), again.errors
    assert again.raw()["trigger"] == {"on": "exited", "tags": ["b"]}

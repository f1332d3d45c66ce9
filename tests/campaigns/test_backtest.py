"""Trials on what was recorded: the same story as the real road, and nothing is sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.utils.timezone import now

from brands.models import Brand
from campaigns import backtest, backtests, publishing
from campaigns.backtest import Outcome
from campaigns.models import Backtest, Campaign, Decision, Spend
from devices.ingest import ingest
from devices.models import Device, Transition
from geofences.armed import follower
from geofences.models import Geofence
from notifications.models import Delivery
from tests.campaigns.rows import a_definition, make_campaign, make_event
from tests.campaigns.test_api import caller
from tests.factories import make_brand, make_circle, make_device, make_key
from tests.places import ACROSS_THE_STREET, ACROSS_TOWN, AT_THE_DOOR, DOWN_THE_ROAD, Place

pytestmark = pytest.mark.django_db

DAY_S = 86_400
TODAY = now().replace(hour=9, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=2)


def walk(device: Device, places: Sequence[Place], *, start: datetime, every_s: int = 120) -> Any:
    """Fixes of one device, one place after the other."""
    at_ms = round(start.timestamp() * 1000) + np.arange(len(places)) * every_s * 1000
    return backtest.fixes_of(
        device.brand_id,
        np.full(len(places), device.pk),
        at_ms,
        np.array([place.lat for place in places]),
        np.array([place.lng for place in places]),
        np.full(len(places), 8.0),
    )


IN_AND_OUT = (DOWN_THE_ROAD, AT_THE_DOOR, AT_THE_DOOR, DOWN_THE_ROAD)


def record(*walks: Any) -> None:
    """Through ingest, as the doors do it, in pieces."""
    armed = follower.refresh()
    for fixes in walks:
        for start in range(0, len(fixes), 3):
            ingest(fixes[start : start + 3], now_ms=int(fixes["recorded_ms"].max()), armed=armed)


def try_out(campaign: Campaign) -> Outcome:
    campaign.refresh_from_db()
    source = backtest.recorded(campaign.brand_id, START, TODAY)
    return backtest.run(campaign, source, since=START, until=TODAY)


def draft(brand: Brand, geofence: Geofence | None = None, **fields: Any) -> Campaign:
    return publishing.create(
        brand=brand, name="Trial", raw=a_definition(geofence, **fields), actor=None
    )


def test_it_finds_the_transitions_that_ingest_found() -> None:
    brand = make_brand()
    shop = make_circle(brand, dwell_s=60, track_visits=True)
    devices = [make_device(brand) for _ in range(3)]
    places = [*IN_AND_OUT, ACROSS_THE_STREET, AT_THE_DOOR, ACROSS_TOWN, AT_THE_DOOR, AT_THE_DOOR]
    record(
        *[walk(one, places[n:], start=START + timedelta(hours=n)) for n, one in enumerate(devices)]
    )
    wanted = [
        (row.device_id, row.kind, row.visit_id, row.dwell_s, row.occurred_at, row.reason)
        for row in Transition.objects.order_by("occurred_at", "device_id", "id")
    ]
    assert len(wanted) > 10
    campaign = draft(brand, shop)
    entry = backtest._stage(campaign, campaign.draft, _rules(brand)).entries[campaign.pk]
    found = backtest._retraced(
        brand.pk,
        backtest.recorded(brand.pk, START, TODAY),
        backtest._places(brand.pk, [entry]),
        START + timedelta(hours=2, minutes=15),
        lambda _: None,
    )
    mine = sorted(
        (
            step.device_id,
            step.change.kind.value,
            step.change.visit_id,
            step.change.dwell_s,
            datetime.fromtimestamp(step.change.occurred_ms / 1000, UTC),
            step.change.reason.value,
        )
        for step in found
    )
    assert [row for row in mine if row[5] != "silence"] == sorted(wanted)


def test_it_asks_who_was_there_when_a_schedule_came_round() -> None:
    brand = make_brand(timezone="UTC")
    shop = make_circle(brand, tags=["shop"], track_visits=True)
    stays, goes = make_device(brand, timezone="UTC"), make_device(brand, timezone="UTC")
    there = START.replace(hour=8, minute=50) + timedelta(days=1)
    record(
        walk(stays, [DOWN_THE_ROAD, *[AT_THE_DOOR] * 20, DOWN_THE_ROAD], start=there),
        walk(goes, [DOWN_THE_ROAD, AT_THE_DOOR, AT_THE_DOOR, DOWN_THE_ROAD], start=there),
    )
    trigger = {"on": "schedule", "times": ["09:00"], "tags": ["shop"]}
    outcome = try_out(draft(brand, trigger=trigger, audience={"platform": "android"}))
    assert (outcome.draft.offers, outcome.draft.considered) == (1, 1)
    assert [(place.id, place.offers) for place in outcome.draft.places] == [(shop.pk, 1)]
    earlier = try_out(draft(brand, trigger=trigger | {"within_s": 1_800}))
    assert earlier.draft.offers == 2


def test_it_keeps_rules_of_relevance() -> None:
    brand = make_brand()
    shop = make_circle(brand, track_visits=True)
    ann, bob = make_device(brand, external_id="ann"), make_device(brand, external_id="bob")
    record(
        walk(ann, IN_AND_OUT, start=START + timedelta(hours=1)),
        walk(bob, IN_AND_OUT, start=START + timedelta(hours=1)),
        walk(bob, IN_AND_OUT, start=START + timedelta(hours=2)),
    )
    make_event(ann, brand, "purchase", occurred_at=START + timedelta(minutes=30))
    rules = [
        {"event": "purchase", "within_s": DAY_S},
        {"offer": {"label": "welcome"}, "within_s": DAY_S},
    ]
    outcome = try_out(draft(brand, shop, guards=rules, labels=["welcome"]))
    assert outcome.draft.offers == 1
    assert outcome.draft.refusals == {"contradicts_event": 1, "contradicts_offer": 1}


def _rules(brand: Brand) -> Any:
    from campaigns.catalogue import load_brands

    return load_brands(brand.pk)[brand.pk]


def test_it_says_what_would_have_been_and_writes_nothing() -> None:
    brand = make_brand()
    shop, ann, bob = make_circle(brand), make_device(brand), make_device(brand, platform="ios")
    record(
        walk(ann, IN_AND_OUT * 3, start=START + timedelta(hours=1)),
        walk(bob, IN_AND_OUT, start=START + timedelta(hours=5)),
    )
    caps = [{"limit": 2, "window_s": DAY_S}]
    outcome = try_out(draft(brand, shop, caps=caps, audience={"platform": "android"}))
    assert outcome.draft.offers == 2
    assert outcome.draft.devices_reached == 1
    assert outcome.draft.refusals == {"cap_reached": 1, "not_in_audience": 1}
    assert outcome.draft.per_day == {START.date().isoformat(): 2}
    (place,) = outcome.draft.places
    assert (place.id, place.entries, place.offers) == (shop.pk, 4, 2)
    assert (outcome.fixes, outcome.devices, outcome.live) == (16, 2, None)
    assert not Decision.objects.exists()
    assert not Delivery.objects.exists()


def test_it_needs_no_geofence_that_was_armed_then() -> None:
    brand = make_brand()
    shop, ann = make_circle(brand, track_visits=False), make_device(brand)
    record(walk(ann, IN_AND_OUT, start=START + timedelta(hours=1)))
    assert not Transition.objects.exists()
    trigger = {"on": "dwelled", "geofences": [shop.pk], "dwell_s": 100}
    assert try_out(draft(brand, trigger=trigger)).draft.offers == 1


def test_it_shows_the_difference_to_what_is_live() -> None:
    brand = make_brand()
    shop, ann = make_circle(brand), make_device(brand)
    campaign = make_campaign(brand, shop, caps=[{"limit": 1, "window_s": DAY_S}])
    record(walk(ann, IN_AND_OUT * 3, start=START + timedelta(hours=1)))
    publishing.edit(campaign, raw=a_definition(shop), actor=None)
    outcome = try_out(campaign)
    assert outcome.live is not None
    assert (outcome.draft.offers, outcome.live.offers) == (3, 1)
    assert outcome.difference == {"offers": 2, "cap_reached": -2}


def test_it_tells_of_its_own_places_and_of_no_rivals() -> None:
    brand = make_brand()
    shop = make_circle(brand, external_id="shop", track_visits=True)
    other = make_circle(brand, external_id="other", track_visits=True)
    record(walk(make_device(brand), IN_AND_OUT, start=START))
    make_campaign(brand, other, name="Rival")
    outcome = try_out(draft(brand, shop))
    assert [place.id for place in outcome.draft.places] == [shop.pk]


def test_other_live_campaigns_compete_as_they_would() -> None:
    brand = make_brand(caps=[{"limit": 3, "window_s": DAY_S, "scope": "device"}])
    shop, ann = make_circle(brand), make_device(brand)
    make_campaign(brand, shop, name="Rival", priority=9, caps=[{"limit": 2, "window_s": DAY_S}])
    record(walk(ann, IN_AND_OUT * 4, start=START + timedelta(hours=1)))
    outcome = try_out(draft(brand, shop))
    assert outcome.draft.offers == 1
    assert outcome.draft.refusals == {"lost_to_priority": 2, "cap_reached": 1}


def test_quiet_hours_are_those_of_that_night() -> None:
    brand = make_brand(quiet_hours={"from": "21:00", "to": "08:00"})
    shop, ann = make_circle(brand), make_device(brand, timezone="UTC")
    record(
        walk(ann, IN_AND_OUT, start=START + timedelta(hours=1)),
        walk(ann, IN_AND_OUT, start=START + timedelta(hours=13)),
    )
    outcome = try_out(draft(brand, shop))
    assert (outcome.draft.offers, outcome.draft.refusals) == (1, {"quiet_hours": 1})


def test_a_budget_is_spent_by_the_virtual_clock() -> None:
    brand = make_brand(timezone="Europe/Helsinki")
    shop = make_circle(brand)
    devices = [make_device(brand) for _ in range(3)]
    for day in (0, 1):
        for number, device in enumerate(devices):
            start = START + timedelta(days=day, hours=number)
            record(walk(device, IN_AND_OUT, start=start))
    budget = {"per_day": {"money": 350}, "cost": 150, "currency": "EUR"}
    found = try_out(draft(brand, shop, budget=budget)).draft
    assert (found.offers, found.money) == (4, 600)
    assert list(found.per_day.values()) == [2, 2]
    assert found.refusals == {"budget_spent": 2}
    even = {"per_day": {"sends": 2}, "even": True}
    found = try_out(draft(brand, shop, budget=even)).draft
    assert set(found.refusals) <= {"paced", "budget_spent"}
    assert found.offers + sum(found.refusals.values()) == 6
    assert not Spend.objects.exists()


def test_sequences_and_past_behaviour_count_as_they_did() -> None:
    brand = make_brand()
    shop, ann = make_circle(brand), make_device(brand, external_id="ann")
    record(walk(ann, IN_AND_OUT * 2, start=START + timedelta(hours=1)))
    low_at = START + timedelta(minutes=30)
    make_event(None, brand, "balance_low", external_id="ann", occurred_at=low_at)
    sequence = {
        "on": "sequence",
        "steps": [
            {"on": "event", "event": "balance_low"},
            {"on": "entered", "geofences": [shop.pk]},
        ],
    }
    outcome = try_out(draft(brand, trigger=sequence))
    assert (outcome.draft.offers, outcome.draft.refusals) == (1, {"sequence_incomplete": 1})
    visits = {"visits": {"geofences": [shop.pk]}, "op": "gte", "value": 2, "within_s": DAY_S}
    outcome = try_out(draft(brand, shop, audience=visits))
    assert (outcome.draft.offers, outcome.draft.refusals) == (1, {"not_in_audience": 1})


def test_it_runs_in_the_background_and_shows_how_far_it_is() -> None:
    brand = make_brand()
    shop, ann = make_circle(brand), make_device(brand)
    record(walk(ann, IN_AND_OUT, start=START + timedelta(hours=1)))
    campaign = draft(brand, shop)
    call = caller(make_key(brand))
    path = f"campaigns/{campaign.pk}/backtest"
    assert call("GET", path).status_code == 404
    asked = call("POST", path, {"since": START.isoformat(), "until": TODAY.isoformat()})
    assert asked.status_code == 202
    assert asked.json()["state"] == "queued"
    job = backtests.take(now())
    assert job is not None
    assert backtests.take(now()) is None
    backtests.perform(job)
    done = call("GET", path).json()
    assert (done["state"], done["progress"]) == ("done", 1.0)
    assert done["report"]["draft"]["offers"] == 1
    assert caller(make_key(make_brand()))("POST", path).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"since": "2026-02-02T00:00:00Z", "until": "2026-02-01T00:00:00Z"}, 422),
        ({"since": "2020-02-02T00:00:00Z"}, 422),
        ({"since": "yesterday"}, 422),
        ({}, 202),
    ],
)
def test_a_period_must_make_sense(body: dict[str, str], status: int) -> None:
    brand = make_brand()
    campaign = draft(brand, make_circle(brand))
    answer = caller(make_key(brand))("POST", f"campaigns/{campaign.pk}/backtest", body)
    assert answer.status_code == status


def test_a_draft_that_could_not_be_published_is_not_tried() -> None:
    brand = make_brand()
    campaign = publishing.create(brand=brand, name="x", raw={}, actor=None)
    answer = caller(make_key(brand))("POST", f"campaigns/{campaign.pk}/backtest")
    assert answer.status_code == 422
    assert answer.json()["code"] == "not_publishable"


def test_a_trial_that_fails_says_why_and_one_whose_runner_died_is_taken_up_again() -> None:
    brand = make_brand()
    campaign = Campaign.objects.create(brand=brand, name="broken", draft={"trigger": 3})
    job = backtests.ask(campaign, since=START, until=TODAY, actor=None)
    taken = backtests.take(now() - timedelta(minutes=5))
    assert taken is not None
    again = backtests.take(now())
    assert again is not None
    assert again.pk == job.pk
    backtests.perform(again)
    job.refresh_from_db()
    assert (job.state, "trigger" in job.problem) == ("failed", True)
    assert Backtest.objects.count() == 1


def test_the_command_runs_a_day_of_a_real_city(shared_data: Path) -> None:
    brand = make_brand(timezone="America/Chicago")
    austin = shared_data / "austin"
    call_command(
        "import_geofences",
        austin / "parks.geojson",
        brand=brand.slug,
        tag=["park"],
        stdout=StringIO(),
    )
    trigger = {"on": "entered", "tags": ["park"]}
    campaign = draft(brand, trigger=trigger, caps=[{"limit": 3, "window_s": DAY_S}])
    said = StringIO()
    trace = austin / "bus_positions_2015-09-06.csv.gz"
    call_command("backtest", campaign.pk, trace=trace, json=True, stdout=said)
    report = json.loads(said.getvalue())
    assert report["fixes"] > 50_000
    assert report["devices"] == 146
    found = report["draft"]
    # geopandas finds 94 fixes of 39 buses inside parks: 83 visits, some of more than one fix.
    assert found["devices_reached"] == 39
    assert found["offers"] + found["refusals"]["cap_reached"] == found["considered"] == 83
    assert found["offers"] <= 3 * 39
    assert not Decision.objects.exists()

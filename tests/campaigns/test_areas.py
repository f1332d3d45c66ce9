"""Audiences by home and usual area, and by what a person did at this very place."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils.timezone import now

from brands.models import Brand
from campaigns import conditions, sentences
from campaigns.evaluation import evaluate_once
from campaigns.models import Decision
from devices.models import Area, Device
from geofences.models import Arming, Geofence
from tests.campaigns.rows import make_campaign, make_transition
from tests.factories import make_brand, make_circle, make_device
from tests.places import ACROSS_TOWN, AT_THE_DOOR, Place

pytestmark = pytest.mark.django_db

DAY_S = 86_400


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def shop(brand: Brand) -> Geofence:
    return make_circle(brand, tags=["shop"])


@pytest.fixture
def town(brand: Brand) -> Geofence:
    point = f"POINT({ACROSS_TOWN.lng} {ACROSS_TOWN.lat})"
    return make_circle(brand, tags=["town"], geometry=point)


def lives(device: Device, place: Place, *, kind: str = "home", seen_days_ago: int = 1) -> None:
    Area.objects.create(
        device_id=device.pk,
        kind=kind,
        cell=seen_days_ago,
        lat=place.lat + 0.008,  # the middle of the cell, some 900 m away
        lng=place.lng,
        days=5,
        last_at=now() - timedelta(days=seen_days_ago),
    )


def reason(campaign_brand: Brand, place: Geofence, device: Device) -> str:
    make_transition(device, place)
    while evaluate_once(now=now()):
        pass
    return Decision.objects.order_by("-id").values_list("reason", flat=True)[0]


HOME_HERE = {"area": "home", "places": "here"}
NEAR_TOWN = {"area": "home", "places": {"tags": ["town"]}}


@pytest.mark.parametrize(
    ("audience", "at", "kind", "seen_days_ago", "matched"),
    [
        (HOME_HERE, AT_THE_DOOR, "home", 1, True),
        (HOME_HERE, ACROSS_TOWN, "home", 1, False),
        (HOME_HERE, AT_THE_DOOR, "usual", 1, False),
        (NEAR_TOWN, ACROSS_TOWN, "home", 1, True),
        (NEAR_TOWN, AT_THE_DOOR, "home", 1, False),
        ({"not": NEAR_TOWN}, AT_THE_DOOR, "home", 1, True),
        (NEAR_TOWN | {"max_age_s": 7 * DAY_S}, ACROSS_TOWN, "home", 6, True),
        (NEAR_TOWN | {"max_age_s": 7 * DAY_S}, ACROSS_TOWN, "home", 8, False),
        ({"area": "usual", "places": "here"}, AT_THE_DOOR, "usual", 1, True),
    ],
)
def test_it_asks_where_somebody_lives_or_usually_is(
    brand: Brand,
    shop: Geofence,
    town: Geofence,
    audience: dict[str, Any],
    at: Place,
    kind: str,
    seen_days_ago: int,
    matched: bool,
) -> None:
    make_campaign(brand, shop, audience=audience)
    device = make_device(brand)
    lives(device, at, kind=kind, seen_days_ago=seen_days_ago)
    assert reason(brand, shop, device) == ("matched" if matched else "not_in_audience")


def test_it_knows_the_home_of_a_persons_other_phone(brand: Brand, shop: Geofence) -> None:
    make_campaign(brand, shop, audience=HOME_HERE)
    lives(make_device(brand, external_id="ann"), AT_THE_DOOR)
    assert reason(brand, shop, make_device(brand, external_id="ann")) == "matched"
    assert reason(brand, shop, make_device(brand, external_id="bob")) == "not_in_audience"


def test_it_asks_nothing_of_a_brand_that_switched_it_off(brand: Brand, shop: Geofence) -> None:
    make_campaign(brand, shop, audience=HOME_HERE)
    device = make_device(brand)
    lives(device, AT_THE_DOOR)
    Brand.objects.update(derive_areas=False)
    assert reason(brand, shop, device) == "not_in_audience"


def test_it_greets_who_is_here_for_the_first_time(
    brand: Brand, shop: Geofence, town: Geofence
) -> None:
    first = {"visits": "here", "op": "eq", "value": 1}
    make_campaign(brand, trigger={"on": "entered", "tags": ["shop", "town"]}, audience=first)
    device = make_device(brand)
    assert reason(brand, shop, device) == "matched"
    assert reason(brand, town, device) == "matched"  # the first time there
    assert reason(brand, shop, device) == "not_in_audience"


def test_two_places_at_one_moment_are_each_their_own_here(
    brand: Brand, shop: Geofence, town: Geofence
) -> None:
    first = {"visits": "here", "op": "eq", "value": 1}
    make_campaign(brand, shop, audience=first, group="a")
    make_campaign(brand, town, audience=first, group="b")
    device, at = make_device(brand), now() - timedelta(seconds=1)
    make_transition(device, shop, occurred_at=at - timedelta(days=1), processed_at=at)
    make_transition(device, shop, occurred_at=at)
    make_transition(device, town, occurred_at=at)
    while evaluate_once(now=now()):
        pass
    assert set(Decision.objects.values_list("geofence_id", "reason")) == {
        (shop.pk, "not_in_audience"),
        (town.pk, "matched"),
    }


def test_an_area_arms_nothing(brand: Brand, shop: Geofence, town: Geofence) -> None:
    make_campaign(brand, shop, audience=NEAR_TOWN)
    assert list(Arming.objects.values_list("geofence_id", "tag")) == [(shop.pk, None)]


@pytest.mark.parametrize(
    ("leaf", "path"),
    [
        ({"area": "work", "places": "here"}, "audience.area"),
        ({"area": "home"}, "audience.places"),
        ({"area": "home", "places": {}}, "audience.places"),
        ({"area": "home", "places": {"tags": "x"}}, "audience.places.tags"),
        ({"area": "home", "places": "here", "value": 1}, "audience.value"),
        ({"visits": "there", "value": 1}, "audience.visits"),
    ],
)
def test_it_names_what_is_wrong(leaf: dict[str, Any], path: str) -> None:
    assert [one.path for one in conditions.problems(leaf)] == [path]


def test_it_reads_as_a_sentence() -> None:
    assert sentences.condition(NEAR_TOWN | {"max_age_s": DAY_S}) == (
        "lives near “town” (seen in the last 1 day)"
    )
    usual = {"area": "usual", "places": "here"}
    assert sentences.condition(usual) == "usually is near this very place"
    assert sentences.condition({"visits": "here", "op": "eq", "value": 1}) == (
        "the number of visits to this very place is 1"
    )

"""The size of an audience: exact for few, honest about its interval for many."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Brand, Role
from campaigns import publishing
from campaigns.conditions import AudienceError
from campaigns.estimates import Estimate, _scaled, estimate
from campaigns.models import Segment
from devices.models import Device
from tests.campaigns.rows import a_definition, make_event
from tests.factories import make_brand, make_device, make_key
from tests.staff import logged_in, make_member

pytestmark = pytest.mark.django_db

IOS = {"platform": "ios"}


@pytest.fixture
def brand() -> Brand:
    return make_brand()


def a_crowd(brand: Brand, count: int, *, every: int) -> None:
    Device.objects.bulk_create(
        Device(
            brand=brand,
            installation_id=f"{brand.pk}-{number}",
            platform="ios" if number % every == 0 else "android",
        )
        for number in range(count)
    )


def test_it_asks_everybody_where_they_are_few(brand: Brand) -> None:
    a_crowd(brand, 10, every=5)
    a_crowd(make_brand(), 10, every=1)
    found = estimate(brand.pk, IOS, now=now())
    assert (found.matching, found.of, found.is_exact) == (2, 10, True)
    assert str(found) == "2 of 10 devices now."
    assert estimate(brand.pk, {}, now=now()).matching == 10
    assert estimate(brand.pk, {"not": IOS}, now=now()).matching == 8


def test_it_asks_a_sample_where_they_are_many(brand: Brand) -> None:
    a_crowd(brand, 3_000, every=3)
    found = estimate(brand.pk, IOS, now=now(), sample=500)
    assert (found.of, found.asked) == (3_000, 500)
    assert found.low < 1_150
    assert found.high > 850
    assert found.low <= found.matching <= found.high
    assert str(found).startswith("About ")


def test_it_knows_segments_and_what_people_did(brand: Brand) -> None:
    Segment.objects.create(brand=brand, name="iOS", slug="ios", tree=IOS)
    ann, bob = make_device(brand, platform="ios"), make_device(brand, platform="ios")
    make_device(brand)
    make_event(ann, brand, "purchase", processed_at=now())
    bought = {"event": "purchase", "value": 1, "within_s": 3_600}
    tree = {"all": [{"segment": "ios"}, bought]}
    assert estimate(brand.pk, tree, now=now()).matching == 1
    assert estimate(brand.pk, {"not": bought}, now=now()).matching == 2
    assert bob.pk
    with pytest.raises(AudienceError):
        estimate(brand.pk, {"segment": "nobody"}, now=now())


@pytest.mark.parametrize(("hits", "low", "high"), [(0, 0, 2_500), (1_000, 97_500, 100_000)])
def test_its_interval_is_honest_at_the_ends(hits: int, low: int, high: int) -> None:
    found = _scaled(hits, 1_000, 100_000)
    assert low <= found.low <= found.matching <= found.high <= high
    assert found.low < found.high


def test_nobody_is_nobody() -> None:
    assert _scaled(0, 0, 0) == Estimate(matching=0, of=0, low=0, high=0, asked=0)


def test_a_marketer_sees_it_while_they_choose(brand: Brand) -> None:
    a_crowd(brand, 4, every=2)
    client = logged_in(make_member(brand, Role.MARKETER))
    page = client.get(reverse("admin:campaigns_campaign_add"))
    assert "4 of 4 devices now." in page.content.decode()
    asked: dict[str, Any] = {"brand": brand.pk, "on": "entered", "audience": '{"platform": "ios"}'}
    said = client.post(reverse("admin:campaigns_campaign_preview"), asked).json()
    assert said["audience"] == "2 of 4 devices now."


def test_a_back_office_asks_over_the_api(client: Client, brand: Brand) -> None:
    a_crowd(brand, 4, every=2)
    made = publishing.create(
        brand=brand, name="x", raw=a_definition(None, audience=IOS), actor=None
    )
    key = {"Authorization": f"Bearer {make_key(brand)}"}
    answer = client.get(f"/v1/campaigns/{made.pk}/audience", headers=key)
    assert answer.json() == {"matching": 2, "of": 4, "low": 2, "high": 2, "asked": 4}

"""Segments in the admin: named, never in a circle, never deleted while used."""

from __future__ import annotations

import json

import pytest
from django.test import Client
from django.urls import reverse

from brands.models import Brand, Role
from campaigns import publishing
from campaigns.models import Segment
from tests.campaigns.rows import make_campaign
from tests.factories import make_brand, make_circle
from tests.staff import logged_in, make_member

pytestmark = pytest.mark.django_db
SEGMENTS = "admin:campaigns_segment_add"


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def marketer(brand: Brand) -> Client:
    return logged_in(make_member(brand, Role.MARKETER))


def test_it_makes_a_segment_with_a_short_name_of_its_own(brand: Brand, marketer: Client) -> None:
    tree = json.dumps({"all": [{"attribute": "tier", "op": "eq", "value": "gold"}]})
    for _ in range(2):
        marketer.post(reverse(SEGMENTS), {"name": "Gold members", "tree": tree})
    assert set(Segment.objects.values_list("slug", flat=True)) == {"gold-members", "gold-members-2"}


def test_it_refuses_a_segment_that_contains_itself(brand: Brand, marketer: Client) -> None:
    outer = Segment.objects.create(brand=brand, name="Outer", slug="outer", tree={})
    inner = Segment.objects.create(
        brand=brand, name="Inner", slug="inner", tree={"segment": "outer"}
    )
    answer = marketer.post(
        reverse("admin:campaigns_segment_change", args=[outer.pk]),
        {"name": "Outer", "tree": json.dumps({"all": [{"segment": inner.slug}]})},
    )
    assert "The segments go in a circle: outer → inner → outer." in answer.content.decode()
    outer.refresh_from_db()
    assert outer.tree == {}


def test_it_refuses_a_segment_that_rests_on_a_broken_one(brand: Brand, marketer: Client) -> None:
    Segment.objects.create(brand=brand, name="Old", slug="old", tree={"colour": 1})
    tree = json.dumps({"all": [{"segment": "old"}]})
    answer = marketer.post(reverse(SEGMENTS), {"name": "New", "tree": tree})
    assert "segment old" in answer.content.decode()
    assert not Segment.objects.filter(name="New").exists()


def test_it_deletes_no_segment_that_is_used(brand: Brand, marketer: Client) -> None:
    used = Segment.objects.create(brand=brand, name="Used", slug="used", tree={})
    make_campaign(brand, make_circle(brand), audience={"segment": "used"})
    address = reverse("admin:campaigns_segment_delete", args=[used.pk])
    assert marketer.post(address, {"post": "yes"}).status_code == 403
    assert Segment.objects.filter(pk=used.pk).exists()


def test_it_deletes_a_segment_that_only_an_ended_campaign_used(
    brand: Brand, marketer: Client
) -> None:
    used = Segment.objects.create(brand=brand, name="Used", slug="used", tree={})
    campaign = make_campaign(brand, make_circle(brand), audience={"segment": "used"})
    publishing.end(campaign, actor=None)
    address = reverse("admin:campaigns_segment_delete", args=[used.pk])
    assert marketer.post(address, {"post": "yes"}).status_code == 302
    assert not Segment.objects.filter(pk=used.pk).exists()

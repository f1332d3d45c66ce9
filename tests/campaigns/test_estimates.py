"""The size of an audience: exact for few, honest about its interval for many."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Brand, Role
from campaigns import publishing
from campaigns.conditions import AudienceError, without_here
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
    assert answer.json() == {
        "matching": 2, "of": 4, "low": 2, "high": 2, "asked": 4, "without_here": False,
    }  # fmt: skip


def slow_bucket(person: str, salt: str, of: int) -> int:
    """By the book: the hash as a fraction of all hashes, times the number of buckets."""
    digest = hashlib.blake2b(f"{salt}\x00{person}".encode(), digest_size=8).hexdigest()
    return math.floor(Fraction(int(digest, 16), 2**64) * of)


@pytest.mark.parametrize(("low", "high", "of"), [(0, 50, 100), (90, 100, 100), (3, 4, 7)])
def test_it_counts_a_test_group_as_one_by_one(brand: Brand, low: int, high: int, of: int) -> None:
    persons = [f"person {number}" for number in range(60)]
    devices = [make_device(brand, external_id=name) for name in persons]
    devices += [make_device(brand, external_id=name) for name in persons[:10]]  # second phones
    devices += [make_device(brand) for _ in range(30)]
    names = [one.external_id or f"device:{one.pk}" for one in devices]
    group = {"bucket": [low, high], "of": of, "salt": "test-a"}
    slow = sum(low <= slow_bucket(name, "test-a", of) < high for name in names)
    found = estimate(brand.pk, group, now=now())
    assert (found.matching, found.of, found.is_exact) == (slow, 100, True)
    assert 0 < slow < 100
    rest = estimate(brand.pk, {"not": group}, now=now())
    assert rest.matching == 100 - slow


def test_it_estimates_a_test_group_of_many_within_its_interval(brand: Brand) -> None:
    a_crowd(brand, 3_000, every=3)
    group = {"bucket": [0, 25], "salt": "x"}
    ids = Device.objects.filter(brand=brand).values_list("pk", flat=True)
    slow = sum(slow_bucket(f"device:{key}", "x", 100) < 25 for key in ids)
    found = estimate(brand.pk, group, now=now(), sample=1_000)
    assert not found.is_exact
    spread = found.high - found.low
    assert found.low - spread < slow < found.high + spread


HERE = {"visits": "here", "op": "eq", "value": 1}


@pytest.mark.parametrize(
    ("tree", "matching"),
    [
        (HERE, 4),
        ({"not": HERE}, 4),
        ({"all": [IOS, HERE]}, 2),
        ({"any": [IOS, HERE]}, 4),
        ({"not": {"any": [IOS, HERE]}}, 2),  # surely not for iOS, perhaps for the others
        ({"not": {"all": [IOS, HERE]}}, 4),
        ({"all": [{"segment": "regulars"}, {"not": IOS}]}, 2),
    ],
)
def test_what_depends_on_the_moment_is_left_out_and_it_says_so(
    brand: Brand, tree: dict[str, Any], matching: int
) -> None:
    a_crowd(brand, 4, every=2)
    Segment.objects.create(
        brand=brand, name="Regulars", slug="regulars", tree={"visits": "here", "value": 3}
    )
    found = estimate(brand.pk, tree, now=now())
    assert (found.matching, found.without_here) == (matching, True)
    assert str(found).startswith(f"At most {matching} of 4 devices now. What is asked about “here”")


def test_no_answer_of_a_moment_is_more_than_the_most() -> None:
    """Whatever the leaves about here turn out to be, the estimate holds at least as many."""
    leaves: list[dict[str, Any]] = [IOS, HERE, {"visits": "here", "value": 9}]
    trees: list[dict[str, Any]] = list(leaves)
    for _ in range(2):
        some = trees[:12]
        trees += [{"not": one} for one in some]
        trees += [{branch: [a, b]} for branch in ("all", "any") for a in some for b in some]

    def holds(tree: Any, answers: dict[str, bool]) -> bool:
        if "not" in tree:
            return not holds(tree["not"], answers)
        if "all" in tree:
            return all(holds(part, answers) for part in tree["all"])
        if "any" in tree:
            return any(holds(part, answers) for part in tree["any"])
        return answers[str(tree)] if tree else True

    for tree in trees:
        most, _ = without_here(tree, {})
        for ios in (True, False):
            found = {
                holds(tree, {str(IOS): ios, str(leaves[1]): one, str(leaves[2]): other})
                for one in (True, False)
                for other in (True, False)
            }
            assert holds(most, {str(IOS): ios}) >= max(found)

"""Several clients that write what refers to each other, or is named alike, at the same time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse

from brands.models import Brand
from campaigns import publishing
from campaigns.models import BrandGuard, Segment
from campaigns.shared_forms import SegmentForm
from tests.campaigns.racing import together
from tests.factories import make_brand, make_key
from tests.staff import logged_in, make_member
from tests.waiting import Late

pytestmark = pytest.mark.django_db(transaction=True)

WRITERS = 8


def sent(secret: str, method: str, path: str, body: dict[str, Any]) -> int:
    client = Client(headers={"authorization": f"Bearer {secret}"}, raise_request_exception=False)
    return client.generic(method, f"/v1/{path}", json.dumps(body), "application/json").status_code


def read(secret: str, path: str) -> dict[str, Any]:
    client = Client(headers={"authorization": f"Bearer {secret}"})
    found: dict[str, Any] = client.get(f"/v1/{path}").json()
    return found


@pytest.mark.parametrize("path", ["segments", "coupon-pools"])
def test_it_gives_a_slug_once(path: str) -> None:
    secret, answers = make_key(make_brand()), Counter[int]()
    body = {"name": "VIP", "slug": "vip", "kind": "imported"}
    together(WRITERS, lambda: answers.update([sent(secret, "POST", path, body)]))
    assert answers == {201: 1, 422: WRITERS - 1}


def test_it_closes_no_circle_of_segments() -> None:
    brand = make_brand()
    a, b = (Segment.objects.create(brand=brand, name=slug, slug=slug) for slug in ("a", "b"))
    secret, answers, turns = make_key(brand), Counter[int](), count()

    def refer() -> None:
        one, other = (a, b) if next(turns) % 2 else (b, a)
        tree = {"tree": {"segment": other.slug}}
        answers.update([sent(secret, "PATCH", f"segments/{one.pk}", tree)])

    together(WRITERS, refer)
    assert answers == {200: WRITERS // 2, 422: WRITERS // 2}
    assert Segment.objects.filter(tree={}).count() == 1


def test_the_admins_form_closes_no_circle_either() -> None:
    brand = make_brand()
    a, b = (Segment.objects.create(brand=brand, name=slug, slug=slug) for slug in ("a", "b"))

    def refer(one: Segment, other: Segment) -> bool:
        typed = {"name": one.name, "tree": json.dumps({"segment": other.slug})}
        return SegmentForm(typed, instance=one, brand=brand).save_if_valid() is not None

    with transaction.atomic():
        assert refer(a, b)
        second = Late(lambda: refer(b, a))
    assert second.answer() is False
    assert Segment.objects.get(tree={}) == b


def test_the_admin_deletes_no_segment_that_somebody_is_about_to_use() -> None:
    brand = make_brand()
    used = Segment.objects.create(brand=brand, name="Used", slug="used")
    admin = logged_in(make_member(brand))
    address = reverse("admin:campaigns_segment_delete", args=[used.pk])
    tree = {"segment": "used"}
    form = SegmentForm({"name": "New", "tree": json.dumps(tree)}, instance=Segment(), brand=brand)
    with transaction.atomic():
        assert form.save_if_valid() is not None
        deletion = Late(lambda: admin.post(address, {"post": "yes"}).status_code)
    assert deletion.answer() == 403
    assert Segment.objects.filter(pk=used.pk).exists()


NEW_RULE = {"attribute": "tier", "op": "ne", "value": "gold"}


def a_guard(brand: Brand) -> str:
    rule = {"attribute": "city", "op": "eq", "value": "Paris"}
    return f"guards/{BrandGuard.objects.create(brand=brand, name='old', rule=rule).pk}"


def a_segment(brand: Brand) -> str:
    return f"segments/{Segment.objects.create(brand=brand, name='old', slug='old').pk}"


def a_draft(brand: Brand) -> str:
    return f"campaigns/{publishing.create(brand=brand, name='old', raw={}, actor=None).pk}"


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (a_guard, {"name": "new", "rule": NEW_RULE}),
        (a_segment, {"name": "new", "tree": NEW_RULE, "slug": "new"}),
        (a_draft, {"name": "new", "priority": 7, "expires_after_s": 600, "coupon_pool": "x"}),
    ],
)
def test_who_change_different_fields_at_a_time_all_keep_theirs(
    make: Callable[[Brand], str], changes: dict[str, Any]
) -> None:
    secret = make_key(brand := make_brand())
    for _ in range(5):
        path, answers, left = make(brand), Counter[int](), list(changes)

        def change(path: str = path, answers: Counter[int] = answers, left: Any = left) -> None:
            name = left.pop()
            answers.update([sent(secret, "PATCH", path, {name: changes[name]})])

        together(len(changes), change)
        assert set(answers) == {200}
        kept = read(secret, path)
        assert {name: kept[name] for name in changes} == changes
        if "slug" in changes:
            Segment.objects.all().delete()


def test_a_guard_that_is_deleted_meanwhile_does_not_come_back() -> None:
    secret = make_key(brand := make_brand())
    answers = Counter[int]()
    for _ in range(5):
        path, methods = a_guard(brand), ["PATCH", "DELETE"] * 3

        def order(path: str = path, methods: list[str] = methods) -> None:
            answers.update([sent(secret, methods.pop(), path, {"name": "new"})])

        together(len(methods), order)
    assert set(answers) <= {200, 204, 404}
    assert not BrandGuard.objects.exists()

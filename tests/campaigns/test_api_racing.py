"""Several clients that write what refers to each other, or is named alike, at the same time."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse

from campaigns.models import Segment
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

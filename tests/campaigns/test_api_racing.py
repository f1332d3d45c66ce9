"""Several clients that write what refers to each other, or is named alike, at the same time."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from typing import Any

import pytest
from django.test import Client

from campaigns.models import Segment
from tests.campaigns.racing import together
from tests.factories import make_brand, make_key

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

"""Pages show every row once, however many share the value that they are ordered by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.db.models import Model, QuerySet
from django.utils.timezone import now
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from brands import keyset
from devices.models import Transition
from geofences.api import Pages

ORDERINGS = ["id", "first_name", "-first_name", "first_name,-last_name", "-date_joined,last_name"]


@pytest.fixture
def people(db: None) -> QuerySet[User]:
    """Twelve hundred, in a mess: more share a name than any offset would reach."""
    joined = now()
    User.objects.bulk_create(
        User(
            username=f"u{number * 7919 % 1200}",
            first_name="Ann" if number % 12 else f"Bo{number % 5}",
            last_name=f"L{number % 3}",
            date_joined=joined,
        )
        for number in range(1200)
    )
    User.objects.filter(username__endswith="3").update(email="x@nearcast.test")  # moves the rows
    return User.objects.all()


class Ordered:
    """A view that takes any ordering."""

    def __init__(self) -> None:
        self.filter_backends = [self]

    def __call__(self) -> Ordered:
        return self

    def get_ordering(self, request: Request, *_: Any) -> list[str]:
        return request.query_params["ordering"].split(",")


def page(rows: QuerySet[Any], ordering: str, cursor: str | None, limit: int) -> tuple[Any, Pages]:
    asked = {"ordering": ordering, "limit": str(limit)} | ({"cursor": cursor} if cursor else {})
    pages = Pages()
    request = Request(APIRequestFactory().get("/v1/things", asked))
    return pages.paginate_queryset(rows, request, Ordered()), pages


def forwards(rows: QuerySet[Any], ordering: str, limit: int) -> Iterator[tuple[Any, Pages]]:
    found, pages = page(rows, ordering, None, limit)
    yield found, pages
    while cursor := pages.next_cursor():
        found, pages = page(rows, ordering, cursor, limit)
        yield found, pages


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_it_shows_every_row_once_in_order(people: QuerySet[User], ordering: str) -> None:
    seen = [row.pk for found, _ in forwards(people, ordering, 97) for row in found]
    whole = people.order_by(*keyset.total(ordering.split(",")))
    assert seen == list(whole.values_list("pk", flat=True))


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_it_leads_back_the_same_way(people: QuerySet[User], ordering: str) -> None:
    there = list(forwards(people, ordering, 97))
    found, pages = there[-1]
    back = [found]
    while cursor := pages.previous_cursor():
        found, pages = page(people, ordering, cursor, 97)
        assert pages.next_cursor()
        back.append(found)
    assert [row for found in reversed(back) for row in found] == [
        row for found, _ in there for row in found
    ]


def test_it_turns_round_where_it_is(people: QuerySet[User]) -> None:
    first, pages = page(people, "first_name", None, 10)
    second, pages = page(people, "first_name", pages.next_cursor(), 10)
    again, pages = page(people, "first_name", pages.previous_cursor(), 10)
    assert again == first
    assert page(people, "first_name", pages.next_cursor(), 10)[0] == second


def test_it_loses_no_row_to_one_that_goes_meanwhile(people: QuerySet[User]) -> None:
    first, pages = page(people, "first_name", None, 10)
    expected = list(people.order_by("first_name", "id")[10:20])
    first[-1].delete()
    first[0].delete()
    assert page(people, "first_name", pages.next_cursor(), 10)[0] == expected


def test_a_cursor_of_another_ordering_is_refused(db: None) -> None:
    Group.objects.bulk_create(Group(name=f"g{number}") for number in range(3))
    _, pages = page(Group.objects.all(), "name", None, 1)
    with pytest.raises(NotFound):
        page(Group.objects.all(), "id", pages.next_cursor(), 1)


@pytest.mark.parametrize("ordering", ["occurred_at", "-occurred_at"])
def test_an_index_leads_to_the_page(db: None, ordering: str) -> None:
    rows = Transition.objects.filter(device_id=1)
    order = keyset.total([ordering])
    plan = _plan(rows.order_by(*order).filter(keyset.beyond(order, [now(), 7]))[:101])
    assert "transitions_by_device" in plan
    assert "(device_id = 1) AND (occurred_at " in plan


def _plan(rows: QuerySet[Model]) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
    return rows.explain()

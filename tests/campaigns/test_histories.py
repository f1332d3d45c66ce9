"""Lists of what happened, on the wire: whole, newest first, and no dearer beside a busy brand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import Model, QuerySet
from django.test.utils import CaptureQueriesContext

from campaigns.api import pages
from campaigns.models import Decision
from devices.models import Transition
from notifications.models import Delivery
from tests.campaigns.test_api import Call, caller
from tests.factories import make_key
from tests.staff import World, make_world

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
UNUSED = 10**9  # an id that no row has, however many tests ran before
LISTS: list[tuple[str, type[Model], str]] = [
    ("transitions", Transition, "occurred_at"),
    ("decisions", Decision, "decided_at"),
    ("deliveries", Delivery, "created_at"),
]


@pytest.fixture
def world() -> World:
    return make_world("Bara")


@pytest.fixture
def call(world: World) -> Call:
    return caller(make_key(world.brand))


def row_of(world: World, model: type[Model]) -> Any:
    return {Transition: world.transition, Decision: world.decision, Delivery: world.delivery}[model]


def repeated(row: Any, time: str, instants: list[datetime]) -> None:
    """Rows like this one, in this order."""
    for number, at in enumerate(instants, UNUSED):
        row.pk, row._state.adding = None, True
        setattr(row, time, at)
        row.visit_id, row.moment_id, row.key = number, number, str(number)
        row.save()


@pytest.mark.parametrize(("path", "model", "time"), LISTS)
@pytest.mark.parametrize("ordering", ["", "time", "-time", "id", "-id"])
@pytest.mark.parametrize("asked", ["", "device={device}", "after=2026-01-05T11:59:59Z"])
def test_it_pages_through_rows_of_one_instant_without_losing_any(
    world: World, call: Call, path: str, model: type[Model], time: str, ordering: str, asked: str
) -> None:
    minutes = [0] * 9 + [5, 1, -1, 3] + [0] * 4  # late ones among them
    repeated(row_of(world, model), time, [NOON + timedelta(minutes=one) for one in minutes])
    ordering = ordering.replace("time", time)
    query = f"limit=4&ordering={ordering}&{asked.format(device=world.device.pk)}"
    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = call("GET", f"{path}?{query}&cursor={cursor}").json()
        seen += [row["id"] for row in answer["results"]]
        cursor = answer["next"]
    rows: QuerySet[Any] = model._default_manager.all()
    if asked.startswith("after"):
        rows = rows.filter(**{f"{time}__gte": NOON - timedelta(seconds=1)})
    first = ordering or f"-{time}"
    wanted = rows.order_by(first, "-id" if first.startswith("-") else "id")
    assert seen == list(wanted.values_list("pk", flat=True))


@pytest.mark.parametrize(("path", "model"), [one[:2] for one in LISTS])
@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ("", 1),
        ("brand=bara", 1),
        ("external_id=Bara-person", 1),
        ("{owner}={mine}", 1),
        ("{owner}={mine}&{kind}", 1),
        ("{kind}", 1),
        ("external_id=Busy-person", 0),
        ("{owner}={theirs}", 0),
    ],
)
def test_it_looks_at_a_quiet_brands_rows_alone(
    world: World, call: Call, path: str, model: type[Model], asked: str, count: int
) -> None:
    busy = make_world("Busy")
    copied(row_of(busy, model), 20_000)
    owner, kind = {
        Transition: ("geofence", "kind=entered"),
        Decision: ("campaign", "verdict=send"),
        Delivery: ("campaign", "state=sent"),
    }[model]
    mine, theirs = (getattr(one, owner).pk for one in (world, busy))
    query = asked.format(owner=owner, kind=kind, mine=mine, theirs=theirs)
    with CaptureQueriesContext(connection) as ran:
        answer = call("GET", f"{path}?{query}").json()
    assert len(answer["results"]) == count
    table = model._meta.db_table
    asked_of = [one["sql"] for one in ran if f'FROM "{table}"' in one["sql"]]
    assert sum(looked_at(sql, table) for sql in asked_of) < 10


def looked_at(sql: str, table: str) -> int:
    """How many rows of a table a query looks at."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        ((plan,),) = cursor.fetchall()
    return sum(
        one["Actual Loops"] * (one["Actual Rows"] + one.get("Rows Removed by Filter", 0))
        for one in nodes(plan[0]["Plan"])
        if one.get("Relation Name") == table
    )


def copied(row: Any, count: int) -> None:
    """Many rows like this one, and the planner knows of them."""
    table = row._meta.db_table
    columns = [field.column for field in row._meta.concrete_fields if not field.primary_key]
    told = {"visit_id": "n", "moment_id": "n", "key": "n::text"}
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)})"
            f" SELECT {', '.join(told.get(name, name) for name in columns)}"
            f" FROM {table}, generate_series(%s, %s) n WHERE id = %s",
            [UNUSED, UNUSED + count, row.pk],
        )
        cursor.execute(f"ANALYZE {table}")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's node and all below it."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


@pytest.mark.parametrize("path", ["transitions", "decisions", "deliveries"])
def test_it_says_what_to_ask_for_where_a_search_takes_too_long(
    call: Call, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(rows: QuerySet[Any], *_: object) -> QuerySet[Any]:
        return rows.extra(where=["pg_sleep(5)::text = 'x'"])

    monkeypatch.setattr(pages, "LIMIT_MS", 50)
    monkeypatch.setattr(pages, "_merged", slow)
    answer = call("GET", path)
    assert answer.status_code == 422
    assert answer.json()["code"] == "too_much_to_search"
    assert "`external_id`" in answer.json()["message"]

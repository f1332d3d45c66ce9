"""An import of people undone: to what was known before, and no further."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils.timezone import now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brands import filejobs, undoing
from brands.filejobs import ImportState
from brands.models import Brand
from devices import profile_files, profile_imports, profiles
from devices.models import Profile, ProfileImport
from devices.profiles import ProfileIn
from tests.devices.people import PAGES, PEOPLE, known, take
from tests.factories import make_brand
from tests.undone import assert_undone_on_its_page, undone

pytestmark = pytest.mark.django_db


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture(autouse=True)
def media(tmp_path: Path, settings: Any) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


def states(brand: Brand) -> dict[str, Any]:
    rows = Profile.objects.filter(brand=brand)
    return {row.external_id: (row.attributes, row.attribute_facts) for row in rows}


def test_it_undoes_an_import_to_what_was_known_before(
    brand: Brand, table: Callable[..., Path]
) -> None:
    take(brand, table("customer_id,plan,points\nc-1,silver,3\nc-2,gold,4\n"), source="old")
    before = states(brand)
    job = take(brand, table("customer_id,plan,city\nc-1,gold,Turku\nc-2,gold,\nc-3,none,Oulu\n"))
    assert states(brand) != before

    taken_back = undone(job, profile_imports.do)

    assert states(brand) == before
    assert (taken_back.state, taken_back.counts) == (
        ImportState.DONE,
        {"put back": 2, "removed": 1},
    )
    assert (taken_back.rows_done, taken_back.rows_total) == (3, 3)
    assert undoing.undo(job, by=None, now=now()) is None, "once is enough"
    assert undoing.undo(taken_back, by=None, now=now()) is None


def test_it_keeps_what_anybody_has_changed_since(brand: Brand, table: Callable[..., Path]) -> None:
    take(brand, table("customer_id,plan,points\nc-1,silver,3\nc-2,silver,3\n"))
    job = take(
        brand, table("customer_id,plan,points\nc-1,gold,4\nc-2,gold,4\nc-3,gold,4\nc-4,x,1\n")
    )
    later = [
        ProfileIn("c-1", {"points": 99}),
        ProfileIn("c-2", {"plan": "gold", "points": None}),  # the same value, told again
        ProfileIn("c-3", {"city": "Oulu"}),
    ]
    profiles.upsert(brand.pk, later, source="app", now=now())
    Profile.objects.filter(external_id="c-4").delete()

    taken_back = undone(job, profile_imports.do)

    assert known(brand) == {
        "c-1": {"plan": "silver", "points": 99},
        "c-2": {"plan": "gold"},
        "c-3": {"city": "Oulu"},
    }
    assert taken_back.counts == {"put back": 2, "kept": 2}
    assert list(taken_back.rows.values_list("external_id", "remark")) == [
        ("c-1", "changed since: points"),
        ("c-2", "changed since: plan, points"),
        ("c-4", "there is no such person any more"),
    ]


def test_it_goes_back_to_before_the_first_row_of_somebody(
    brand: Brand, table: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_files, "CHUNK_ROWS", 1)
    take(brand, table("customer_id,plan\nc-1,silver\n"))
    job = take(brand, table("customer_id,plan,points\nc-1,gold,\nc-1,black,7\nc-2,a,\nc-2,b,1\n"))
    undone(job, profile_imports.do)
    assert known(brand) == {"c-1": {"plan": "silver"}}


def test_it_goes_on_undoing_where_a_killed_worker_was(
    brand: Brand, table: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undoing, "CHUNK_ROWS", 1)
    job = take(brand, table(PEOPLE))
    queued = undoing.undo(job, by=None, now=now())
    assert queued is not None
    first = filejobs.claim(ProfileImport, now=now())
    assert first is not None
    next(undoing.take(first, profile_imports.put_back))
    assert len(known(brand)) == 1

    again = filejobs.claim(ProfileImport, now=now() + 2 * filejobs.LEASE)
    assert again is not None
    filejobs.execute(again, profile_imports.do, stop=threading.Event())

    queued.refresh_from_db()
    assert (queued.state, queued.counts) == (ImportState.DONE, {"removed": 2})
    assert known(brand) == {}


def test_it_takes_up_an_undoing_that_was_stopped(
    brand: Brand, table: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undoing, "CHUNK_ROWS", 1)
    job = take(brand, table(PEOPLE))
    undoing.undo(job, by=None, now=now())
    first = filejobs.claim(ProfileImport, now=now())
    assert first is not None
    next(undoing.take(first, profile_imports.put_back))
    assert filejobs.cancel(first, now=now())
    assert undone(job, profile_imports.do).counts == {"removed": 2}
    assert known(brand) == {}


def test_it_forgets_what_can_no_longer_be_undone(
    brand: Brand, table: Callable[..., Path], settings: Any
) -> None:
    job = take(brand, table(PEOPLE))
    soon = now() + timedelta(days=settings.IMPORT_UNDO_DAYS - 1)
    late = now() + timedelta(days=settings.IMPORT_UNDO_DAYS + 1)
    undoing.forget(ProfileImport, now=soon)
    assert undoing.until(job, now=soon) is not None
    assert undoing.until(job, now=late) is None
    undoing.forget(ProfileImport, now=late)
    assert not job.changes.exists()


def test_it_undoes_on_the_page_of_the_import(brand: Brand, table: Callable[..., Path]) -> None:
    job = take(brand, table(PEOPLE))
    assert_undone_on_its_page(job, PAGES, "It changed 2 people.")


persons = st.sampled_from(["a", "b", "c"])


bags = st.dictionaries(
    st.sampled_from(["plan", "points"]), st.sampled_from([1, 2, True, "x", None]), max_size=2
)


batches = st.lists(st.tuples(persons, bags), max_size=6)


@given(before=batches, imported=batches, since=batches)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_undoes_as_if_the_import_had_never_been(
    brand: Brand,
    before: list[tuple[str, dict[str, Any]]],
    imported: list[tuple[str, dict[str, Any]]],
    since: list[tuple[str, dict[str, Any]]],
) -> None:
    """The oracle: the other changes alone, without the import."""
    of = {"before": make_brand(), "all": make_brand()}
    changes: list[profiles.Change] = []

    def write(to: str, batch: list[tuple[str, dict[str, Any]]], at: int, **more: Any) -> None:
        items = [ProfileIn(key, bag) for key, bag in batch]
        instant = datetime(2026, 1, 5, 12, 0, at, tzinfo=UTC)
        profiles.upsert(of[to].pk, items, source=f"s{at}", now=instant, **more)

    for to in of:
        write(to, before, 1)
    write("all", imported, 2, keep=changes.extend)
    for to in of:
        write(to, since, 3)
    profiles.take_back(of["all"].pk, changes, now=now())

    # Taken away by both the import and somebody later: nobody can tell whose it was.
    unclear = {
        (one.external_id, name)
        for one in changes
        for name, wrote in one.after.items()
        if wrote is None
    }

    def clear(brand: Brand) -> dict[str, Any]:
        return {
            key: told
            for key, (bag, facts) in states(brand).items()
            if (
                told := {
                    name: (value, facts[name])
                    for name, value in bag.items()
                    if (key, name) not in unclear
                }
            )
        }

    assert clear(of["all"]) == clear(of["before"])

"""What a CRM's columns mean, and how a cell becomes a value."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.columns import (
    Column,
    Kind,
    ProfilePlan,
    attribute_of,
    attributes_of,
    guess,
    instant_of,
    kind_of,
)

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2.5", "-3", ""], Kind.NUMBER),
        (["007", "12"], Kind.TEXT),  # an id keeps its zeros
        (["+358401234567"], Kind.TEXT),
        (["12345678901234567890"], Kind.TEXT),
        (["1,5"], Kind.TEXT),  # one and a half, or fifteen?
        (["yes", "No", "TRUE"], Kind.YES_NO),
        (["0", "1"], Kind.NUMBER),
        (["2026-01-31", "2026-01-31T10:00:00Z"], Kind.DATE),
        (["31.01.2026"], Kind.TEXT),
        (["", None], Kind.TEXT),
        ([1, 2.5], Kind.AS_IS),
    ],
)
def test_it_guesses_only_what_is_sure(cells: list[Any], kind: Kind) -> None:
    assert kind_of(cells) is kind


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        (Kind.TEXT, 7.0, "7"),
        (Kind.TEXT, "  007 ", "007"),
        (Kind.NUMBER, "1 234,5", 1234.5),
        (Kind.NUMBER, "1,234,567", 1234567),
        (Kind.NUMBER, "1,234.5", 1234.5),
        (Kind.NUMBER, "12.0", 12),
        (Kind.NUMBER, 3, 3),
        (Kind.YES_NO, "oui", True),
        (Kind.YES_NO, "0", False),
        (Kind.YES_NO, True, True),
        (Kind.DATE, date(2026, 1, 31), "2026-01-31"),
        (Kind.DATE_DMY, "31.01.2026", "2026-01-31"),
        (Kind.DATE_MDY, "01/31/2026", "2026-01-31"),
        (Kind.LIST, "gold; vip", ["gold", "vip"]),
        (Kind.LIST, ["a"], ["a"]),
        (Kind.AS_IS, {"a": 1}, {"a": 1}),
        (Kind.AS_IS, 7.0, 7),
    ],
)
def test_it_reads_a_cell_as_what_it_was_said_to_be(kind: Kind, cell: Any, value: Any) -> None:
    found = attributes_of({"x": cell}, plan(kind))["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "cell", "why"),
    [
        (Kind.NUMBER, "1,234", "may mean 1.234 or 1234"),
        (Kind.NUMBER, "many", "is not a number"),
        (Kind.YES_NO, "maybe", "neither yes nor no"),
        (Kind.DATE, "soon", "is no date"),
        (Kind.DATE_DMY, "01/31/2026", "is no date"),
        (Kind.TEXT, "x" * 5_000, "longer than"),
    ],
)
def test_it_says_which_cell_cannot_be_read(kind: Kind, cell: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"x: .*{why}"):
        attributes_of({"x": cell}, plan(kind))


def test_it_takes_an_empty_cell_for_silence_or_for_taking_away() -> None:
    assert attributes_of({"x": ""}, plan(Kind.TEXT)) == {}
    assert attributes_of({"x": None}, plan(Kind.TEXT, empty_clears=True)) == {"a": None}
    assert attributes_of({"x": 1}, plan(Kind.SKIP, empty_clears=True)) == {}


def test_it_guesses_the_id_and_names_for_the_rest() -> None:
    found = guess(
        ["Customer ID", "Loyalty tier", "Updated at"],
        [{"Customer ID": "c-1", "Loyalty tier": "gold", "Updated at": "2026-01-01"}],
    )
    assert (found.external_id, found.as_of) == ("Customer ID", "Updated at")
    assert found.columns == {"Loyalty tier": Column(attribute="loyalty_tier", kind=Kind.TEXT)}
    assert ProfilePlan.from_json(found.to_json()) == found


@given(st.text())
def test_it_makes_a_name_of_any_heading(heading: str) -> None:
    from devices.attributes import NAME

    assert NAME.fullmatch(attribute_of(heading))


def test_it_knows_no_time_to_come() -> None:
    assert instant_of("2026-05-01", not_after=NOON) == datetime(2026, 5, 1, tzinfo=UTC)
    for cell, why in (("2026-05-02", "future"), ("May", "no time")):
        with pytest.raises(ValueError, match=why):
            instant_of(cell, not_after=NOON)


def plan(kind: Kind, *, empty_clears: bool = False) -> ProfilePlan:
    columns = {"x": Column(attribute="a", kind=kind)}
    return ProfilePlan(external_id="id", columns=columns, empty_clears=empty_clears)

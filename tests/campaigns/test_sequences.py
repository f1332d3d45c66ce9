"""Sequences: tables for what they mean, and a slow, obvious reading of the same words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.sequences import (
    Completion,
    Fired,
    Item,
    Pattern,
    Step,
    called_off,
    completions,
    fresh,
    nearest,
    ordered,
)
from tests.campaigns.values import HELSINKI, NOON_MS

A, B, C = (Step(name=name, is_event=True) for name in "abc")


def an_item(name: str, at: int, number: int | None = None, **fields: Any) -> Item:
    """An event at `at` seconds after noon."""
    values: dict[str, Any] = {"device_id": 1, "kind": "event"}
    return Item(
        at_ms=NOON_MS + at * 1000,
        id=at if number is None else number,
        name=name,
        **values | fields,
    )


def line(text: str, **fields: Any) -> list[Item]:
    """`a.b` → an event a at 0 s and b at 2 s."""
    return [an_item(name, at, **fields) for at, name in enumerate(text) if name != "."]


def seconds(found: Sequence[Completion]) -> list[int]:
    return [(one.last.at_ms - NOON_MS) // 1000 for one in found]


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        # A then B, within a time
        ({"steps": (A, B)}, "ab", [1]),
        ({"steps": (A, B)}, "ba", []),
        ({"steps": (A, B)}, "abb", [1]),  # one A serves one B
        ({"steps": (A, B)}, "aabb", [2]),  # what lies before a completion is behind it
        ({"steps": (A, B)}, "abab", [1, 3]),
        ({"steps": (A, B), "within_ms": 2_000}, "a..b", []),
        ({"steps": (A, B), "within_ms": 3_000}, "a..b", [3]),
        ({"steps": (A, B), "within_ms": 1_000}, "a..ab", [4]),  # the latest A counts
        ({"steps": (A, B, C)}, "abc", [2]),
        ({"steps": (A, B, C)}, "acb", []),
        # k times
        ({"steps": (A, A, A)}, "aaaa", [2]),
        ({"steps": (A, A, A)}, "aaaaaa", [2, 5]),
        ({"steps": (A, A), "within_ms": 1_000}, "a.aa", [3]),
        # the n-th, every n-th
        ({"steps": (A,), "nth": 3}, "aaaaaa", [2]),
        ({"steps": (A,), "nth": 3, "every": True}, "aaaaaaa", [2, 5]),
        ({"steps": (A, B), "nth": 2}, "ababab", [3]),
        # first after an absence
        ({"steps": (A,), "absent_ms": 3_000}, "aa.a...aa", [7]),
        ({"steps": (A,), "absent_ms": 3_000}, "....a", []),  # never here before: not back
    ],
)
def test_it_means_what_it_says(pattern: dict[str, Any], text: str, expected: list[int]) -> None:
    assert seconds(completions(Pattern(**pattern), line(text), HELSINKI)) == expected


@pytest.mark.parametrize(
    ("policy", "fired", "expected", "kept_back"),
    [
        ({}, [], [0, 2, 4], []),
        ({}, [0], [2, 4], []),
        ({"once": True}, [], [0], [2, 4]),
        ({"once": True}, [2], [], [0, 4]),
        ({"again_after_ms": 3_000}, [], [0, 4], [2]),
        ({"again_after_ms": 3_000}, [2], [], [0, 4]),
        ({"nth": 2}, [], [2], []),
        ({"nth": 2}, [0], [], [2]),  # what came late made another the second: it fired already
    ],
)
def test_it_starts_again_as_it_is_told(
    policy: dict[str, Any], fired: list[int], expected: list[int], kept_back: list[int]
) -> None:
    pattern = Pattern(steps=(A,), **policy)
    before = [Fired("event", at, "", NOON_MS + at * 1000) for at in fired]
    new, rests = fresh(pattern, line("a.a.a"), before, HELSINKI)
    assert (seconds(new), seconds(rests)) == (expected, kept_back)


def test_what_was_called_off_does_not_count_as_fired() -> None:
    before = [Fired("event", 0, "", NOON_MS, called_off=True)]
    new, _ = fresh(Pattern(steps=(A,), once=True), line("a.a"), before, HELSINKI)
    assert seconds(new) == [2]


@pytest.mark.parametrize(
    ("text", "by"),
    [("a", [None]), ("a.b", [2]), ("a..b", [3]), ("a...b", [None]), ("b", []), ("ab", [1])],
)
def test_something_may_call_it_off(text: str, by: list[int | None]) -> None:
    pattern = Pattern(steps=(A,), unless=B, for_ms=3_000)
    items = line(text)
    found = [
        called_off(pattern, one, items, HELSINKI) for one in completions(pattern, items, HELSINKI)
    ]
    told = [None if one is None else (one.at_ms - NOON_MS) // 1000 for one in found]
    assert told == by


def test_a_key_keeps_stories_apart() -> None:
    items = [
        an_item("a", 0, properties={"order": 1}),
        an_item("a", 1, properties={"order": 2}),
        an_item("b", 2, properties={"order": 2}),
        an_item("b", 3, properties={"order": 1}),
        an_item("b", 4, properties={}),
    ]
    found = completions(Pattern(steps=(A, B), key="order"), items, HELSINKI)
    assert [(one.key, seconds([one])[0]) for one in found] == [("2", 2), ("1", 3)]


def test_steps_look_at_places_days_and_properties() -> None:
    shop = Step(name="entered", tags=frozenset({"shop"}), geofences=frozenset({7, "x"}))
    at: dict[str, Any] = {"kind": "transition", "name": "entered", "at": 0}
    assert shop.matches(an_item(**at, tags=["shop"]), HELSINKI)
    assert shop.matches(an_item(**at, geofence_id=7), HELSINKI)
    assert shop.matches(an_item(**at, external_id="x"), HELSINKI)
    assert not shop.matches(an_item(**at, geofence_id=8), HELSINKI)
    assert not shop.matches(an_item("exited", 0, kind="transition", geofence_id=7), HELSINKI)
    assert not shop.matches(an_item("entered", 0), HELSINKI)  # an event of the same name
    dwell = Step(name="dwelled", geofences=frozenset({7}), dwell_s=60)
    there: dict[str, Any] = {"kind": "transition", "geofence_id": 7}
    assert dwell.matches(an_item("dwelled", 0, dwell_s=60, **there), HELSINKI)
    assert not dwell.matches(an_item("dwelled", 0, dwell_s=30, **there), HELSINKI)
    wednesday = Step(name="a", is_event=True, days=frozenset({2}))
    assert wednesday.matches(an_item("a", 0), HELSINKI)
    assert not wednesday.matches(an_item("a", 12 * 3600), HELSINKI)  # midnight in Helsinki
    shoes = Step(name="a", is_event=True, where=(("what", "shoes"), ("n", 1)))
    assert shoes.matches(an_item("a", 0, properties={"what": "shoes", "n": 1}), HELSINKI)
    assert not shoes.matches(an_item("a", 0, properties={"what": "shoes", "n": True}), HELSINKI)


@pytest.mark.parametrize(
    ("text", "matched", "lacks", "late_by_s"),
    [("c", 1, "b", None), ("bc", 2, "a", None), ("ab....c", 3, "", 3), ("abc", 3, "", None)],
)
def test_it_says_how_far_somebody_came(
    text: str, matched: int, lacks: str, late_by_s: int | None
) -> None:
    items = line(text)
    near = nearest(Pattern(steps=(A, B, C), within_ms=3_000), items, items[-1], HELSINKI)
    assert (near.matched, near.of, near.lacks, near.late_by_s) == (matched, 3, lacks, late_by_s)


def test_leaving_comes_before_coming_at_one_instant() -> None:
    items = [
        an_item("entered", 0, 1, kind="transition"),
        an_item("exited", 0, 2, kind="transition"),
    ]
    assert [item.name for item in ordered(items)] == ["exited", "entered"]


steps = st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=3).map(tuple)
patterns = st.builds(
    Pattern,
    steps=steps,
    within_ms=st.none() | st.integers(0, 8).map(lambda s: s * 1000),
    nth=st.integers(1, 3),
    every=st.booleans(),
    absent_ms=st.none() | st.integers(1, 5).map(lambda s: s * 1000),
)
stories = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 20)), max_size=9, unique_by=lambda x: x[1]
).map(lambda told: [an_item(name, at) for name, at in told])


def oracle(pattern: Pattern, items: list[Item]) -> list[int]:
    """Every choice of things for the steps is tried; of those that fit, the first to end wins."""
    told = sorted(items, key=lambda item: item.at_ms)
    found: list[int] = []
    begin = 0
    for end, last in enumerate(told):
        if last.name != pattern.steps[-1].name:
            continue
        earlier = [one.at_ms for one in told[:end] if one.name == last.name]
        if pattern.absent_ms is not None and (
            not earlier or last.at_ms - max(earlier) < pattern.absent_ms
        ):
            continue
        fits = any(
            [one.name for one in chosen] + [last.name] == [step.name for step in pattern.steps]
            and (
                pattern.within_ms is None
                or last.at_ms - (*chosen, last)[0].at_ms <= pattern.within_ms
            )
            for chosen in combinations(told[begin:end], len(pattern.steps) - 1)
        )
        if fits:
            found.append(last.id)
            begin = end + 1
    if pattern.every:
        return [one for number, one in enumerate(found, 1) if number % pattern.nth == 0]
    return found if pattern.nth == 1 else found[pattern.nth - 1 : pattern.nth]


@settings(max_examples=400)
@given(patterns, stories)
def test_it_agrees_with_trying_every_choice(pattern: Pattern, items: list[Item]) -> None:
    found = completions(pattern, items, HELSINKI)
    assert [one.last.id for one in found] == oracle(pattern, items)


@settings(max_examples=200)
@given(patterns, stories, st.data())
def test_the_order_of_telling_and_repeats_change_nothing(
    pattern: Pattern, items: list[Item], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(items + items[:3]))
    assert completions(pattern, shuffled, HELSINKI) == completions(pattern, items, HELSINKI)


@settings(max_examples=200)
@given(patterns, stories)
def test_told_one_by_one_it_fires_the_same_and_each_once(
    pattern: Pattern, items: list[Item]
) -> None:
    fired: list[Fired] = []
    told: list[Item] = []
    for item in sorted(items, key=lambda one: one.at_ms):
        told.append(item)
        new, _ = fresh(pattern, told, fired, HELSINKI)
        fired += [Fired(one.last.kind, one.last.id, one.key, one.last.at_ms) for one in new]
    assert [one.id for one in fired] == oracle(pattern, items)


def test_noon_is_noon() -> None:
    assert datetime.fromtimestamp(NOON_MS / 1000, UTC).hour == 9

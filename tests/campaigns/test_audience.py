"""Condition trees: what they mean, and what is said of the ones that mean nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.audience import bucket_of, compile_tree
from campaigns.behaviour import Measure, Need, PastEvent, PastVisit, measure
from campaigns.conditions import (
    _LEAF_KEYS,
    AudienceError,
    Op,
    problems,
    segments_in,
    version_key,
)
from tests.campaigns.values import NOON_MS, a_subject

PREPAID = {"attribute": "plan", "value": "prepaid"}
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("tree", "subject", "expected"),
    [
        ({}, {}, True),
        (PREPAID, {"attributes": {"plan": "prepaid"}}, True),
        (PREPAID, {"attributes": {"plan": "postpaid"}}, False),
        (PREPAID, {}, False),
        ({"not": PREPAID}, {}, True),
        ({"all": []}, {}, True),
        ({"all": [PREPAID, {"platform": "ios"}]}, {"attributes": {"plan": "prepaid"}}, False),
        ({"any": [PREPAID, {"platform": "android"}]}, {}, True),
        ({"platform": ["ios", "android"]}, {}, True),
        ({"locale": "fi"}, {}, True),  # fi-FI
        ({"locale": "fi-fi"}, {"locale": "fi_FI"}, True),
        ({"locale": "sv"}, {}, False),
        ({"locale": "fi", "op": "ne"}, {}, False),
        ({"timezone": "Europe/Helsinki"}, {}, True),
        ({"external_id": ["a", "b"]}, {"external_id": "b"}, True),
        ({"external_id": "a"}, {}, False),
        ({"app_version": "2.10", "op": "lt"}, {}, True),  # as numbers, not as text
        ({"app_version": "2.3"}, {}, True),
        ({"app_version": "2.3", "op": "gt"}, {"app_version": ""}, False),
        ({"app_version": "1", "op": "gte"}, {"app_version": "v3.1-beta"}, True),
        ({"consent": "marketing"}, {"consent_marketing": False}, False),
        ({"attribute": "n", "op": "gte", "value": 3}, {"attributes": {"n": 3}}, True),
        ({"attribute": "n", "op": "lt", "value": 3}, {"attributes": {"n": "2"}}, False),
        ({"attribute": "n", "op": "gt", "value": 0}, {"attributes": {"n": True}}, False),
        ({"attribute": "n", "value": 1}, {"attributes": {"n": True}}, False),
        ({"attribute": "n", "value": 1}, {"attributes": {"n": 1.0}}, True),
        ({"attribute": "n", "op": "ne", "value": 1}, {}, True),
        ({"attribute": "n", "op": "in", "value": [1, 2]}, {"attributes": {"n": 2}}, True),
        ({"attribute": "n", "op": "not_in", "value": [1, 2]}, {}, True),
        ({"attribute": "t", "op": "contains", "value": "a"}, {"attributes": {"t": ["a"]}}, True),
        ({"attribute": "t", "op": "contains", "value": "a"}, {"attributes": {"t": "cat"}}, True),
        ({"attribute": "t", "op": "contains", "value": "a"}, {"attributes": {"t": 3}}, False),
        ({"attribute": "t", "op": "starts_with", "value": "c"}, {"attributes": {"t": "cat"}}, True),
        ({"attribute": "t", "op": "exists"}, {"attributes": {"t": False}}, True),
        ({"attribute": "t", "op": "missing"}, {}, True),
        ({"attribute": "d", "op": "lt", "value": "2026-2"}, {"attributes": {"d": "2026-1"}}, True),
    ],
)  # fmt: skip
def test_it_means_what_it_says(tree: Any, subject: dict[str, Any], expected: bool) -> None:
    assert (compile_tree(tree).miss(a_subject(**subject)) is None) is expected


@pytest.mark.parametrize(
    ("guard", "fact", "expected"),
    [
        ({"max_age_s": 3600}, {"at_ms": NOON_MS - HOUR_MS}, True),
        ({"max_age_s": 3599}, {"at_ms": NOON_MS - HOUR_MS}, False),
        ({"max_age_s": 3600}, {}, False),  # of unknown age
        ({"source": "crm"}, {"source": "crm"}, True),
        ({"source": "crm"}, {"source": "app"}, False),
    ],
)
def test_it_looks_at_source_and_freshness(
    guard: dict[str, Any], fact: dict[str, Any], expected: bool
) -> None:
    subject = a_subject(attributes={"plan": "prepaid"}, facts={"plan": fact})
    assert (compile_tree(PREPAID | guard).miss(subject) is None) is expected


def test_it_names_the_first_leaf_that_fails_and_what_it_saw() -> None:
    audience = compile_tree({"all": [{"platform": "android"}, {"any": [PREPAID]}]})
    miss = audience.miss(a_subject(attributes={"plan": "gold"}))
    assert miss is not None
    assert (audience.leaves[miss.leaf].path, miss.seen) == ("audience.all[1].any[0]", "gold")


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ([], "audience"),
        ({"all": {}}, "audience.all"),
        ({"any": []}, "audience.any"),
        ({"all": [{"not": 3}]}, "audience.all[0].not"),
        ({"all": [], "any": [PREPAID]}, "audience"),
        ({"colour": "red"}, "audience"),
        ({"attribute": "plan"}, "audience.value"),
        ({"attribute": "", "value": 1}, "audience.attribute"),
        ({"attribute": "plan", "op": "like", "value": 1}, "audience.op"),
        ({"attribute": "plan", "op": "in", "value": "x"}, "audience.value"),
        ({"attribute": "plan", "op": "gt", "value": None}, "audience.value"),
        ({"attribute": "plan", "op": "exists", "value": 1}, "audience.value"),
        ({"attribute": "plan", "value": {"a": 1}}, "audience.value"),
        ({"attribute": "plan", "value": 1, "vaule": 2}, "audience.vaule"),
        ({"attribute": "plan", "value": 1, "max_age_s": 0}, "audience.max_age_s"),
        ({"platform": "symbian"}, "audience.platform"),
        ({"locale": []}, "audience.locale"),
        ({"app_version": "new"}, "audience.app_version"),
        ({"consent": "cookies"}, "audience.consent"),
        ({"segment": "unknown"}, "audience.segment"),
        ({"bucket": [50, 20]}, "audience.bucket"),
        ({"bucket": [0, 5], "of": 1}, "audience.of"),
        ({"event": "buy", "value": "3"}, "audience.value"),
        ({"event": "buy", "measure": "sum", "value": 3}, "audience.property"),
        ({"event": "buy", "measure": "dwell_s", "value": 3}, "audience.measure"),
        ({"visits": {}, "value": 1}, "audience.visits"),
        ({"visits": {"tags": "shop"}, "value": 1}, "audience.visits.tags"),
        ({"attribute": "plan", "op": ["eq"], "value": 1}, "audience.op"),
        ({"platform": "ios", "op": {}}, "audience.op"),
        ({"app_version": "2", "op": []}, "audience.op"),
        ({"consent": ["marketing"]}, "audience.consent"),
        ({"event": "buy", "measure": {}, "value": 3}, "audience.measure"),
        ({"area": []}, "audience.area"),
        ({"event": "buy", "property": [], "value": 3}, "audience.property"),
        ({"visits": {"geofences": [True]}, "value": 1}, "audience.visits.geofences"),
        ({"visits": {"geofences": [2**63]}, "value": 1}, "audience.visits.geofences"),
    ],
)
def test_it_says_where_a_tree_is_wrong(tree: Any, path: str) -> None:
    assert path in [problem.path for problem in problems(tree)]
    with pytest.raises(AudienceError):
        compile_tree(tree)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["tags", "geofences", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)
SAID = ANY_JSON | st.sampled_from([*map(str, Op), "here", "home", "count", "sum", "2.3"])
LEAVES = st.sampled_from([*_LEAF_KEYS]).flatmap(
    lambda kind: st.fixed_dictionaries(
        {kind: SAID}, optional=dict.fromkeys(sorted(_LEAF_KEYS[kind]), SAID)
    )
)


@given(LEAVES)
def test_it_compiles_or_says_what_is_wrong_with_any_leaf(leaf: dict[str, Any]) -> None:
    if not problems(leaf):
        compile_tree(leaf)


def test_it_refuses_a_tree_that_is_too_deep_or_too_large() -> None:
    deep: dict[str, Any] = PREPAID
    for _ in range(20):
        deep = {"not": deep}
    assert problems(deep)
    assert problems({"all": [PREPAID] * 201})


def test_it_uses_segments_by_name_and_nested() -> None:
    segments = {"gold": {"attribute": "tier", "value": "gold"}, "vip": {"segment": "gold"}}
    audience = compile_tree({"not": {"segment": "vip"}}, segments=segments)
    assert audience.miss(a_subject(attributes={"tier": "gold"})) is not None
    assert audience.miss(a_subject()) is None
    assert segments_in({"all": [{"segment": "a"}, {"not": {"segment": "b"}}]}) == {"a", "b"}


def test_it_refuses_segments_that_go_in_a_circle() -> None:
    segments: dict[str, Any] = {"a": {"not": {"segment": "b"}}, "b": {"segment": "a"}}
    with pytest.raises(AudienceError, match="a → b → a"):
        compile_tree({"segment": "a"}, segments=segments)


@given(st.text(max_size=20), st.text(max_size=8), st.integers(2, 100))
def test_it_gives_everybody_one_bucket(person: str, salt: str, of: int) -> None:
    buckets = [{"bucket": [low, low + 1], "of": of, "salt": salt} for low in range(of)]
    subject = a_subject(person=person)
    inside = [tree for tree in buckets if compile_tree(tree).miss(subject) is None]
    assert len(inside) == 1


def test_its_buckets_are_about_equal_and_differ_by_salt() -> None:
    people = [f"person {number}" for number in range(10_000)]
    half = [one for one in people if bucket_of(one, salt="a", of=100) < 50]
    assert 4_800 < len(half) < 5_200
    both = [one for one in half if bucket_of(one, salt="b", of=100) < 50]
    assert 2_350 < len(both) < 2_650


@pytest.mark.parametrize(
    ("version", "key"),
    [("2.3.1", (2, 3, 1)), ("2.3.0", (2, 3)), ("v10", (10,)), ("1.2-rc1", (1, 2)), ("", ())],
)
def test_it_reads_versions_as_numbers(version: str, key: tuple[int, ...]) -> None:
    assert version_key(version) == key


PURCHASES = [
    PastEvent("purchase", NOON_MS - 3 * HOUR_MS, {"amount": 10, "what": "shoes"}),
    PastEvent("purchase", NOON_MS - HOUR_MS, {"amount": 5.5, "what": "socks"}),
    PastEvent("purchase", NOON_MS, {"amount": "a lot", "what": "socks"}),
    PastEvent("opened", NOON_MS, {}),
    PastEvent("purchase", NOON_MS + 1, {"amount": 100}),  # later than now
]
VISITS = [
    PastVisit(5, "shop-5", ["shop"], NOON_MS - 50 * HOUR_MS, NOON_MS - 48 * HOUR_MS),
    PastVisit(6, None, ["shop", "food"], NOON_MS - 3 * HOUR_MS, NOON_MS - 2 * HOUR_MS),
    PastVisit(5, "shop-5", ["shop"], NOON_MS - HOUR_MS, None),
]


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        ({"name": "purchase"}, 3),
        ({"name": "purchase", "within_s": 3600}, 1),  # one was exactly an hour ago
        ({"name": "purchase", "within_s": 3601}, 2),
        ({"name": "purchase", "where": (("what", "socks"),)}, 2),
        ({"name": "purchase", "measure": Measure.SUM, "property": "amount"}, 15.5),
        ({"name": "purchase", "measure": Measure.RECENCY_S}, 0),
        ({"name": "refund", "measure": Measure.RECENCY_S}, None),
        ({"kind": "visits", "tags": ("shop",)}, 3),
        ({"kind": "visits", "geofences": (5,)}, 2),
        ({"kind": "visits", "geofences": ("shop-5",), "within_s": 7200}, 1),
        ({"kind": "visits", "tags": ("food",), "measure": Measure.RECENCY_S}, 3 * 3600),
        ({"kind": "visits", "tags": ("shop",), "measure": Measure.DWELL_S}, 4 * 3600),
        (
            {"kind": "visits", "tags": ("shop",), "measure": Measure.DWELL_S, "within_s": 9000},
            3600 + 1800,
        ),
    ],
)
def test_it_measures_the_past(need: dict[str, Any], expected: float | None) -> None:
    wanted = Need(**{"kind": "event"} | need)
    assert measure(wanted, PURCHASES, VISITS, now_ms=NOON_MS) == expected


@pytest.mark.parametrize(
    ("leaf", "seen", "expected"),
    [
        ({"event": "purchase", "value": 2}, 2, True),  # at least, where no operator is given
        ({"event": "purchase", "value": 2}, None, False),
        ({"event": "purchase", "op": "eq", "value": 0}, 0, True),
        ({"event": "purchase", "measure": "recency_s", "op": "lt", "value": 60}, 59, True),
        ({"event": "purchase", "measure": "recency_s", "op": "lt", "value": 60}, None, False),
        ({"event": "purchase", "measure": "recency_s", "op": "missing"}, None, True),
        ({"visits": {"tags": ["shop"]}, "op": "lt", "value": 1}, 0, True),
    ],
)
def test_it_compares_what_was_measured(
    leaf: dict[str, Any], seen: float | None, expected: bool
) -> None:
    audience = compile_tree(leaf)
    (need,) = audience.needs
    assert (audience.miss(a_subject(measures={need: seen})) is None) is expected

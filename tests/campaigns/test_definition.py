"""Definitions: what is read, what is refused and where, what is missing."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns import hours
from campaigns.caps import Period
from campaigns.definition import DefinitionError, decode, encode, weekday
from campaigns.lacks import missing
from campaigns.meaning import dayparts_of, quiet_of
from campaigns.sentences import sentence, span

NOW = datetime(2026, 6, 10, 9, tzinfo=UTC)
FULL: dict[str, Any] = {
    "trigger": {"on": "dwelled", "geofences": ["shop-1", 7], "tags": ["food"], "dwell_s": 600},
    "starts_at": "2026-06-01T00:00:00Z",
    "ends_at": "2026-07-01T00:00:00+03:00",
    "dayparts": [{"days": ["mon", "Tuesday", 3], "from": "08:00", "to": "18:00"}],
    "outside_dayparts": "hold",
    "quiet_hours": "hold",
    "audience": {"all": [{"attribute": "plan", "value": "prepaid"}, {"platform": "ios"}]},
    "caps": [
        {"limit": 1, "window_s": 86400},
        {"limit": 3, "per": "week", "scope": "person"},
        {"limit": 1, "window_s": 86400, "scope": "tag", "tag": "food"},
    ],
    "priority": 5,
    "group": "food",
    "content": {
        "title": "Lunch",
        "body": "At {{ place.name }}",
        "deep_link": "app://lunch",
        "data": {"k": "v"},
        "push": {"urgency": "normal"},
        "locales": {"fr": {"title": "Déjeuner"}},
    },
    "expires_after_s": 1800,
    "only_while_inside": True,
    "initial_state": "fire",
    "transactional": False,
}


def test_it_reads_what_it_wrote() -> None:
    definition = decode(FULL)
    assert decode(encode(definition)) == definition
    assert encode(decode({})) == {}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"tigger": {}}, "tigger"),
        ({"trigger": {"on": "teleported"}}, "trigger.on"),
        ({"trigger": {"on": "entered", "geofence": 3}}, "trigger"),
        ({"trigger": {"on": "entered", "geofences": [True]}}, "trigger.geofences[0]"),
        ({"trigger": {"on": "dwelled", "dwell_s": 0}}, "trigger.dwell_s"),
        ({"trigger": []}, "trigger"),
        ({"starts_at": "soon"}, "starts_at"),
        ({"dayparts": [{"days": ["noday"]}]}, "dayparts[0].days"),
        ({"dayparts": [{"from": "25:00"}]}, "dayparts[0].from"),
        ({"dayparts": [{"from": "08:00", "to": "08:00"}]}, "dayparts[0]"),
        ({"caps": [{"limit": -1}]}, "caps[0].limit"),
        ({"caps": [{"limit": 1, "scope": "planet"}]}, "caps[0].scope"),
        ({"caps": [{"limit": 1, "window_s": 60, "per": "day"}]}, "caps[0]"),
        ({"caps": [{"limit": 1, "scope": "tag"}]}, "caps[0].tag"),
        ({"priority": "high"}, "priority"),
        ({"audience": {"all": [{"colour": 1}]}}, "audience.all[0]"),
        ({"content": {"title": 3}}, "content.title"),
        ({"content": {"push": {"loud": True}}}, "content.push"),
        ({"expires_after_s": 0}, "expires_after_s"),
        ({"initial_state": "maybe"}, "initial_state"),
    ],
)
def test_it_names_the_field_at_fault(change: dict[str, Any], path: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        decode(FULL | change)
    assert list(caught.value.fields) == [path]


def test_it_names_every_field_at_fault_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        decode({"priority": "x", "caps": 3, "ends_at": [], "audience": {"any": []}})
    assert set(caught.value.fields) == {"priority", "caps", "ends_at", "audience.any"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*FULL, "on", "all", "not"]), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_whatever_is_sent_is_read_or_refused(body: Any) -> None:
    for raw in (body, dict.fromkeys(FULL, body)):
        if isinstance(raw, dict):
            with suppress(DefinitionError):
                decode(raw)


@pytest.mark.parametrize(
    "value",
    ["2026-06-10T09:00:00Z", "2026-06-10T12:00:00+03:00", "2026-06-10T09:00", 1_781_082_000_000],
)
def test_it_reads_instants_in_every_form_of_the_contract(value: Any) -> None:
    assert decode({"starts_at": value}).starts_at == NOW


def test_null_takes_a_field_away() -> None:
    assert decode({"ends_at": None, "caps": None}) == decode({})


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({}, []),
        ({"trigger": None}, [("trigger", "missing"), ("only_while_inside", "needs_a_place")]),
        ({"trigger": {"on": "entered"}}, [("trigger.geofences", "missing")]),
        (
            {"trigger": {"on": "event"}},
            [("trigger.event", "missing"), ("only_while_inside", "needs_a_place")],
        ),
        ({"content": None}, [("content", "missing")]),
        ({"content": {"title": " ", "body": "b"}}, [("content.title", "missing")]),
        ({"ends_at": "2026-06-10T09:00:00Z"}, [("ends_at", "in_the_past")]),
        ({"starts_at": "2026-08-01T00:00:00Z"}, [("ends_at", "before_start")]),
        (
            {"trigger": {"on": "exited", "tags": ["a"]}},
            [("only_while_inside", "contradiction")],
        ),
    ],
)
def test_it_says_what_is_missing(change: dict[str, Any], lacks: list[tuple[str, str]]) -> None:
    found = missing(decode(FULL | change), now=NOW)
    assert [(one.field, one.code) for one in found] == lacks


@pytest.mark.parametrize(
    ("day", "number"),
    [("mon", 0), ("Sunday", 6), (1, 0), (7, 6), (0, None), (8, None), ("m", None)],
)
def test_it_knows_the_days(day: str | int, number: int | None) -> None:
    assert weekday(day) == number


def test_it_compiles_hours() -> None:
    (part,) = dayparts_of(decode(FULL).dayparts)
    assert part == hours.Daypart(frozenset({0, 1, 2}), 480, 1080)
    assert quiet_of({}) is None
    assert quiet_of({"from": "21:00", "to": "21:00"}) is None
    assert quiet_of({"from": "21:00", "to": "08:00"}) == hours.Daypart(hours.EVERY_DAY, 1260, 480)
    assert decode(FULL).caps[1].per is Period.WEEK


def test_it_reads_as_one_sentence() -> None:
    names: dict[int | str, str] = {7: "The Corner"}
    assert sentence(decode(FULL), names) == (
        "When a device has stayed in “shop-1”, “The Corner” or any place tagged “food” for 10"
        " minutes, from 01 June 2026 00:00 UTC until 01 July 2026 00:00 UTC+03:00, on Mon, Tue and"
        " Wed 08:00–18:00 on the device’s clock, if plan is prepaid and platform is ios, offer"
        " “Lunch” (also in fr), at most 1 per device in any 1 day, 3 per person per calendar week"
        " and 1 per person at places tagged “food” in any 1 day, good for 30 minutes, only while"
        " the device is still inside, devices already there count as arriving, kept back through"
        " quiet hours, with priority 5."
    )
    assert sentence(decode({})).startswith("When something happens that is still to be chosen")


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        ({"on": "exited", "tags": ["a"]}, "a device leaves any place tagged “a”"),
        ({"on": "event", "event": "buy", "where": {"n": 1}}, "“buy” is reported with n 1"),
        (
            {
                "on": "sequence",
                "steps": [
                    {"on": "entered", "tags": ["rival"], "times": 2},
                    {"on": "entered", "geofences": ["ours"], "days": [1, 2, 3, 4, 5]},
                ],
                "within_s": 1_209_600,
                "unless": {"on": "event", "event": "purchase"},
                "for_s": 86_400,
                "once": True,
            },
            (
                "a device enters any place tagged “rival” 2 times and then a device enters “ours”"
                " on weekdays, all within 2 weeks, unless “purchase” is reported in the next 1 day,"
                " once ever"
            ),
        ),
        (
            {"on": "sequence", "steps": [{"on": "dwelled", "tags": ["a"]}], "nth": 3},
            "a device has stayed in any place tagged “a” for its dwell time, for time 3",
        ),
    ],
)
def test_it_puts_a_trigger_in_words(trigger: dict[str, Any], words: str) -> None:
    assert sentence(decode({"trigger": trigger})).startswith(f"When {words}, make an offer")


@pytest.mark.parametrize(
    ("trigger", "field"),
    [
        ({"on": "sequence"}, "trigger.steps"),
        ({"on": "sequence", "steps": [{"on": "entered"}]}, "trigger.steps[0].geofences"),
        ({"on": "sequence", "steps": [{"on": "event"}]}, "trigger.steps[0].event"),
        ({"on": "sequence", "steps": [{"on": "sequence"}]}, "trigger.steps[0].on"),
        (
            {"on": "sequence", "steps": [{"on": "event", "event": "a"}], "for_s": 60},
            "trigger.unless",
        ),
    ],
)
def test_it_says_what_a_sequence_lacks(trigger: dict[str, Any], field: str) -> None:
    content = {"title": "t", "body": "b"}
    found = missing(decode({"trigger": trigger, "content": content}), now=NOW)
    assert [one.field for one in found] == [field]


@pytest.mark.parametrize(
    ("audience", "words"),
    [
        ({"not": {"segment": "vip"}}, "not (in the segment “vip”)"),
        (
            {
                "any": [
                    {"consent": "marketing"},
                    {"all": [{"locale": ["fr", "en"]}, {"app_version": "2", "op": "gte"}]},
                ]
            },
            "has agreed to marketing or (locale is fr or en and app version is at least 2)",
        ),
        ({"bucket": [0, 50]}, "in test group 0–50 of 100"),
        (
            {"event": "buy", "value": 2, "within_s": 86400},
            "the number of “buy” within 1 day is at least 2",
        ),
        (
            {"visits": {"tags": ["a"]}, "measure": "dwell_s", "op": "gt", "value": 60},
            "the time in seconds spent in “a” is over 60",
        ),
        (
            {"attribute": "x", "op": "missing", "source": "crm", "max_age_s": 60},
            "x is unknown says crm (at most 1 minute old)",
        ),
    ],
)
def test_it_puts_an_audience_in_words(audience: dict[str, Any], words: str) -> None:
    assert f"if {words}" in sentence(decode({"audience": audience}))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 second"), (90, "90 seconds"), (3600, "1 hour"), (1_209_600, "2 weeks")],
)
def test_it_says_spans(seconds: int, words: str) -> None:
    assert span(seconds) == words

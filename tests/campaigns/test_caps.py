"""Caps against the slow, obvious way of counting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.caps import Cap, CapScope, Counts, Period, check, key_of, reached
from tests.campaigns.values import HELSINKI, NOON_MS, an_offer

HOUR_MS = 3_600_000
QUARTER_MS = 900_000
DAY_MS = 24 * HOUR_MS


def a_cap(limit: int, window_ms: int | None = HOUR_MS, **fields: Any) -> Cap:
    values: dict[str, Any] = {"limit": limit, "scope": CapScope.DEVICE, "window_ms": window_ms}
    return Cap(**values | fields)


@pytest.mark.parametrize(
    ("limit", "times", "at", "next_at"),
    [
        (1, [], 0, "fits"),
        (1, [0], HOUR_MS - 1, HOUR_MS),
        (1, [0], HOUR_MS, "fits"),  # exactly a window apart
        (2, [0, 10], 20, HOUR_MS),
        (2, [0, 10], HOUR_MS, "fits"),
        (0, [], 0, None),  # never
        (1, [HOUR_MS // 2], 0, HOUR_MS // 2 + HOUR_MS),  # one is held back for later
        (2, [0, HOUR_MS - 1], HOUR_MS // 2, HOUR_MS),
    ],
)
def test_it_counts_in_a_rolling_window(
    limit: int, times: list[int], at: int, next_at: int | str | None
) -> None:
    full = check(a_cap(limit), times, at, HELSINKI)
    assert ("fits" if full is None else full.next_ms) == next_at


def fits(times: list[int], at: int, limit: int, window: int) -> bool:
    """No span shorter than the window may hold more than the limit: tried from every offer."""
    everything = sorted([*times, at])
    return all(
        sum(first <= one < first + window for one in everything) <= limit for first in everything
    )


@settings(max_examples=300)
@given(
    wanted=st.lists(st.integers(0, 400), max_size=30),
    at=st.integers(0, 400),
    limit=st.integers(0, 4),
    window=st.integers(1, 120),
)
def test_it_agrees_with_counting_every_window(
    wanted: list[int], at: int, limit: int, window: int
) -> None:
    times: list[int] = []
    for one in wanted:  # a history that itself obeyed the cap
        if fits(times, one, limit, window):
            times = sorted([*times, one])
    full = check(a_cap(limit, window), times, at, HELSINKI)
    assert (full is None) is fits(times, at, limit, window)
    if full is not None and limit:
        oracle = next(one for one in range(at, 2_000) if fits(times, one, limit, window))
        assert full.next_ms == oracle


@settings(max_examples=200)
@given(
    times=st.lists(st.integers(0, 90 * 96), max_size=40),  # in quarters of an hour
    at=st.integers(0, 90 * 96),
    limit=st.integers(0, 3),
    period=st.sampled_from(Period),
    tz=st.sampled_from(["Europe/Helsinki", "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_it_counts_by_the_calendar_of_the_device(
    times: list[int], at: int, limit: int, period: Period, tz: str
) -> None:
    start, place = round(datetime(2026, 2, 20, tzinfo=UTC).timestamp() * 1000), ZoneInfo(tz)

    def period_of(quarter: float) -> object:
        wall = datetime.fromtimestamp(start / 1000 + quarter * 900, place)
        if period is Period.HOUR:
            return wall.date(), wall.hour, wall.utcoffset()
        if period is Period.DAY:
            return wall.date()
        return wall.isocalendar()[:2] if period is Period.WEEK else (wall.year, wall.month)

    sorted_ms = sorted(start + quarter * QUARTER_MS for quarter in times)
    cap = a_cap(limit, None, period=period)
    full = check(cap, sorted_ms, start + at * QUARTER_MS, place)
    seen = sum(period_of(quarter) == period_of(at) for quarter in times)
    assert (full is not None) is (seen >= limit)
    if full is not None and full.next_ms is not None:
        next_one = (full.next_ms - start) / QUARTER_MS
        assert period_of(next_one) != period_of(at)
        assert period_of(next_one - 0.01) == period_of(at)
        assert check(cap, [], full.next_ms, place) is None


def test_it_counts_for_ever_where_no_window_is_given() -> None:
    full = check(a_cap(1, None), [0], 10 * 365 * DAY_MS, HELSINKI)
    assert full is not None
    assert full.next_ms is None


@pytest.mark.parametrize(
    ("scope", "of_brand", "other", "counts_together"),
    [
        (CapScope.DEVICE, False, {}, True),
        (CapScope.DEVICE, False, {"device_id": 2}, False),
        (CapScope.DEVICE, False, {"campaign_id": 8}, False),
        (CapScope.DEVICE, True, {"campaign_id": 8}, True),
        (CapScope.PERSON, False, {"device_id": 2}, True),
        (CapScope.PERSON, False, {"person": "other", "device_id": 2}, False),
        (CapScope.PERSON, True, {"campaign_id": 8, "device_id": 2}, True),
        (CapScope.PLACE, False, {}, True),
        (CapScope.PLACE, False, {"geofence_id": 6}, False),
        (CapScope.PLACE, True, {"campaign_id": 8}, True),
        (CapScope.TAG, False, {"campaign_id": 8, "geofence_id": 6}, True),
        (CapScope.TAG, False, {"tags": ("shop",)}, False),
        (CapScope.CHANNEL, False, {"campaign_id": 8, "device_id": 2}, True),
        (CapScope.CHANNEL, False, {"channel": "inbox"}, False),
        (CapScope.CAMPAIGN, True, {"device_id": 2}, True),
        (CapScope.CAMPAIGN, True, {"campaign_id": 8}, False),
        (CapScope.BRAND, False, {"campaign_id": 8}, True),
        (CapScope.BRAND, False, {"person": "other", "device_id": 2}, False),
    ],
)
def test_it_counts_what_belongs_together(
    scope: CapScope, of_brand: bool, other: dict[str, Any], counts_together: bool
) -> None:
    cap = Cap(
        limit=1,
        scope=scope,
        window_ms=DAY_MS,
        of_brand=of_brand,
        tag="food" if scope is CapScope.TAG else "",
        channel="push" if scope is CapScope.CHANNEL else "",
    )
    counts = Counts(1)
    counts.add(an_offer(**{"tags": ("food",), "person": "ann"} | other))
    mine = an_offer(NOON_MS, tags=("food",), person="ann")
    assert (reached([cap], mine, counts, HELSINKI) is not None) is counts_together


@pytest.mark.parametrize(
    ("scope", "of_brand", "key"),
    [(CapScope.CAMPAIGN, False, "campaign"), (CapScope.BRAND, True, "brand")],
)
def test_it_counts_everybody_only_under_the_lock(scope: CapScope, of_brand: bool, key: str) -> None:
    cap = Cap(limit=1, scope=scope, window_ms=DAY_MS, of_brand=of_brand)
    owner = 1 if of_brand else 7
    assert cap.is_shared
    assert key_of(cap, an_offer(), 1) == (key, owner)
    counts = Counts(1)
    counts.totals[key, owner] = []
    counts.recall(an_offer(person="other", device_id=2))
    assert reached([cap], an_offer(NOON_MS), counts, HELSINKI) is None
    counts.add(an_offer(person="other", device_id=2))
    assert reached([cap], an_offer(NOON_MS), counts, HELSINKI) is not None


def test_a_cap_on_a_channel_lets_the_other_pass() -> None:
    cap = Cap(limit=0, scope=CapScope.CHANNEL, channel="push", window_ms=DAY_MS)
    assert reached([cap], an_offer(channel="inbox"), Counts(1), HELSINKI) is None
    assert reached([cap], an_offer(channel="push"), Counts(1), HELSINKI) is not None


def test_a_cap_on_a_place_lets_what_has_none_pass() -> None:
    cap = Cap(limit=0, scope=CapScope.PLACE, window_ms=DAY_MS)
    assert reached([cap], an_offer(geofence_id=None), Counts(1), HELSINKI) is None

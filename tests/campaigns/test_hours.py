"""The hours a campaign may speak in, against a clock that is read minute by minute."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brands.wallclock import minutes
from campaigns.hours import (
    EVERY_DAY,
    Daypart,
    first_instant_ms,
    is_open,
    is_quiet,
    local,
    next_allowed_ms,
)

# Zones whose clocks do unusual things: half-hour and two-hour jumps, jumps at midnight, a skipped
# day, quarter-hour offsets, no jumps at all.
ZONES = [
    "Europe/Helsinki",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "America/Havana",
    "UTC",
]
WEEKDAYS = frozenset({0, 1, 2, 3, 4})
DAY_MS = 86_400_000


def at_ms(text: str, tz: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("days", "start", "end", "weekday", "clock", "holds"),
    [
        (EVERY_DAY, "08:00", "18:00", 2, "08:00", True),
        (EVERY_DAY, "08:00", "18:00", 2, "07:59", False),
        (EVERY_DAY, "08:00", "18:00", 2, "18:00", False),  # the end is outside
        (WEEKDAYS, "08:00", "18:00", 5, "12:00", False),
        (EVERY_DAY, "21:00", "08:00", 2, "23:00", True),  # over midnight
        (EVERY_DAY, "21:00", "08:00", 2, "07:59", True),
        (EVERY_DAY, "21:00", "08:00", 2, "12:00", False),
        (frozenset({4}), "22:00", "02:00", 5, "01:00", True),  # Friday's night is on Saturday
        (frozenset({4}), "22:00", "02:00", 4, "01:00", False),  # Thursday's is not
        (frozenset({6}), "22:00", "02:00", 0, "01:00", True),  # Sunday's is on Monday
        (EVERY_DAY, "00:00", "24:00", 0, "23:59", True),
    ],
)
def test_it_reads_the_wall_clock(
    days: frozenset[int], start: str, end: str, weekday: int, clock: str, holds: bool
) -> None:
    part = Daypart(days, minutes(start), minutes(end))
    assert part.holds(weekday, minutes(clock)) is holds


@pytest.mark.parametrize(
    ("tz", "after", "opens", "expected"),
    [
        # Spring: 02:30 does not exist in New York on 8 March 2026; the part begins at the jump.
        ("America/New_York", "2026-03-08T06:00", ("02:30", "04:00"), "2026-03-08T07:00"),
        # Autumn: 01:30 comes twice on 1 November; the first one is taken.
        ("America/New_York", "2026-11-01T04:00", ("01:30", "01:45"), "2026-11-01T05:30"),
        # … and after it, the second one.
        ("America/New_York", "2026-11-01T05:45", ("01:30", "01:45"), "2026-11-01T06:30"),
        ("Europe/Helsinki", "2026-06-10T20:00", ("08:00", "18:00"), "2026-06-11T05:00"),
        ("UTC", "2026-06-10T09:00", ("08:00", "18:00"), "2026-06-10T09:00"),
    ],
)
def test_it_finds_the_next_good_hour_across_clock_changes(
    tz: str, after: str, opens: tuple[str, str], expected: str
) -> None:
    part = Daypart(EVERY_DAY, minutes(opens[0]), minutes(opens[1]))
    found = next_allowed_ms(at_ms(after), ZoneInfo(tz), dayparts=(part,), quiet=None)
    assert found == at_ms(expected)


def test_it_says_so_when_no_good_hour_comes() -> None:
    part = Daypart(EVERY_DAY, 600, 660)
    quiet = Daypart(EVERY_DAY, 0, 1440)
    assert next_allowed_ms(0, ZoneInfo("UTC"), dayparts=(part,), quiet=quiet) is None


clock = st.integers(0, 1439)
parts = st.builds(
    Daypart, st.frozensets(st.integers(0, 6), min_size=1), clock, st.integers(0, 1440)
).filter(lambda part: part.start_min != part.end_min)
# Around the weekends on which clocks jump, and anywhere in the years around them.
instants = st.one_of(
    st.sampled_from(
        [
            at_ms("2026-03-08T05:00"),
            at_ms("2026-03-29T00:00"),
            at_ms("2026-10-25T00:00"),
            at_ms("2026-11-01T04:00"),
            at_ms("2026-04-04T14:00"),
            at_ms("2018-11-04T02:00"),
            at_ms("2011-12-30T09:00"),
            at_ms("2027-03-27T21:00"),
        ]
    ),
    st.integers(at_ms("2011-01-01T00:00") // 60_000, at_ms("2027-12-31T00:00") // 60_000).map(
        lambda minute: minute * 60_000
    ),
)


def allowed(when: datetime, dayparts: tuple[Daypart, ...], quiet: Daypart | None) -> bool:
    minute = when.hour * 60 + when.minute
    return is_open(when.weekday(), minute, dayparts) and not is_quiet(when.weekday(), minute, quiet)


@settings(max_examples=150)
@given(
    after=instants,
    ahead=st.integers(0, 2 * 24 * 60),
    tz=st.sampled_from(ZONES),
    dayparts=st.lists(parts, max_size=2).map(tuple),
    quiet=st.none() | parts,
)
@example(
    after=at_ms("2011-12-30T09:00"), ahead=0, tz="Pacific/Apia",
    dayparts=(Daypart(frozenset({4}), 0, 1440),), quiet=None,
)  # fmt: skip
def test_it_agrees_with_a_clock_read_every_minute(
    after: int, ahead: int, tz: str, dayparts: tuple[Daypart, ...], quiet: Daypart | None
) -> None:
    start, place = after + ahead * 60_000, ZoneInfo(tz)
    utc = datetime.fromtimestamp(start / 1000, UTC)
    oracle = next(
        (
            start + minute * 60_000
            for minute in range(8 * 24 * 60)
            if allowed((utc + timedelta(minutes=minute)).astimezone(place), dayparts, quiet)
        ),
        None,
    )
    found = next_allowed_ms(start, place, dayparts=dayparts, quiet=quiet)
    if oracle is None:
        assert found is None or found >= start + 8 * DAY_MS
    else:
        assert found == oracle


@settings(max_examples=100)
@given(instant=instants, tz=st.sampled_from(ZONES))
def test_it_finds_where_a_date_begins(instant: int, tz: str) -> None:
    place = ZoneInfo(tz)
    day = datetime.fromtimestamp(instant / 1000, place).date()
    begins = first_instant_ms(day, place)
    assert datetime.fromtimestamp(begins / 1000, place).date() >= day
    assert datetime.fromtimestamp(begins / 1000 - 60, place).date() < day


def test_it_finds_the_day_after_a_skipped_one() -> None:
    # Samoa went from 29 to 31 December 2011.
    apia = ZoneInfo("Pacific/Apia")
    assert first_instant_ms(date(2011, 12, 30), apia) == first_instant_ms(date(2011, 12, 31), apia)


def test_it_shows_the_wall_clock_with_its_offset() -> None:
    assert local(at_ms("2026-06-10T09:00"), ZoneInfo("Europe/Helsinki")).text == (
        "2026-06-10T12:00+03:00"
    )

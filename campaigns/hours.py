"""Which hours a campaign may speak in, on the wall clock of the device. No clock of its own.

A daypart or quiet time is a reading of the wall clock: an hour that the clock repeats counts both
times, an hour that it skips never comes. Instants are epoch milliseconds, UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec

from brands.wallclock import DAY_MINUTES

HORIZON_DAYS = 9  # a week of dayparts, plus a day for the date line on either side
_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000
EVERY_DAY = frozenset(range(7))


@dataclass(frozen=True, slots=True)
class Daypart:
    """From `start_min` to before `end_min` after midnight, on these weekdays (Monday is 0).

    Where the end is not after the start it lies on the next day: the night of its first day.
    """

    days: frozenset[int]
    start_min: int
    end_min: int

    def holds(self, weekday: int, minute: int) -> bool:
        if self.start_min < self.end_min:
            return weekday in self.days and self.start_min <= minute < self.end_min
        return (weekday in self.days and minute >= self.start_min) or (
            (weekday - 1) % 7 in self.days and minute < self.end_min
        )


class Local(msgspec.Struct, frozen=True):
    """What a clock on the wall shows."""

    weekday: int
    minute: int
    text: str  # 2026-05-01T21:07+03:00


def local(at_ms: int, tz: ZoneInfo) -> Local:
    """The wall clock in a zone."""
    wall = _wall(at_ms, tz)
    return Local(wall.weekday(), wall.hour * 60 + wall.minute, wall.isoformat(timespec="minutes"))


def is_open(weekday: int, minute: int, dayparts: Sequence[Daypart]) -> bool:
    """No dayparts: always open."""
    if not dayparts:
        return True
    for part in dayparts:  # noqa: SIM110 - `any` costs twice as much, per candidate and moment
        if part.holds(weekday, minute):
            return True
    return False


def are_always(dayparts: Sequence[Daypart]) -> bool:
    """Whether these cannot be missed: there are none, or one of them is every whole day."""
    return not dayparts or any(
        part.days >= EVERY_DAY and part.start_min == 0 and part.end_min == DAY_MINUTES
        for part in dayparts
    )


def is_quiet(weekday: int, minute: int, quiet: Daypart | None) -> bool:
    return quiet is not None and quiet.holds(weekday, minute)


@lru_cache(maxsize=4_096)
def next_allowed_ms(
    at_ms: int, tz: ZoneInfo, *, dayparts: tuple[Daypart, ...], quiet: Daypart | None
) -> int | None:
    """The first instant at or after `at_ms` that is in a daypart and not in quiet time.

    None where no such instant comes within HORIZON_DAYS.
    """
    if _allowed(at_ms, tz, dayparts, quiet):
        return at_ms
    # The whole minute is not allowed, and neither is what lies between it and the next edge.
    return _next_edge_ms(at_ms - at_ms % _MINUTE_MS, tz, dayparts, quiet)


@lru_cache(maxsize=16_384)
def _next_edge_ms(
    at_ms: int, tz: ZoneInfo, dayparts: tuple[Daypart, ...], quiet: Daypart | None
) -> int | None:
    """What is allowed changes only where the wall clock passes an edge or jumps: try those."""
    edges = {0}
    for part in (*dayparts, *((quiet,) if quiet else ())):
        edges |= {part.start_min % DAY_MINUTES, part.end_min % DAY_MINUTES}
    candidates = {when for when in _edges_ms(at_ms, tz, sorted(edges)) if when > at_ms}
    return next((when for when in sorted(candidates) if _allowed(when, tz, dayparts, quiet)), None)


def _allowed(
    at_ms: int, tz: ZoneInfo, dayparts: tuple[Daypart, ...], quiet: Daypart | None
) -> bool:
    wall = _wall(at_ms, tz)
    weekday, minute = wall.weekday(), wall.hour * 60 + wall.minute
    return is_open(weekday, minute, dayparts) and not is_quiet(weekday, minute, quiet)


def open_spans_ms(
    start_ms: int,
    end_ms: int,
    tz: ZoneInfo,
    *,
    dayparts: tuple[Daypart, ...],
    quiet: Daypart | None,
) -> list[tuple[int, int]]:
    """The spans within [start, end) that are in a daypart and not in quiet time, in order."""
    if start_ms >= end_ms:
        return []
    if not dayparts and quiet is None:
        return [(start_ms, end_ms)]
    days = (end_ms - start_ms) // (24 * _HOUR_MS) + 3
    edges = {0}
    for part in (*dayparts, *((quiet,) if quiet else ())):
        edges |= {part.start_min % DAY_MINUTES, part.end_min % DAY_MINUTES}
    cuts = {
        at for at in _edges_ms(start_ms, tz, sorted(edges), days=days) if start_ms < at < end_ms
    }
    found: list[tuple[int, int]] = []
    for since_ms, until_ms in pairwise([start_ms, *sorted(cuts), end_ms]):
        if not _allowed(since_ms, tz, dayparts, quiet):
            continue
        if found and found[-1][1] == since_ms:
            found[-1] = (found[-1][0], until_ms)
        else:
            found.append((since_ms, until_ms))
    return found


@lru_cache(maxsize=65_536)
def local_date(at_ms: int, tz: ZoneInfo) -> date:
    """The date on the wall."""
    return _wall(at_ms, tz).date()


@lru_cache(maxsize=4_096)
def first_instant_ms(day: date, tz: ZoneInfo) -> int:
    """When a local date begins: midnight, or where the clock skips it, the first instant after."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=tz)
    found = _epoch_ms(midnight)
    jumps = _jumps_ms(found - 26 * _HOUR_MS, found + 26 * _HOUR_MS, tz)
    return min((at for at in (found, *jumps) if local_date(at, tz) >= day), default=found)


def last_jump_ms(at_ms: int, tz: ZoneInfo) -> int:
    """The last instant in the 26 hours to `at_ms` at which the clock jumped, or `at_ms`."""
    jumps = _jumps_ms(at_ms - 26 * _HOUR_MS, at_ms + _HOUR_MS, tz)
    return max((jump for jump in jumps if jump <= at_ms), default=at_ms)


def hour_of(at_ms: int, tz: ZoneInfo) -> tuple[int, int]:
    """The instants [from, to) at which the wall shows the same hour, without a jump between."""
    wall = _wall(at_ms, tz)
    begins = at_ms - at_ms % 1000 - (wall.minute * 60 + wall.second) * 1000
    ends = begins + _HOUR_MS
    for jump in _jumps_ms(begins, ends, tz):
        if jump <= at_ms:
            begins = max(begins, jump)
        else:
            ends = min(ends, jump)
    return begins, ends


def _wall(at_ms: int, tz: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, tz)


def _epoch_ms(at: datetime) -> int:
    # datetime subtraction in one zone is by wall clock; through UTC it is by elapsed time.
    return int(at.astimezone(UTC).timestamp()) * 1000


def _edges_ms(
    at_ms: int, tz: ZoneInfo, edges_min: Sequence[int], *, days: int = HORIZON_DAYS
) -> Iterator[int]:
    """Every instant within so many days at which the wall clock shows an edge, or jumps."""
    today = _wall(at_ms, tz).date()
    for offset in range(-1, days):
        day = today + timedelta(days=offset)
        for edge in edges_min:
            for fold in (0, 1):
                yield _epoch_ms(
                    datetime(
                        day.year, day.month, day.day, edge // 60, edge % 60, tzinfo=tz, fold=fold
                    )
                )
    yield from _jumps_ms(at_ms, at_ms + days * 24 * _HOUR_MS, tz)


def _jumps_ms(start_ms: int, end_ms: int, tz: ZoneInfo) -> Iterator[int]:
    """The instants at which a zone's offset from UTC changes, to the second."""
    before = _wall(start_ms, tz).utcoffset()
    for hour_ms in range(start_ms, end_ms, _HOUR_MS):
        after = _wall(hour_ms + _HOUR_MS, tz).utcoffset()
        if after != before:
            low, high = hour_ms // 1000, hour_ms // 1000 + 3600
            while high - low > 1:
                middle = (low + high) // 2
                if _wall(middle * 1000, tz).utcoffset() == before:
                    low = middle
                else:
                    high = middle
            yield high * 1000
        before = after

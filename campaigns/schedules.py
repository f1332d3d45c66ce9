"""When a schedule comes round, and for which time zones. Pure: it knows no device.

A time of day is a reading of the wall clock, of each device or of the brand. One that the clock
repeats comes once, the first time; one that the clock skips comes when it has jumped. Instants are
epoch milliseconds, UTC.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from brands import wallclock
from campaigns import hours

DAY_MS = 86_400_000
# A date begins in one zone up to 26 hours before it does in another.
WIDEST = timedelta(days=2)


class ClockOf(StrEnum):
    """Whose wall clock a time of day is read on."""

    DEVICE = "device"
    BRAND = "brand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """At one instant, or at times of day on some days of the week; for those inside, or who were.

    `within_ms`: who was inside in so long before. `since_ms`: who was inside since then.
    Neither: who is inside.
    """

    at_ms: int | None = None
    times_min: tuple[int, ...] = ()
    days: frozenset[int] = hours.EVERY_DAY
    clock: ClockOf = ClockOf.DEVICE
    within_ms: int | None = None
    since_ms: int | None = None

    @property
    def is_now(self) -> bool:
        return self.within_ms is None and self.since_ms is None

    def looks_back_to(self, due_ms: int) -> int:
        """From when on somebody who was inside is meant; the due time itself: only who is."""
        if self.since_ms is not None:
            return min(self.since_ms, due_ms)
        return due_ms - (self.within_ms or 0)


class Occurrence(NamedTuple):
    """One time that a schedule comes round, for some of the zones."""

    # What the wall shows, in minutes since 1970: the same for all zones. A device that travels
    # into another zone has had it already.
    key: int
    due_ms: int
    zones: tuple[str, ...]  # none: whatever the zone


def occurrences(
    schedule: Schedule, *, after_ms: int, until_ms: int, brand_zone: str, zones: Collection[str]
) -> list[Occurrence]:
    """What comes round in (after, until], in order; `zones` are those that devices may be in."""
    if schedule.at_ms is not None:
        due = after_ms < schedule.at_ms <= until_ms
        return [Occurrence(schedule.at_ms // 60_000, schedule.at_ms, ())] if due else []
    of_device = schedule.clock is ClockOf.DEVICE
    first = datetime.fromtimestamp(after_ms / 1000, UTC).date() - WIDEST
    last = datetime.fromtimestamp(until_ms / 1000, UTC).date() + WIDEST
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    for day in _days(first, last):
        if day.weekday() not in schedule.days:
            continue
        for minute in schedule.times_min:
            for name in zones if of_device else (brand_zone,):
                due_ms = instant_ms(day, minute, wallclock.zone(name))
                if after_ms < due_ms <= until_ms:
                    key = (day.toordinal() - _EPOCH) * wallclock.DAY_MINUTES + minute
                    found[due_ms, key].append(name)
    return [
        Occurrence(key, due_ms, tuple(sorted(names)) if of_device else ())
        for (due_ms, key), names in sorted(found.items())
    ]


_EPOCH = date(1970, 1, 1).toordinal()


def wall_of(key: int) -> datetime:
    """What the wall shows at an occurrence, by its key."""
    return datetime(1970, 1, 1) + timedelta(minutes=key)  # noqa: DTZ001 - a reading, no instant


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


@lru_cache(maxsize=65_536)
def instant_ms(day: date, minute: int, tz: ZoneInfo) -> int:
    """When the wall of a zone first shows this, or where it never does, the end of the jump."""
    wall = datetime(day.year, day.month, day.day, minute // 60, minute % 60)  # noqa: DTZ001
    found = round(wall.replace(tzinfo=tz).timestamp() * 1000)
    if datetime.fromtimestamp(found / 1000, tz).replace(tzinfo=None) == wall:
        return found
    return hours.last_jump_ms(found, tz)

"""What people write of a clock on the wall, read: `21:30`, `Europe/Helsinki`. It tells no time."""

from __future__ import annotations

from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

DAY_MINUTES = 1_440
_NOWHERE = frozenset({"localtime", "Factory"})  # what this machine is set to, and a placeholder


def minutes(clock: str) -> int:
    """`21:30` → 1290; `24:00` is the end of the day. ValueError for anything else."""
    hours, colon, rest = clock.partition(":")
    if not (colon and len(rest) == 2 and hours.isdecimal() and rest.isdecimal()):
        raise ValueError(f"{clock!r} is not a time such as 08:30")
    found = int(hours) * 60 + int(rest)
    if int(rest) > 59 or found > DAY_MINUTES:
        raise ValueError(f"{clock!r} is not a time of the day")
    return found


@cache
def zones() -> frozenset[str]:
    """Names of the IANA database on this machine, read once."""
    return frozenset(available_timezones() - _NOWHERE)


@lru_cache(maxsize=1024)
def zone(*names: str) -> ZoneInfo:
    """Return the first of these zones that there is, else UTC: a phone may report anything."""
    for name in names:
        if name in _NOWHERE:
            continue
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):  # what ZoneInfo raises for names that are none
            continue
    return ZoneInfo("UTC")

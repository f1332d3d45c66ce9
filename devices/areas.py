"""Where a device is at home and where it usually is: coarse, from its own fixes. Pure.

An area is one H3 cell of resolution 7, about 5 km²: enough to know a part of town, too little to
find a door. Home is where most nights were spent, by the device's own clock; usual is where it was
on several days.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from geofences.lattice import cells_at

RESOLUTION = 7
REACH_M = 1_400  # from a cell's middle to its farthest corner, at most
NIGHT_FROM_H, NIGHT_TO_H = 22, 6
MIN_NIGHTS = 3
MIN_SHARE_OF_NIGHTS = 0.5
MIN_DAYS = 4
MOST_USUAL = 8

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class AreaKind(StrEnum):
    HOME = "home"
    USUAL = "usual"


class Area(NamedTuple):
    """A cell, on how many nights (home) or days (usual) it was seen, and when last (epoch ms)."""

    kind: AreaKind
    cell: int
    days: int
    last_ms: int


def areas(recorded_ms: Ints, lat: Floats, lng: Floats, tz: ZoneInfo) -> list[Area]:
    """The areas of one device from its fixes: home first, if it has one, then the most usual."""
    if not len(recorded_ms):
        return []
    cells = cells_at(lat, lng, RESOLUTION).astype(np.int64)
    local_ms = recorded_ms + _offsets_ms(recorded_ms, tz)
    hour = local_ms // _HOUR_MS % 24
    at_night = (hour >= NIGHT_FROM_H) | (hour < NIGHT_TO_H)
    # A night has the date of its morning.
    nights = (local_ms + (24 - NIGHT_FROM_H) * _HOUR_MS) // _DAY_MS
    slept = _seen(cells[at_night], nights[at_night], recorded_ms[at_night])
    seen_nights = len(np.unique(nights[at_night]))
    found = [
        Area(AreaKind.HOME, *one)
        for one in slept[:1]
        if one[1] >= MIN_NIGHTS and one[1] >= MIN_SHARE_OF_NIGHTS * seen_nights
    ]
    known = {area.cell for area in found}
    days = _seen(cells, local_ms // _DAY_MS, recorded_ms)
    usual = [one for one in days if one[1] >= MIN_DAYS and one[0] not in known]
    return found + [Area(AreaKind.USUAL, *one) for one in usual[:MOST_USUAL]]


def _seen(cells: Ints, days: Ints, recorded_ms: Ints) -> list[tuple[int, int, int]]:
    """Each cell with its number of different days and its last instant, the most days first."""
    found = []
    for cell in np.unique(cells).tolist():
        mine = cells == cell
        found.append((cell, len(np.unique(days[mine])), int(recorded_ms[mine].max())))
    return sorted(found, key=lambda one: (-one[1], -one[2], one[0]))


def _offsets_ms(recorded_ms: Ints, tz: ZoneInfo) -> Ints:
    """What the zone's clock is ahead of UTC, read once for each quarter of an hour."""
    quarters, place = np.unique(recorded_ms // (_HOUR_MS // 4), return_inverse=True)
    ahead = []
    for quarter in quarters.tolist():
        offset = datetime.fromtimestamp(quarter * 900, UTC).astimezone(tz).utcoffset()
        ahead.append(0 if offset is None else int(offset.total_seconds() * 1000))
    return np.array(ahead, dtype=np.int64)[place]

"""Pairs of a fix and a geofence that may hold it: found by `tables`, settled by `outlines`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geofences.compiled import compiled

OUTSIDE, INSIDE, OPEN = 0, 1, 2
"""Verdicts: does the geofence hold the fix? OPEN asks for the exact test."""

Shorts = NDArray[np.int32]
Verdicts = NDArray[np.int8]


class Candidates(NamedTuple):
    """Column by column, one row for each pair."""

    fix: Shorts  # position in the batch
    geofence: Shorts  # position in a layer, or ordinal
    verdict: Verdicts

    @classmethod
    def room(cls, count: int) -> Candidates:
        """For so many pairs, to be filled in."""
        return cls(np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.int8))

    def first(self, count: int) -> Candidates:
        return Candidates(self.fix[:count], self.geofence[:count], self.verdict[:count])

    @classmethod
    def joined(cls, many: Sequence[Candidates]) -> Candidates:
        if len(many) == 1:
            return many[0]
        return cls(
            np.concatenate([one.fix for one in many]),
            np.concatenate([one.geofence for one in many]),
            np.concatenate([one.verdict for one in many]),
        )

    def of(self, order: NDArray[np.int64]) -> Candidates:
        """The same for a batch that was put in this order to find them."""
        return Candidates(order.astype(np.int32).take(self.fix), self.geofence, self.verdict)

    def held(self, fixes: int, geofence_id: NDArray[np.int64]) -> tuple[Shorts, Shorts]:
        """Those settled as INSIDE: fixes and geofences, by fix, then by the geofence's id."""
        if not len(self.fix):
            return self.fix, self.geofence
        fix, geofence = np.empty(len(self.fix), np.int32), np.empty(len(self.fix), np.int32)
        ends = np.zeros(fixes + 1, np.int64)
        count = _order(self.fix, self.geofence, self.verdict, geofence_id, ends, fix, geofence)
        return fix[:count], geofence[:count]


@compiled
def _order(
    fix: Shorts,
    geofence: Shorts,
    verdict: Verdicts,
    geofence_id: NDArray[np.int64],
    ends: NDArray[np.int64],
    ordered_fix: Shorts,
    ordered: Shorts,
) -> int:
    """A counting sort by fix, in which each geofence moves past those of a higher id."""
    ordered_fix[:] = -1
    for pair in range(len(fix)):
        if verdict[pair] == INSIDE:
            ends[fix[pair] + 1] += 1
    for number in range(1, len(ends)):
        ends[number] += ends[number - 1]
    count = ends[-1]
    # ends[n] is where fix n begins; from here on, where its next geofence goes.
    for pair in range(len(fix)):
        if verdict[pair] != INSIDE:
            continue
        owner, one = fix[pair], geofence[pair]
        place = ends[owner]
        while (
            place > 0
            and ordered_fix[place - 1] == owner
            and geofence_id[ordered[place - 1]] > geofence_id[one]
        ):
            ordered_fix[place], ordered[place] = owner, ordered[place - 1]
            place -= 1
        ordered_fix[place], ordered[place] = owner, one
        ends[owner] += 1
    return int(count)

"""Recorded fixes walked again through geofences that need not have been armed then. No rows.

The same matching and the same presence rules as ingest, on arrays in memory instead of tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from devices.arrays import NEVER
from devices.fixes import FixVerdict
from devices.judgement import STATE_DTYPE, judge
from devices.presence import Belief, Change, elapse
from devices.sightings import RulesBook, advanced, follow
from geofences.matching import Index


class Step(NamedTuple):
    """A transition that would have been."""

    device_id: int
    geofence_id: int
    change: Change
    lat: float | None
    lng: float | None
    accuracy_m: float | None


class Walkers:
    """Where the devices of one brand are, as their fixes go by in time order."""

    def __init__(
        self,
        index: Index,
        dwells: Mapping[int, tuple[int, ...]],
        device_ids: NDArray[np.int64],
        *,
        brand_id: int,
        silence_ms: int,
    ) -> None:
        self._index = index
        self._book = RulesBook(index, dwells, silence_ms=silence_ms)
        self._beliefs: dict[int, dict[int, Belief]] = {}
        self._states = np.zeros(len(device_ids), dtype=STATE_DTYPE)
        self._states["device_id"] = np.sort(device_ids)
        self._states["brand_id"] = brand_id
        self._states["received_ms"] = self._states["recorded_ms"] = NEVER
        for name in ("lat", "lng", "accuracy_m", "speed_mps", "jump_lat", "jump_lng"):
            self._states[name] = np.nan

    def take(self, fixes: NDArray[np.void]) -> list[Step]:
        """Walk on with the fixes (FIX_DTYPE) of a stretch of time, in any order."""
        batch = fixes[np.lexsort((fixes["recorded_ms"], fixes["device_id"]))]
        ids = np.unique(batch["device_id"])
        rows = np.searchsorted(self._states["device_id"], ids)
        states = self._states[rows]
        device = np.searchsorted(ids, batch["device_id"])
        verdicts, jumps = judge(batch, device, states)
        used = verdicts == FixVerdict.USED
        batch, device = batch[used], device[used]
        stored = {key: self._beliefs[key] for key in ids.tolist() if key in self._beliefs}
        now_ms = int(fixes["recorded_ms"].max())
        outcome = follow(batch, device, states, stored, self._index, self._book, now_ms=now_ms)
        self._states[rows] = advanced(states, batch, device, outcome, jumps, now_ms=now_ms)
        for device_id, beliefs in outcome.after.items():
            if beliefs:
                self._beliefs[device_id] = beliefs
            else:
                self._beliefs.pop(device_id, None)
        return [
            Step(
                told.device_id,
                told.footprint.geofence_id,
                told.footprint.change,
                *_place(batch, told.row),
            )
            for told in outcome.told
        ]

    def end(self, until_ms: int) -> list[Step]:
        """What time alone still does to those who are inside: dwells, and silence."""
        steps = []
        for device_id, beliefs in self._beliefs.items():
            row = np.searchsorted(self._states["device_id"], device_id)
            seen_ms = int(self._states["recorded_ms"][row])
            for geofence_id, belief in beliefs.items():
                rules = self._book[geofence_id]
                _, changes = elapse(belief, until_ms=until_ms, seen_ms=seen_ms, rules=rules)
                steps += [
                    Step(device_id, geofence_id, change, None, None, None) for change in changes
                ]
        return steps


def _place(batch: NDArray[np.void], row: int) -> tuple[float | None, float | None, float | None]:
    if row < 0:
        return None, None, None
    accuracy = float(batch["accuracy_m"][row])
    known = None if np.isnan(accuracy) else accuracy
    return float(batch["lat"][row]), float(batch["lng"][row]), known

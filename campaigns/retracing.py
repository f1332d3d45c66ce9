"""Recorded fixes walked again through geofences that need not have been armed then. No rows.

The same matching and the same presence rules as ingest, on arrays in memory instead of tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from devices.arrays import NEVER
from devices.fixes import FixVerdict
from devices.judgement import STATE_DTYPE, judge
from devices.presence import BELIEF_DTYPE, Change, in_words
from devices.sightings import RulesBook, advanced, follow
from devices.walks import elapse
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
        self._book = RulesBook(index, dwells, silence_ms)
        self._beliefs = np.empty(0, BELIEF_DTYPE)
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
        there = np.isin(self._beliefs["device_id"], ids)
        stored, others = self._beliefs[there], self._beliefs[~there]
        now_ms = int(fixes["recorded_ms"].max())
        outcome = follow(batch, device, states, stored, self._book, now_ms=now_ms)
        self._states[rows] = advanced(states, batch, device, outcome, jumps, now_ms=now_ms)
        self._beliefs = np.concatenate((others, outcome.beliefs()))
        return list(_steps(outcome.told, batch))

    def end(self, until_ms: int) -> list[Step]:
        """What time alone still does to those who are inside: dwells, and silence."""
        rules = self._book.look_up(self._book.index.ordinals(self._beliefs["geofence_id"]))
        rows = np.searchsorted(self._states["device_id"], self._beliefs["device_id"])
        until = np.full(len(rows), until_ms)
        seen_ms = self._states["recorded_ms"][rows]
        told = elapse(self._beliefs, *rules, seen_ms, until, silence_ms=self._book.silence_ms)
        return list(_steps(told, None))


def _steps(told: NDArray[np.void], batch: NDArray[np.void] | None) -> Iterator[Step]:
    ids = (told[name].tolist() for name in ("device_id", "geofence_id", "row"))
    for device_id, geofence_id, row, change in zip(*ids, in_words(told), strict=True):
        place = (None, None, None) if batch is None or row < 0 else _place(batch[row])
        yield Step(device_id, geofence_id, change, *place)


def _place(fix: np.void) -> tuple[float, float, float | None]:
    accuracy_m = float(fix["accuracy_m"])
    return float(fix["lat"]), float(fix["lng"]), None if np.isnan(accuracy_m) else accuracy_m

"""Hot rows as this process wrote them last, so that a busy device costs no read.

Only a hint: every write names the version it started from, and the database says whether that
still holds. What does not is read again under a lock, which costs several times what the memory
saves: where others write the same devices, it is left unasked for a while.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from devices.judgement import STATE_DTYPE, whole

OUTDATED_IN = 100  # where more than one in so many rows was outdated, the memory is left unasked
UNASKED_BATCHES = 100  # and for so many batches: then one tries it again


class Memory:
    """A bounded map of device id to hot row; one ingest thread uses it, others may clear it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._place: dict[int, int] = {}
        self._rows = np.zeros(1024, dtype=STATE_DTYPE)
        self._lock = threading.Lock()
        self._unasked = 0

    def recall(self, device_ids: NDArray[np.int64]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """The rows held of these devices, and the ids of those that are not held."""
        if self._unasked:
            self._unasked -= 1
            return self._rows[:0], device_ids
        with self._lock:
            get = self._place.get
            places = np.array([get(each, -1) for each in device_ids.tolist()], dtype=np.int64)
            held = places >= 0
            return self._rows.take(places[held]), device_ids[~held]

    def found_outdated(self, rows: int, *, of: int) -> None:
        """So many of the rows recalled for a batch turned out to be outdated."""
        if rows * OUTDATED_IN > of:
            self._unasked = UNASKED_BATCHES

    def remember(self, rows: NDArray[np.void]) -> None:
        """Hold rows that were just committed; when full, start anew (the next batch reads)."""
        with self._lock:
            if len(self._place) + len(rows) > self._capacity:
                self._place.clear()
            if len(rows) > self._capacity:
                return
            place, ids = self._place, rows["device_id"].tolist()
            for each in ids:
                if each not in place:
                    place[each] = len(place)
            if len(place) > len(self._rows):
                grown = np.zeros(min(2 * len(place), self._capacity), dtype=STATE_DTYPE)
                grown[: len(self._rows)] = self._rows[: len(grown)]
                self._rows = grown
            whole(self._rows)[[place[each] for each in ids]] = whole(rows)

    def forget(self) -> None:
        """Hold nothing (tests; a database that was restored under us)."""
        with self._lock:
            self._place.clear()

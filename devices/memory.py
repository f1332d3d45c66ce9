"""Hot rows and beliefs as this process wrote them last, so that a busy device costs no read.

Only a hint: every write names the version it started from, and the database says whether that
still holds. What does not is read again under a lock, which costs several times what the memory
saves: where others write the same devices, it is left unasked for a while.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from devices.judgement import STATE_DTYPE, whole
from devices.presence import Belief

OUTDATED_IN = 100  # where more than one in so many rows was outdated, the memory is left unasked
UNASKED_BATCHES = 100  # and for so many batches: then one tries it again


class Memory:
    """A bounded map of device id to hot row and beliefs.

    One ingest thread uses it, others may clear it. What it holds of one device is of one moment:
    beliefs change only with the hot row's version (docs/decisions/hot-rows-without-locks.md).
    """

    def __init__(self, capacity: int) -> None:
        """It holds so many hot rows, and as many beliefs."""
        self._capacity = capacity
        self._place: dict[int, int] = {}
        self._rows = np.zeros(1024, dtype=STATE_DTYPE)
        self._beliefs: dict[int, Mapping[int, Belief]] = {}  # of devices that are anywhere
        self._believed = 0  # how many beliefs that are
        self._lock = threading.Lock()
        self._unasked = 0

    def recall(
        self, device_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.void], dict[int, Mapping[int, Belief]], NDArray[np.int64]]:
        """The rows held of these devices, their beliefs, and the ids of those not held."""
        if self._unasked:
            self._unasked -= 1
            return self._rows[:0], {}, device_ids
        with self._lock:
            get = self._place.get
            places = np.array([get(each, -1) for each in device_ids.tolist()], dtype=np.int64)
            held = places >= 0
            rows = self._rows.take(places[held])
            walking = rows["device_id"][rows["presences"] > 0].tolist()
            held_of = self._beliefs
            beliefs = {each: held_of[each] for each in walking if each in held_of}
            return rows, beliefs, device_ids[~held]

    def found_outdated(self, rows: int, *, of: int) -> None:
        """So many of the rows recalled for a batch turned out to be outdated."""
        if rows * OUTDATED_IN > of:
            self._unasked = UNASKED_BATCHES

    def remember(self, rows: NDArray[np.void], beliefs: Mapping[int, Mapping[int, Belief]]) -> None:
        """Hold rows that were just committed, and their beliefs (where there are none: nothing).

        When full, start anew (the next batch reads).
        """
        with self._lock:
            ids = rows["device_id"].tolist()
            believed = sum(map(len, beliefs.values()))
            if (
                len(self._place) + len(ids) > self._capacity
                or self._believed + believed > self._capacity
            ):
                self._clear()
            if max(len(ids), believed) > self._capacity:
                return
            place = self._place
            for each in ids:
                if each not in place:
                    place[each] = len(place)
            if len(place) > len(self._rows):
                grown = np.zeros(min(2 * len(place), self._capacity), dtype=STATE_DTYPE)
                grown[: len(self._rows)] = self._rows[: len(grown)]
                self._rows = grown
            whole(self._rows)[[place[each] for each in ids]] = whole(rows)
            for device_id, held in beliefs.items():
                self._believed += len(held) - len(self._beliefs.pop(device_id, ()))
                if held:
                    self._beliefs[device_id] = held

    def forget(self) -> None:
        """Hold nothing (tests; a database that was restored under us)."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._place.clear()
        self._beliefs.clear()
        self._believed = 0

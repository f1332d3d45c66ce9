"""Hot rows and beliefs as this process wrote them last, so that a busy device costs no read.

Only a hint: every write names the version it started from, and the database says whether that
still holds. What does not is read again under a lock, which costs several times what the memory
saves: where others write the same devices, it is doubted until it would have been right again.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from devices.judgement import STATE_DTYPE, firsts, whole
from devices.presence import BELIEF_DTYPE

OUTDATED_IN = 100  # where more than one in so many rows was outdated, the memory is doubted
PROOF = 1_000  # rows in a row it must be right about, before it is believed again
MOST_OF_A_BATCH = 250  # that count: a gateway's call, all written elsewhere, is wrong as a whole


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
        self._beliefs: dict[int, bytes] = {}  # rows of devices that are anywhere
        self._believed = 0  # how many bytes that are
        self._lock = threading.Lock()
        self._to_prove = 0  # about so many more rows; none while it is believed

    def recall(
        self, device_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.int64]]:
        """Hot rows and beliefs held of these devices, in their order, and ids to read.

        Those are the ids not held; all of them while the memory is doubted.
        """
        if self._to_prove:
            return self._rows[:0], np.empty(0, BELIEF_DTYPE), device_ids
        with self._lock:
            places = self._places(device_ids)
            held = places >= 0
            rows = self._rows.take(places[held])
            walking = rows["device_id"][rows["presences"] > 0].tolist()
            here = self._beliefs
            beliefs = b"".join([here.get(each, b"") for each in walking])
            return rows, np.frombuffer(beliefs, BELIEF_DTYPE), device_ids[~held]

    def compare(self, read: NDArray[np.void]) -> None:
        """Hot rows as the database has them; while the memory is doubted they tell what it knew."""
        if not self._to_prove:
            return
        with self._lock:
            places = self._places(read["device_id"])
            held = places >= 0
            outdated = self._rows["version"][places[held]] != read["version"][held]
        self.found_outdated(int(np.count_nonzero(outdated)), of=len(outdated))

    def found_outdated(self, rows: int, *, of: int) -> None:
        """So many of the rows held of a batch turned out to be outdated; maybe none."""
        if rows * OUTDATED_IN > of:
            self._to_prove = PROOF
        else:
            self._to_prove = max(0, self._to_prove - min(of, MOST_OF_A_BATCH))

    def _places(self, device_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in `_rows` each of them is held; -1 where it is not."""
        get = self._place.get
        return np.array([get(each, -1) for each in device_ids.tolist()], dtype=np.int64)

    def remember(self, rows: NDArray[np.void], beliefs: NDArray[np.void]) -> None:
        """Hold rows that were just committed, and all beliefs of their devices, by device.

        When full, start anew (the next batch reads).
        """
        with self._lock:
            ids = rows["device_id"].tolist()
            most = self._capacity * BELIEF_DTYPE.itemsize
            if (
                len(self._place) + len(ids) > self._capacity
                or self._believed + beliefs.nbytes > most
            ):
                self._clear()
            if len(ids) > self._capacity or beliefs.nbytes > most:
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
            here = self._beliefs
            self._believed += beliefs.nbytes
            if here:
                self._believed -= sum([len(here.pop(each, b"")) for each in ids])
            here |= _by_device(beliefs)

    def forget(self) -> None:
        """Hold nothing (tests; a database that was restored under us)."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._place.clear()
        self._beliefs.clear()
        self._believed = 0


def _by_device(beliefs: NDArray[np.void]) -> dict[int, bytes]:
    """The rows of each device as they lie in memory: to be joined again by the thousand."""
    ids, size = beliefs["device_id"], BELIEF_DTYPE.itemsize
    begins = np.flatnonzero(firsts(ids))
    raw = beliefs.tobytes()
    bounds = [*(begins * size).tolist(), len(raw)]
    return {
        device_id: raw[first:past]
        for device_id, first, past in zip(ids[begins].tolist(), bounds, bounds[1:], strict=False)
    }

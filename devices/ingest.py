"""Fixes in, presence and transitions out: a batch of any devices at a time.

The only writer, with `devices.clock`, of a device's place, its history, its presences and its
transitions. It decides nothing itself: `judgement` says which fixes count, `sightings` where they
are and what that changes. It knows no campaign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
from django.conf import settings
from django.db import transaction
from numpy.typing import NDArray

from devices.fixes import FixVerdict
from devices.judgement import ACCEPTED, admit, judge, repeats, whole
from devices.memory import Memory
from devices.presence import PresenceState, TransitionReason, ended
from devices.reading import already_stored, beliefs_of, open_cursor, states_of
from devices.sightings import Outcome, RulesBook, Told, advanced, follow
from devices.walks import Footprint
from devices.writing import changes_of, copy_history, history_of, write, write_outcome
from geofences.armed import Armed

__all__ = ["ACCEPTED", "ingest", "leave_all"]

_FEW = 128  # fixes whose history goes with the rest in one statement; more are copied in bulk


def ingest(
    fixes: NDArray[np.void], *, now_ms: int, armed: Armed, memory: Memory | None = None
) -> NDArray[np.int8]:
    """Take a batch of plausible fixes (FIX_DTYPE) of any devices, in any order.

    Answers per fix ACCEPTED or the index into `list(RejectCode)`. When it returns, what is
    accepted is committed (or part of the caller's transaction, where there is one).

    With a `memory` of hot rows the batch first goes without locks, on rows this process wrote
    itself; the devices whose rows turn out to have changed go again in a transaction of their
    own, under locks (docs/decisions/hot-rows-without-locks.md).
    """
    order = np.lexsort((fixes["recorded_ms"], fixes["device_id"]))
    batch = fixes.take(order)
    verdicts = np.empty(len(fixes), dtype=np.int8)
    again = np.ones(len(fixes), dtype=bool)
    if memory is not None:
        verdicts, again = _attempt(batch, now_ms, armed, memory)
    if again.any():
        verdicts[again] = _take_locked(batch.compress(again), now_ms, armed, memory)
    answers = np.empty(len(fixes), dtype=np.int8)
    answers[order] = verdicts
    return answers


def _attempt(
    batch: NDArray[np.void], now_ms: int, armed: Armed, memory: Memory
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Without locks. Verdicts, and which fixes to take again: refused ones, outdated devices."""
    states, missing = memory.recall(_devices_of(batch))
    recalled = states["device_id"]
    with open_cursor() as cursor:
        if len(missing):
            read = states_of(cursor, missing, lock=False)
            states = np.concatenate((whole(states), whole(read))).view(states.dtype)
            states = states.take(np.argsort(states["device_id"]))
        verdicts, written, lost = _take(cursor, batch, states, now_ms, armed)
    again = verdicts != ACCEPTED
    if len(lost):
        again |= np.isin(batch["device_id"], lost)
        memory.found_outdated(int(np.isin(lost, recalled).sum()), of=len(recalled))
    memory.remember(written)
    return verdicts, again


def _take_locked(
    batch: NDArray[np.void], now_ms: int, armed: Armed, memory: Memory | None
) -> NDArray[np.int8]:
    with transaction.atomic(), open_cursor() as cursor:
        states = states_of(cursor, _devices_of(batch), lock=True)
        verdicts, written, _ = _take(cursor, batch, states, now_ms, armed)
    if memory is not None:
        memory.remember(written)
    return verdicts


def _devices_of(batch: NDArray[np.void]) -> NDArray[np.int64]:
    """Each once, ascending."""
    ids = batch["device_id"]
    return ids[_firsts(ids)]


def _firsts(ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a value stands that is not the one before."""
    firsts = np.ones(len(ascending), dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=firsts[1:])
    return firsts


def _take(
    cursor: psycopg.Cursor[Any],
    batch: NDArray[np.void],
    states: NDArray[np.void],
    now_ms: int,
    armed: Armed,
) -> tuple[NDArray[np.int8], NDArray[np.void], NDArray[np.int64]]:
    """Verdicts, hot rows as written, and the devices whose row was not what `states` says.

    `batch` is by device, then time. Consent is checked before anything is matched. Of a lost
    device nothing is written.
    """
    # gather
    verdicts, device = admit(batch, states)
    batch, device = _those(verdicts == ACCEPTED, batch, device)
    judged, jumps = judge(batch, device, states)
    asked = batch["named"] | (judged == FixVerdict.LATE)
    repeated = already_stored(cursor, batch, asked, repeats(batch))
    batch, device, judged = _those(~repeated, batch, device, judged)
    if not len(batch):
        return verdicts, states[:0], device
    touched = device[_firsts(device)]
    walking = states["device_id"][touched[states["presences"][touched] > 0]]
    stored = beliefs_of(cursor, walking)
    # decide
    used, used_device = _those(judged == FixVerdict.USED, batch, device)
    book = RulesBook(armed.index, armed.dwells, silence_ms=settings.SILENCE_S * 1000)
    outcome = follow(used, used_device, states, stored, armed.index, book, now_ms=now_ms)
    after = advanced(states, used, used_device, outcome, jumps, now_ms=now_ms).take(touched)
    changes = changes_of(outcome, states, used, armed.index, book.__getitem__, now_ms=now_ms)
    # apply
    if len(batch) <= _FEW:
        kept = write(cursor, after, changes, history_of(batch, judged, now_ms))
    else:
        with transaction.atomic(savepoint=False):
            kept = write(cursor, after, changes)
            if len(kept) < len(after):
                batch, judged = _those(np.isin(batch["device_id"], kept), batch, judged)
            copy_history(cursor, history_of(batch, judged, now_ms))
    lost = after["device_id"][:0]
    if len(kept) < len(after):
        there = np.isin(after["device_id"], kept)
        lost, after = after["device_id"][~there], after[there]
    after["version"] += 1
    return verdicts, after, lost


def _those(chosen: NDArray[np.bool_], *columns: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """The chosen rows of each column: mostly all, and then nothing is copied."""
    return columns if chosen.all() else tuple(column.compress(chosen) for column in columns)


def leave_all(device_id: int, *, reason: TransitionReason, armed: Armed, now_ms: int) -> None:
    """End every visit of one device, as when consent is withdrawn; repeating changes nothing."""
    with transaction.atomic(), open_cursor() as cursor:
        states = states_of(cursor, np.array([device_id], dtype=np.int64), lock=True)
        before = beliefs_of(cursor, states["device_id"]).get(device_id, {})
        if not before:
            return
        outcome = Outcome(before={device_id: before}, after={device_id: {}})
        outcome.told = [
            Told(
                device_id,
                int(states["brand_id"][0]),
                Footprint(geofence_id, ended(belief, at_ms=now_ms, reason=reason), -1),
            )
            for geofence_id, belief in sorted(before.items())
            if belief.state is not PresenceState.ENTERING
        ]
        write_outcome(cursor, states, outcome, armed, now_ms)

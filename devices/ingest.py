"""Fixes in, presence and transitions out: a batch of any devices at a time.

The only writer, with `devices.clock`, of a device's place, its history, its presences and its
transitions. It decides nothing itself: `judgement` says which fixes count, `sightings` where they
are and what that changes. It knows no campaign.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import psycopg
from django.conf import settings
from django.db import transaction
from numpy.typing import NDArray

from devices.fixes import FixVerdict
from devices.judgement import ACCEPTED, admit, firsts, judge, merged, repeats
from devices.memory import Memory
from devices.presence import REASONS, TransitionReason
from devices.reading import already_stored, open_cursor, read, read_locked
from devices.sightings import RulesBook, advanced, among, follow
from devices.writing import changes_of, copy_history, end_visits, history_of, write
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
    states, beliefs, missing = memory.recall(_devices_of(batch))
    recalled = states["device_id"]
    with open_cursor() as cursor:
        if len(missing):
            found, believed = read(cursor, missing)
            memory.compare(found)
            states, beliefs = merged(states, found), merged(beliefs, believed)
        taken = _take(cursor, batch, states, beliefs, now_ms, armed)
    again, outdated = taken.verdicts != ACCEPTED, 0
    if len(taken.lost):
        again |= np.isin(batch["device_id"], taken.lost)
        outdated = int(np.isin(taken.lost, recalled).sum())
    memory.found_outdated(outdated, of=len(recalled))
    memory.remember(taken.states, taken.beliefs)
    return taken.verdicts, again


def _take_locked(
    batch: NDArray[np.void], now_ms: int, armed: Armed, memory: Memory | None
) -> NDArray[np.int8]:
    with transaction.atomic(), open_cursor() as cursor:
        states, beliefs = read_locked(cursor, _devices_of(batch))
        taken = _take(cursor, batch, states, beliefs, now_ms, armed)
    if memory is not None:
        memory.remember(taken.states, taken.beliefs)
    return taken.verdicts


def _devices_of(batch: NDArray[np.void]) -> NDArray[np.int64]:
    """Each once, ascending."""
    ids = batch["device_id"]
    return ids[firsts(ids)]


class _Taken(NamedTuple):
    """A verdict per fix, and hot rows and beliefs as written."""

    verdicts: NDArray[np.int8]
    states: NDArray[np.void]
    beliefs: NDArray[np.void]
    lost: NDArray[np.int64]  # devices whose hot row was another one: of them nothing is written


def _take(
    cursor: psycopg.Cursor[Any],
    batch: NDArray[np.void],
    states: NDArray[np.void],
    beliefs: NDArray[np.void],
    now_ms: int,
    armed: Armed,
) -> _Taken:
    """`batch` is by device, then time; `states` and `beliefs` are what is known of its devices.

    Consent is checked before anything is matched.
    """
    # gather
    verdicts, device = admit(batch, states)
    batch, device = _those(verdicts == ACCEPTED, batch, device)
    judged, jumps = judge(batch, device, states)
    asked = batch["named"] | (judged == FixVerdict.LATE)
    repeated = already_stored(cursor, batch, asked, repeats(batch))
    batch, device, judged = _those(~repeated, batch, device, judged)
    if not len(batch):
        return _Taken(verdicts, states[:0], beliefs[:0], device)
    touched = device[firsts(device)]
    # decide
    used, used_device = _those(judged == FixVerdict.USED, batch, device)
    book = RulesBook(armed.index, armed.dwells, silence_ms=settings.SILENCE_S * 1000)
    outcome = follow(used, used_device, states, beliefs, book, now_ms=now_ms)
    after = advanced(states, used, used_device, outcome, jumps, now_ms=now_ms).take(touched)
    changes = changes_of(outcome, states, used, armed.index, now_ms=now_ms)
    # apply
    if len(batch) <= _FEW:
        kept, tids = write(cursor, after, changes, history_of(batch, judged, now_ms))
    else:
        with transaction.atomic(savepoint=False):
            kept, tids = write(cursor, after, changes)
            if len(kept) < len(after):
                batch, judged = _those(np.isin(batch["device_id"], kept), batch, judged)
            copy_history(cursor, history_of(batch, judged, now_ms))
    lost = after["device_id"][:0]
    if len(kept) < len(after):
        there = np.isin(after["device_id"], kept)
        lost, after = after["device_id"][~there], after[there]
    after["version"] += 1
    after["tid"] = tids[np.argsort(kept)]
    believed = outcome.beliefs()
    (believed,) = _those(among(after["device_id"], believed["device_id"]), believed)
    return _Taken(verdicts, after, believed, lost)


def _those(chosen: NDArray[np.bool_], *columns: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """The chosen rows of each column: mostly all, and then nothing is copied."""
    return columns if chosen.all() else tuple(column.compress(chosen) for column in columns)


def leave_all(device_id: int, *, reason: TransitionReason, armed: Armed, now_ms: int) -> None:
    """End every visit of one device, as when consent is withdrawn; repeating changes nothing."""
    with transaction.atomic(), open_cursor() as cursor:
        states, beliefs = read_locked(cursor, np.array([device_id], dtype=np.int64))
        if len(beliefs):
            at_ms = np.full(len(beliefs), now_ms)
            reasons = np.full(len(beliefs), REASONS.index(reason), np.int8)
            end_visits(cursor, states, beliefs, at_ms, reasons, armed.index, now_ms)

"""Fixes in, presence and transitions out: one transaction a batch, whatever the batch holds.

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

from devices.fixes import FixVerdict, RejectCode
from devices.judgement import judge
from devices.memory import Memory
from devices.presence import PresenceState, TransitionReason, ended
from devices.reading import already_stored, beliefs_of, open_cursor, states_of
from devices.sightings import Outcome, RulesBook, Told, advanced, follow
from devices.walks import Footprint
from devices.writing import (
    write_beliefs,
    write_history,
    write_outcome,
    write_states,
    write_transitions,
)
from geofences.armed import Armed

ACCEPTED = -1
_CODES = list(RejectCode)
_UNKNOWN = _CODES.index(RejectCode.UNKNOWN_DEVICE)
_NO_CONSENT = _CODES.index(RejectCode.CONSENT_WITHDRAWN)


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
    batch = fixes[order]
    verdicts = np.empty(len(fixes), dtype=np.int8)
    again = np.ones(len(fixes), dtype=bool)
    if memory is not None:
        verdicts, again = _attempt(batch, now_ms, armed, memory)
    if again.any():
        verdicts[again] = _take_locked(batch[again], now_ms, armed, memory)
    answers = np.empty(len(fixes), dtype=np.int8)
    answers[order] = verdicts
    return answers


def _attempt(
    batch: NDArray[np.void], now_ms: int, armed: Armed, memory: Memory
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Without locks. Verdicts, and which fixes to take again: refused ones, outdated devices."""
    states, missing = memory.recall(np.unique(batch["device_id"]))
    recalled = states["device_id"]
    with transaction.atomic(), open_cursor() as cursor:
        if len(missing):
            states = np.concatenate((states, states_of(cursor, missing, lock=False)))
            states = states[np.argsort(states["device_id"])]
        verdicts, written, lost = _take(cursor, batch, states, now_ms, armed)
    memory.found_outdated(int(np.isin(lost, recalled).sum()), of=len(recalled))
    memory.remember(written)
    return verdicts, (verdicts != ACCEPTED) | np.isin(batch["device_id"], lost)


def _take_locked(
    batch: NDArray[np.void], now_ms: int, armed: Armed, memory: Memory | None
) -> NDArray[np.int8]:
    with transaction.atomic(), open_cursor() as cursor:
        states = states_of(cursor, np.unique(batch["device_id"]), lock=True)
        verdicts, written, _ = _take(cursor, batch, states, now_ms, armed)
    if memory is not None:
        memory.remember(written)
    return verdicts


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
    verdicts = _admit(batch, states)
    batch = batch[verdicts == ACCEPTED]
    device = np.searchsorted(states["device_id"], batch["device_id"])
    judged, jumps = judge(batch, device, states)
    repeated = already_stored(cursor, batch, batch["named"] | (judged == FixVerdict.LATE))
    batch, device, judged = batch[~repeated], device[~repeated], judged[~repeated]
    touched = np.unique(device)
    walking = states["device_id"][touched[states["presences"][touched] > 0]]
    stored = beliefs_of(cursor, walking)
    # decide
    used = judged == FixVerdict.USED
    book = RulesBook(armed.index, armed.dwells, silence_ms=settings.SILENCE_S * 1000)
    outcome = follow(batch[used], device[used], states, stored, armed.index, book, now_ms=now_ms)
    after = advanced(states, batch[used], device[used], outcome, jumps, now_ms=now_ms)[touched]
    # apply
    kept = np.isin(after["device_id"], write_states(cursor, after))
    lost, after = after["device_id"][~kept], after[kept]
    if len(lost):
        there = ~np.isin(batch["device_id"], lost)
        outcome = outcome.without(set(lost.tolist()))
        write_history(cursor, batch[there], judged[there], now_ms)
    else:
        write_history(cursor, batch, judged, now_ms)
    write_beliefs(cursor, outcome, states, book)
    write_transitions(cursor, outcome.told, batch[used], armed.index, now_ms)
    after["version"] += 1
    return verdicts, after, lost


def _admit(batch: NDArray[np.void], states: NDArray[np.void]) -> NDArray[np.int8]:
    """The device exists in the sender's brand, its token is not revoked, its person agreed."""
    verdicts = np.full(len(batch), _UNKNOWN, dtype=np.int8)
    ids = states["device_id"]
    if not len(ids):
        return verdicts
    place = np.minimum(np.searchsorted(ids, batch["device_id"]), len(ids) - 1)
    known = (
        (ids[place] == batch["device_id"])
        & (states["brand_id"][place] == batch["brand_id"])
        & ((batch["serial"] == 0) | (batch["serial"] == states["serial"][place]))
    )
    verdicts[known] = np.where(states["consent"][place[known]], ACCEPTED, _NO_CONSENT)
    return verdicts


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

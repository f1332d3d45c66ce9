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
from devices.presence import PresenceState, TransitionReason, ended
from devices.reading import (
    States,
    already_stored,
    beliefs_of,
    lock_states,
    open_cursor,
)
from devices.sightings import RulesBook, Told, follow
from devices.walks import Footprint
from devices.writing import (
    forget_all,
    write_beliefs,
    write_history,
    write_jumps,
    write_places,
    write_transitions,
)
from geofences.armed import Armed

ACCEPTED = -1
_CODES = list(RejectCode)
_UNKNOWN = _CODES.index(RejectCode.UNKNOWN_DEVICE)
_NO_CONSENT = _CODES.index(RejectCode.CONSENT_WITHDRAWN)


def ingest(fixes: NDArray[np.void], *, now_ms: int, armed: Armed) -> NDArray[np.int8]:
    """Take a batch of plausible fixes (FIX_DTYPE) of any devices, in any order.

    Answers per fix ACCEPTED or the index into `list(RejectCode)`. When it returns, what is
    accepted is committed (or part of the caller's transaction, where there is one).
    """
    order = np.lexsort((fixes["recorded_ms"], fixes["device_id"]))
    answers = np.empty(len(fixes), dtype=np.int8)
    with transaction.atomic(), open_cursor() as cursor:
        answers[order] = _ingest_sorted(cursor, fixes[order], now_ms, armed)
    return answers


def _ingest_sorted(
    cursor: psycopg.Cursor[Any], batch: NDArray[np.void], now_ms: int, armed: Armed
) -> NDArray[np.int8]:
    """`batch` by device, then time. Consent is checked before anything is matched."""
    # gather
    states = lock_states(cursor, np.unique(batch["device_id"]))
    fleet = states.fleet
    verdicts = _admit(batch, states)
    admitted = verdicts == ACCEPTED
    batch = batch[admitted]
    device = np.searchsorted(fleet.device_id, batch["device_id"])
    judged, jumps = judge(batch, device, states.places)
    repeated = already_stored(cursor, batch, batch["named"] | (judged == FixVerdict.LATE))
    batch, device, judged = batch[~repeated], device[~repeated], judged[~repeated]
    stored = beliefs_of(cursor, fleet.device_id[fleet.presences > 0])
    # decide
    used = judged == FixVerdict.USED
    book = RulesBook(armed.index, armed.dwells, silence_ms=settings.SILENCE_S * 1000)
    outcome = follow(batch[used], device[used], fleet, stored, armed.index, book, now_ms=now_ms)
    # apply
    write_history(cursor, batch, judged, now_ms)
    write_places(cursor, batch[used], device[used], fleet, outcome, now_ms)
    write_jumps(cursor, fleet, jumps)
    write_beliefs(cursor, outcome, fleet, book)
    write_transitions(cursor, outcome.told, batch[used], armed.index, now_ms)
    return verdicts


def _admit(batch: NDArray[np.void], states: States) -> NDArray[np.int8]:
    """The device exists in the sender's brand, its token is not revoked, its person agreed."""
    verdicts = np.full(len(batch), _UNKNOWN, dtype=np.int8)
    ids = states.fleet.device_id
    if not len(ids):
        return verdicts
    place = np.minimum(np.searchsorted(ids, batch["device_id"]), len(ids) - 1)
    known = (
        (ids[place] == batch["device_id"])
        & (states.fleet.brand_id[place] == batch["brand_id"])
        & ((batch["serial"] == 0) | (batch["serial"] == states.serial[place]))
    )
    verdicts[known] = np.where(states.consent[place[known]], ACCEPTED, _NO_CONSENT)
    return verdicts


def leave_all(device_id: int, *, reason: TransitionReason, armed: Armed, now_ms: int) -> None:
    """End every visit of one device, as when consent is withdrawn; repeating changes nothing."""
    with transaction.atomic(), open_cursor() as cursor:
        states = lock_states(cursor, np.array([device_id], dtype=np.int64))
        beliefs = beliefs_of(cursor, states.fleet.device_id).get(device_id, {})
        told = [
            Told(
                device_id,
                int(states.fleet.brand_id[0]),
                Footprint(geofence_id, ended(belief, at_ms=now_ms, reason=reason), -1),
            )
            for geofence_id, belief in sorted(beliefs.items())
            if belief.state is not PresenceState.ENTERING
        ]
        write_transitions(cursor, told, None, armed.index, now_ms)
        forget_all(cursor, [device_id])

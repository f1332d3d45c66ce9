"""What happens though no fix arrives: dwells, silence, geofences that ended or moved.

Shares ingest's locks and writers, so that a fix and the clock never both tell the same change.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from django.conf import settings
from django.db import connection, transaction

from devices.gathering import now_ms
from devices.presence import REASONS
from devices.reading import open_cursor, read_locked
from devices.sightings import Outcome, RulesBook
from devices.walks import due_ms, elapse
from devices.writing import end_visits, write_outcome
from geofences.armed import Armed, follower

logger = logging.getLogger(__name__)

LOOK_S = 0.25  # a dwell fires at most this much late
SWEEP_S = 10.0  # a geofence's end by the clock is noticed at most this much late
BATCH = 1_000

_DUE = """
    SELECT device_id, geofence_id FROM devices_presence WHERE due_at <= $1 ORDER BY due_at LIMIT $2
"""
# Presences in geofences that are gone, over, disarmed or of another shape, and why.
_UNARMED = """
    SELECT p.device_id, p.geofence_id,
           CASE WHEN g.id IS NULL OR g.retired_at IS NOT NULL OR g.ends_at <= now()
                  THEN 'geofence_ended'
                WHEN g.shape_version <> p.shape_version THEN 'geofence_moved'
                ELSE 'disarmed' END,
           (extract(epoch FROM CASE WHEN g.ends_at <= now() THEN g.ends_at ELSE now() END)
            * 1000)::bigint
      FROM devices_presence p LEFT JOIN geofences_geofence g ON g.id = p.geofence_id
     WHERE g.id IS NULL OR g.retired_at IS NOT NULL OR g.ends_at <= now() OR g.starts_at > now()
        OR g.shape_version <> p.shape_version
        OR NOT (g.track_visits OR coalesce(g.armed_until > now(), false))
     LIMIT $1
"""


class Looked(NamedTuple):
    """How many visits were due, and how many of them are in no armed geofence: those stay due."""

    due: int
    unarmed: int


def run_due(*, now: int, armed: Armed, limit: int = BATCH) -> Looked:
    """Fire what is due at `now` (epoch ms): dwells and silences, of up to `limit` visits.

    A device whose fixes come late lives in its own past: its time goes on from its last fix at
    the pace of our clock.
    """
    with transaction.atomic(), open_cursor() as cursor:
        cursor.execute(_DUE, (datetime.fromtimestamp(now / 1000, UTC), limit))
        due = np.array(cursor.fetchall(), dtype=np.int64).reshape(-1, 2)
        if not len(due):
            return Looked(0, 0)
        states, stored = read_locked(cursor, np.unique(due[:, 0]))
        book = RulesBook(armed.index, armed.dwells, settings.SILENCE_S * 1000)
        ordinal = armed.index.ordinals(stored["geofence_id"])
        before = stored.compress(ordinal >= 0)
        rules = book.look_up(ordinal[ordinal >= 0])
        place = np.searchsorted(states["device_id"], before["device_id"])
        seen_ms, heard_ms = states["recorded_ms"][place], states["received_ms"][place]
        after, silence_ms = before.copy(), book.silence_ms
        until_ms = seen_ms + now - heard_ms
        told = elapse(after, *rules, seen_ms, until_ms, silence_ms=silence_ms)
        outcome = Outcome(
            before=before,
            after=after,
            due_ms=due_ms(after, *rules, seen_ms, silence_ms=silence_ms) + heard_ms - seen_ms,
            told=told,
        )
        write_outcome(cursor, states, outcome, armed.index, now, touch=True)
        unarmed = int(np.count_nonzero(armed.index.ordinals(due[:, 1]) < 0))
    return Looked(len(due), unarmed)


def end_unarmed(*, now: int, armed: Armed, limit: int = BATCH) -> int:
    """End visits in geofences that are no longer armed or have moved. Answers how many."""
    with transaction.atomic(), open_cursor() as cursor:
        cursor.execute(_UNARMED, (limit,))
        over = {(device, fence): (why, at) for device, fence, why, at in cursor.fetchall()}
        if not over:
            return 0
        ids = np.unique(np.array([device_id for device_id, _ in over], dtype=np.int64))
        states, stored = read_locked(cursor, ids)
        pairs = zip(stored["device_id"].tolist(), stored["geofence_id"].tolist(), strict=True)
        found = [over.get(pair) for pair in pairs]
        beliefs = stored.compress([each is not None for each in found])
        at_ms = np.array([at for _, at in filter(None, found)], dtype=np.int64)
        reasons = np.array([REASONS.index(why) for why, _ in filter(None, found)], dtype=np.int8)
        end_visits(cursor, states, beliefs, at_ms, reasons, armed.index, now)
    return len(over)


def catch_up(stop: threading.Event, armed: Armed) -> None:
    """Fire all that is due now.

    Visits in geofences that are no longer armed stay due, before all others, until they are ended:
    a batch that is full of them would hide the rest.
    """
    while not stop.is_set():
        looked = run_due(now=now_ms(), armed=armed)
        ended = sweep(stop, armed) if looked.unarmed else 0
        if looked.due < BATCH or looked.unarmed - ended >= BATCH:
            return


def sweep(stop: threading.Event, armed: Armed) -> int:
    """End all visits in geofences that are no longer armed. Answers how many."""
    ended, more = 0, BATCH
    while more == BATCH and not stop.is_set():
        more = end_unarmed(now=now_ms(), armed=armed)
        ended += more
    return ended


def run(stop: threading.Event) -> None:
    """The clock's loop; one is enough, several do no harm."""
    swept, index = 0.0, None
    while not stop.is_set():
        armed = follower.refresh()
        catch_up(stop, armed)
        if armed.index is not index or time.monotonic() - swept > SWEEP_S:
            swept, index = time.monotonic(), armed.index
            sweep(stop, armed)
        stop.wait(LOOK_S)
    connection.close()

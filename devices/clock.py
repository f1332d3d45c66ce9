"""What happens though no fix arrives: dwells, silence, geofences that ended or moved.

Shares ingest's locks and writers, so that a fix and the clock never both tell the same change.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime

import numpy as np
from django.conf import settings
from django.db import connection, transaction

from devices import profile_undo, retention
from devices.gathering import now_ms
from devices.presence import Change, PresenceState, TransitionReason, elapse, ended
from devices.reading import open_cursor, read_locked
from devices.sightings import Outcome, RulesBook, Told
from devices.walks import Footprint
from devices.writing import write_outcome
from geofences.armed import Armed, follower

logger = logging.getLogger(__name__)

LOOK_S = 0.25  # a dwell fires at most this much late
SWEEP_S = 10.0  # a geofence's end by the clock is noticed at most this much late
RETENTION_S = 600.0
BATCH = 1_000

_DUE = "SELECT device_id FROM devices_presence WHERE due_at <= %s ORDER BY due_at LIMIT %s"
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
     LIMIT %s
"""


def run_due(*, now: int, armed: Armed, limit: int = BATCH) -> int:
    """Fire what is due at `now` (epoch ms): dwells and silences. Answers how many devices it saw.

    A device whose fixes come late lives in its own past: its time goes on from its last fix at
    the pace of our clock.
    """
    with transaction.atomic(), open_cursor() as cursor:
        cursor.execute(_DUE, (datetime.fromtimestamp(now / 1000, UTC), limit))
        due = np.unique(np.array([row[0] for row in cursor.fetchall()], dtype=np.int64))
        if not len(due):
            return 0
        states, stored = read_locked(cursor, due)
        book = RulesBook(armed.index, armed.dwells, silence_ms=settings.SILENCE_S * 1000)
        outcome = Outcome()
        for place, device_id in enumerate(states["device_id"].tolist()):
            seen_ms = int(states["recorded_ms"][place])
            until_ms = seen_ms + now - int(states["received_ms"][place])
            before = stored.get(device_id, {})
            armed_here = armed.index.ordinals(np.array(list(before), dtype=np.int64)) >= 0
            before = {
                each: before[each]
                for each, known in zip(list(before), armed_here.tolist(), strict=True)
                if known
            }
            outcome.before[device_id] = before
            outcome.after[device_id] = after = {}
            outcome.seen_ms[device_id] = seen_ms
            outcome.heard_ms[device_id] = int(states["received_ms"][place])
            for geofence_id, belief in sorted(before.items()):
                kept, changes = elapse(
                    belief, until_ms=until_ms, seen_ms=seen_ms, rules=book[geofence_id]
                )
                if kept is not None:
                    after[geofence_id] = kept
                outcome.told += [
                    Told(
                        device_id,
                        int(states["brand_id"][place]),
                        Footprint(geofence_id, change, -1),
                    )
                    for change in changes
                ]
        write_outcome(cursor, states, outcome, armed, now, touch=True)
    return len(due)


def end_unarmed(*, now: int, armed: Armed, limit: int = BATCH) -> int:
    """End visits in geofences that are no longer armed or have moved. Answers how many."""
    with transaction.atomic(), open_cursor() as cursor:
        cursor.execute(_UNARMED, (limit,))
        over = {(device, fence): (why, at) for device, fence, why, at in cursor.fetchall()}
        if not over:
            return 0
        ids = np.unique(np.array([device_id for device_id, _ in over], dtype=np.int64))
        states, stored = read_locked(cursor, ids)
        outcome = Outcome()
        for place, device_id in enumerate(states["device_id"].tolist()):
            before = stored.get(device_id, {})
            gone = sorted(each for each in before if (device_id, each) in over)
            outcome.before[device_id] = before
            outcome.after[device_id] = {k: v for k, v in before.items() if k not in gone}
            for geofence_id in gone:
                if before[geofence_id].state is PresenceState.ENTERING:
                    continue
                why, at_ms = over[device_id, geofence_id]
                change: Change = ended(
                    before[geofence_id], at_ms=at_ms, reason=TransitionReason(why)
                )
                outcome.told.append(
                    Told(
                        device_id,
                        int(states["brand_id"][place]),
                        Footprint(geofence_id, change, -1),
                    )
                )
        write_outcome(cursor, states, outcome, armed, now)
    return len(over)


def run(stop: threading.Event) -> None:
    """The clock's loop; one is enough, several do no harm."""
    swept = kept = 0.0
    horizon = -1
    while not stop.is_set():
        armed = follower.refresh()
        while run_due(now=now_ms(), armed=armed) == BATCH:
            pass
        if armed.horizon != horizon or time.monotonic() - swept > SWEEP_S:
            swept, horizon = time.monotonic(), armed.horizon
            while end_unarmed(now=now_ms(), armed=armed) == BATCH:
                pass
        if time.monotonic() - kept > RETENTION_S or not kept:
            kept = time.monotonic()
            retention.keep(now=datetime.now(UTC))
            profile_undo.forget(now=datetime.now(UTC))
        stop.wait(LOOK_S)
    connection.close()

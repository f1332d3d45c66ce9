"""What ingest and the clock write, inside their transaction; it decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
from django.conf import settings
from numpy.typing import NDArray

from devices.arrays import Column, copy_stream, query, read_column, timestamps
from devices.presence import PresenceState, Rules, TransitionKind, TransitionReason, due_ms
from devices.sightings import Outcome, RulesBook, Told, count_presences
from geofences.armed import Armed
from geofences.matching import Index

# The version says that nobody wrote since the caller read; the order of the ids, that two writers
# wait for each other and never in a ring.
_STATES = """
    WITH written AS (
      UPDATE devices_devicestate s
         SET version = s.version + 1, presences = u.presences,
             received_at = nullif(u.received_at, '-infinity'),
             recorded_at = nullif(u.recorded_at, '-infinity'),
             lat = nullif(u.lat, 'NaN'), lng = nullif(u.lng, 'NaN'),
             accuracy_m = nullif(u.accuracy_m, 'NaN'), speed_mps = nullif(u.speed_mps, 'NaN'),
             jump_lat = nullif(u.jump_lat, 'NaN'), jump_lng = nullif(u.jump_lng, 'NaN')
        FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
          AS u(device_id, version, presences, received_at, recorded_at, lat, lng, accuracy_m,
               speed_mps, jump_lat, jump_lng)
       WHERE s.device_id = u.device_id AND s.version = u.version
      RETURNING s.device_id
    )
    SELECT array_agg(device_id) FROM written
"""
_COPY_FIXES = """
    COPY devices_fix (device_id, key, received_at, recorded_at, lat, lng, accuracy_m, speed_mps,
                      heading_deg, altitude_m, battery, verdict)
    FROM STDIN (FORMAT BINARY)
"""
_FORGET = """
    DELETE FROM devices_presence p USING unnest(%s::int8[], %s::int8[]) AS u(device_id, geofence_id)
     WHERE p.device_id = u.device_id AND p.geofence_id = u.geofence_id
"""
_BELIEVE = """
    INSERT INTO devices_presence (device_id, geofence_id, brand_id, state, visit_id, entered_at,
                                  since_at, agreeing, dwelled_s, shape_version, due_at)
    SELECT device_id, geofence_id, brand_id, (%s::text[])[state], visit_id, entered_at, since_at,
           agreeing, dwelled_s, shape_version, due_at
      FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        AS u(device_id, geofence_id, brand_id, state, visit_id, entered_at, since_at, agreeing,
             dwelled_s, shape_version, due_at)
    ON CONFLICT (device_id, geofence_id) DO UPDATE SET
      state = excluded.state, visit_id = excluded.visit_id, entered_at = excluded.entered_at,
      since_at = excluded.since_at, agreeing = excluded.agreeing, dwelled_s = excluded.dwelled_s,
      shape_version = excluded.shape_version, due_at = excluded.due_at
"""
# A transition no campaign waits for is born processed: evaluation never has to look at it.
_TRANSITIONS = """
    INSERT INTO devices_transition (brand_id, device_id, geofence_id, kind, visit_id, dwell_s,
                                    entered_at, occurred_at, recorded_at, reason, lat, lng,
                                    accuracy_m, processed_at, parked_reason)
    SELECT u.brand_id, u.device_id, u.geofence_id, (%s::text[])[u.kind], u.visit_id, u.dwell_s,
           u.entered_at, u.occurred_at, %s, (%s::text[])[u.reason],
           nullif(u.lat, 'NaN'), nullif(u.lng, 'NaN'), nullif(u.accuracy_m, 'NaN'),
           CASE WHEN u.wanted THEN NULL ELSE now() END, ''
      FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           WITH ORDINALITY
        AS u(brand_id, device_id, geofence_id, kind, visit_id, dwell_s, entered_at, occurred_at,
             reason, lat, lng, accuracy_m, wanted, number)
     ORDER BY u.number
    ON CONFLICT DO NOTHING
"""

# Words cross as their places in these lists: an array of text is quoted value by value.
_PRESENCE_STATES, _KINDS, _REASONS = (
    [each.value for each in words] for words in (PresenceState, TransitionKind, TransitionReason)
)


def _numbers(words: Iterable[str], of: Sequence[str]) -> Column:
    """Where in a list of words they stand, as PostgreSQL counts: from one."""
    place = {word: number for number, word in enumerate(of, start=1)}
    return _ints((place[word] for word in words), "i2")


def _ints(values: Iterable[int], dtype: str = "i8") -> Column:
    return Column(np.array(list(values), dtype=dtype))


def _instants(values: Iterable[int]) -> Column:
    return Column(np.array(list(values), dtype=np.int64), instants=True)


def write_history(
    cursor: psycopg.Cursor[Any],
    fixes: NDArray[np.void],
    verdicts: NDArray[np.int8],
    now_ms: int,
) -> None:
    columns = {
        "device_id": ("i8", fixes["device_id"]),
        "key": ("i8", fixes["key"]),
        "received_at": ("i8", timestamps(np.full(len(fixes), now_ms, dtype=np.int64))),
        "recorded_at": ("i8", timestamps(fixes["recorded_ms"])),
        "lat": ("f8", fixes["lat"]),
        "lng": ("f8", fixes["lng"]),
        "accuracy_m": ("f4", fixes["accuracy_m"]),
        "speed_mps": ("f4", fixes["speed_mps"]),
        "heading_deg": ("f4", fixes["heading_deg"]),
        "altitude_m": ("f4", fixes["altitude_m"]),
        "battery": ("f4", fixes["battery"]),
        "verdict": ("i2", verdicts),
    }
    if not len(fixes):
        return
    with cursor.copy(_COPY_FIXES) as copy:
        for block in copy_stream(columns):
            copy.write(block)


def write_states(cursor: psycopg.Cursor[Any], states: NDArray[np.void]) -> NDArray[np.int64]:
    """Write hot rows over those of the version they carry. Answers the ids for which it held."""
    columns = [
        Column(states[name], instants=name.endswith("_ms"))
        for name in (
            "device_id",
            "version",
            "presences",
            "received_ms",
            "recorded_ms",
            "lat",
            "lng",
            "accuracy_m",
            "speed_mps",
            "jump_lat",
            "jump_lng",
        )
    ]
    return read_column(query(cursor, _STATES, columns)[0], "i8")


def _datetime(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def write_beliefs(
    cursor: psycopg.Cursor[Any],
    outcome: Outcome,
    states: NDArray[np.void],
    rules_of: Callable[[int], Rules],
    *,
    touch: bool = False,
) -> None:
    """Store only what differs from what is stored; `touch` also sets the next due time anew.

    A due time is on our clock: the device's own time, put off by how late its fixes come.
    """
    gone = [
        (device_id, geofence_id)
        for device_id, before in outcome.before.items()
        for geofence_id in before
        if geofence_id not in outcome.after[device_id]
    ]
    if gone:
        cursor.execute(_FORGET, (_ints(d for d, _ in gone), _ints(g for _, g in gone)))
    kept = [
        (device_id, geofence_id, belief)
        for device_id, after in outcome.after.items()
        for geofence_id, belief in after.items()
        if touch or outcome.before[device_id].get(geofence_id) is not belief
    ]
    if not kept:
        return
    devices = np.array([d for d, _, _ in kept], dtype=np.int64)
    cursor.execute(
        _BELIEVE,
        (
            _PRESENCE_STATES,
            Column(devices),
            _ints(g for _, g, _ in kept),
            Column(states["brand_id"][np.searchsorted(states["device_id"], devices)]),
            _numbers((b.state for _, _, b in kept), _PRESENCE_STATES),
            _ints(b.visit_id for _, _, b in kept),
            _instants(b.entered_ms for _, _, b in kept),
            _instants(b.since_ms for _, _, b in kept),
            _ints((b.agreeing for _, _, b in kept), "i2"),
            _ints((b.dwelled_s for _, _, b in kept), "i4"),
            _ints((b.shape_version for _, _, b in kept), "i4"),
            _instants(
                due_ms(belief, seen_ms=outcome.seen_ms[device], rules=rules_of(geofence_id))
                + outcome.heard_ms[device]
                - outcome.seen_ms[device]
                for device, geofence_id, belief in kept
            ),
        ),
        prepare=True,
    )


def write_transitions(
    cursor: psycopg.Cursor[Any],
    told: Sequence[Told],
    fixes: NDArray[np.void] | None,
    index: Index,
    now_ms: int,
) -> None:
    """Insert in the order told; those that a campaign may wait for wake evaluation at commit.

    `fixes` are those that `Told.row` counts in.
    """
    if not told:
        return
    ids = np.array([each.footprint.geofence_id for each in told], dtype=np.int64)
    ordinal = index.ordinals(ids)
    wanted = np.ones(len(told), dtype=bool)  # no longer armed: evaluation says what that means
    wanted[ordinal >= 0] = index.settings["campaign"][ordinal[ordinal >= 0]]
    place = np.full((3, len(told)), np.nan)
    if fixes is not None:
        rows = np.array([each.row for each in told], dtype=np.int64)
        for line, name in enumerate(("lat", "lng", "accuracy_m")):
            place[line, rows >= 0] = fixes[name][rows[rows >= 0]]
    changes = [each.footprint.change for each in told]
    cursor.execute(
        _TRANSITIONS,
        (
            _KINDS,
            _datetime(now_ms),
            _REASONS,
            _ints(each.brand_id for each in told),
            _ints(each.device_id for each in told),
            Column(ids),
            _numbers((change.kind for change in changes), _KINDS),
            _ints(change.visit_id for change in changes),
            _ints((change.dwell_s for change in changes), "i4"),
            _instants(change.entered_ms for change in changes),
            _instants(change.occurred_ms for change in changes),
            _numbers((change.reason for change in changes), _REASONS),
            Column(place[0]),
            Column(place[1]),
            Column(place[2]),
            Column(wanted),
        ),
        prepare=True,
    )
    if wanted.any():
        cursor.execute("SELECT pg_notify('nearcast_transitions', '')")


def write_outcome(
    cursor: psycopg.Cursor[Any],
    states: NDArray[np.void],
    outcome: Outcome,
    armed: Armed,
    now_ms: int,
    *,
    touch: bool = False,
) -> None:
    """Write changes that no fix caused; the hot rows of `states` must be locked."""
    count_presences(states, outcome)
    write_states(cursor, states)
    book = RulesBook(armed.index, armed.dwells, silence_ms=settings.SILENCE_S * 1000)
    write_beliefs(cursor, outcome, states, book, touch=touch)
    write_transitions(cursor, outcome.told, None, armed.index, now_ms)

"""What ingest and the clock write, in one statement; it decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from devices.arrays import Column, copy_stream, query, read_column, read_tids, timestamps
from devices.judgement import firsts
from devices.presence import KINDS, REASONS, STATES, PresenceState
from devices.sightings import Outcome, count_presences
from devices.walks import end
from geofences.matching import Index

Columns = Mapping[str, NDArray[Any]]
"""Equally long columns by name; `…_ms` are epoch milliseconds."""

_OUTSIDE = STATES.index(PresenceState.OUTSIDE)

# Words cross as their places in a list, which PostgreSQL counts from one.
# {given} are the columns handed over, as rows u; their number says in which order.
# One statement writes whatever a batch changes, so that a small batch is one round trip and needs
# no other transaction. The version says that nobody wrote since the caller read; the order of the
# ids, that two writers wait for each other and never in a ring. Of a device that somebody wrote
# nothing else is written either: IS TRUE has those looked up in a hash table; as a plain IN they
# would be joined, row by row with each of them, as the plan must serve a single device too.
_STATES = """
    written AS (
      UPDATE devices_devicestate s
         SET version = s.version + 1, presences = u.presences,
             received_at = nullif(u.received_at, '-infinity'),
             recorded_at = nullif(u.recorded_at, '-infinity'),
             lat = nullif(u.lat, 'NaN'), lng = nullif(u.lng, 'NaN'),
             accuracy_m = nullif(u.accuracy_m, 'NaN'), speed_mps = nullif(u.speed_mps, 'NaN'),
             jump_lat = nullif(u.jump_lat, 'NaN'), jump_lng = nullif(u.jump_lng, 'NaN')
        FROM {given}
       WHERE s.device_id = u.device_id AND s.version = u.version
      RETURNING s.device_id, s.ctid AS tid
    )
"""
# The same where the rows are known to lie: no index is looked into.
_STATES_THERE = _STATES.replace("WHERE ", "WHERE s.ctid = u.tid AND ")
_STATE_NAMES = (
    *("device_id", "version", "presences", "received_ms", "recorded_ms", "lat", "lng"),
    *("accuracy_m", "speed_mps", "jump_lat", "jump_lng"),
)
_HISTORY = """
    kept AS (
      INSERT INTO devices_fix (device_id, key, received_at, recorded_at, lat, lng, accuracy_m,
                               speed_mps, heading_deg, altitude_m, battery, verdict)
      SELECT device_id, key, received_at, recorded_at, lat, lng, nullif(accuracy_m, 'NaN'),
             nullif(speed_mps, 'NaN'), nullif(heading_deg, 'NaN'), nullif(altitude_m, 'NaN'),
             nullif(battery, 'NaN'), verdict
        FROM {given}
       WHERE (device_id IN (SELECT device_id FROM written)) IS TRUE
    )
"""
_COPY_FIXES = """
    COPY devices_fix (device_id, key, received_at, recorded_at, lat, lng, accuracy_m, speed_mps,
                      heading_deg, altitude_m, battery, verdict)
    FROM STDIN (FORMAT BINARY)
"""
_FORGOTTEN = """
    forgotten AS (
      DELETE FROM devices_presence p
       USING {given}
       WHERE p.device_id = u.device_id AND p.geofence_id = u.geofence_id
         AND (u.device_id IN (SELECT device_id FROM written)) IS TRUE
    )
"""
_BELIEVED = """
    believed AS (
      INSERT INTO devices_presence (device_id, geofence_id, brand_id, state, visit_id, entered_at,
                                    since_at, agreeing, dwelled_s, shape_version, due_at)
      SELECT device_id, geofence_id, brand_id, ({states})[state + 1], visit_id,
             entered_at, since_at, agreeing, dwelled_s, shape_version, due_at
        FROM {given}
       WHERE (device_id IN (SELECT device_id FROM written)) IS TRUE
      ON CONFLICT (device_id, geofence_id) DO UPDATE SET
        state = excluded.state, visit_id = excluded.visit_id, entered_at = excluded.entered_at,
        since_at = excluded.since_at, agreeing = excluded.agreeing,
        dwelled_s = excluded.dwelled_s, shape_version = excluded.shape_version,
        due_at = excluded.due_at
    )
"""
# A transition no campaign waits for is born processed: evaluation never has to look at it.
_TOLD = """
    told AS (
      INSERT INTO devices_transition (brand_id, device_id, geofence_id, kind, visit_id, dwell_s,
                                      entered_at, occurred_at, recorded_at, reason, lat, lng,
                                      accuracy_m, processed_at, parked_reason)
      SELECT brand_id, device_id, geofence_id, ({kinds})[kind + 1], visit_id, dwell_s,
             entered_at, occurred_at, recorded_at, ({reasons})[reason + 1],
             nullif(lat, 'NaN'), nullif(lng, 'NaN'), nullif(accuracy_m, 'NaN'),
             CASE WHEN wanted = 1 THEN NULL ELSE now() END, ''
        FROM {given}
       WHERE (device_id IN (SELECT device_id FROM written)) IS TRUE
       ORDER BY number
      ON CONFLICT DO NOTHING
      RETURNING processed_at
    )
"""
_KEPT = "SELECT array_agg(device_id), array_agg(tid){wake} FROM written"
_WAKE = """
    , (SELECT pg_notify('nearcast_transitions', '')
         FROM told WHERE processed_at IS NULL LIMIT 1)
"""


# A million devices of which ten thousand report have a page of hot rows for each of these. To come
# there through the index costs as much again as the write; but it is on that way that PostgreSQL
# clears a page of versions that nobody needs, so every so often it is taken all the same.
_MANY = 512  # rows from which their places are worth a look
_ROOM = 8  # writes of two rows a page that the room on it (fillfactor 70) is enough for


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What an outcome changes in rows; None where it changes nothing there."""

    forgotten: Columns | None
    believed: Columns | None
    told: Columns | None


def write(
    cursor: psycopg.Cursor[Any],
    states: NDArray[np.void],
    changes: Changes,
    history: Columns | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write hot rows over those of the version they carry, and with them what else changed.

    Answers the ids for which the version held, and where their rows lie now: of the others nothing
    is written. Transitions are inserted in the order told; those that a campaign may wait for wake
    evaluation at commit.
    """
    there = _lie_apart(states)
    names = ("tid", *_STATE_NAMES) if there else _STATE_NAMES
    parts = [
        (_STATES_THERE if there else _STATES, {name: states[name] for name in names}),
        (_HISTORY, history),
        (_FORGOTTEN, changes.forgotten),
        (_BELIEVED, changes.believed),
        (_TOLD, changes.told),
    ]
    given = [(part, columns) for part, columns in parts if columns is not None]
    statement = _statement(tuple((part, tuple(columns)) for part, columns in given))
    params = [column for _, columns in given for column in Column.packed(columns)]
    ids, tids, *_ = query(cursor, statement, params)
    return read_column(ids, "i8"), read_tids(tids)


def _lie_apart(states: NDArray[np.void]) -> bool:
    """Whether these rows, whose places are known, hardly share a page, and it is not full yet."""
    tids = states["tid"]
    if len(tids) < _MANY or not tids.all() or states["version"][0] % _ROOM == 0:
        return False
    pages = np.count_nonzero(firsts(np.sort(tids >> 16)))
    return bool(2 * pages > len(tids))


@cache
def _statement(parts: tuple[tuple[str, tuple[str, ...]], ...]) -> bytes:
    """The whole of it, for parts with columns of these names."""
    number = count(1)
    written = [_part(sql, {name: f"${next(number)}" for name in names}) for sql, names in parts]
    wake = _WAKE if any(sql is _TOLD for sql, _ in parts) else ""
    return ("WITH" + ",".join(written) + _KEPT.format(wake=wake)).encode()


def _part(sql: str, params: Mapping[str, str]) -> str:
    """One part of the statement, for columns by name.

    PostgreSQL takes the first apart and looks the others up by place: `unnest` of all of them
    costs it twice as much, since it puts the values of each in a store of their own.
    """
    (first, head), *others = ((name.replace("_ms", "_at"), param) for name, param in params.items())
    looked_up = ", ".join(f"({param})[place] AS {name}" for name, param in others)
    given = (
        f"unnest({head}) WITH ORDINALITY AS head(value, place),"
        f" LATERAL (SELECT value AS {first}, place AS number, {looked_up}) AS u"
    )
    states, kinds, reasons = map(_listed, (STATES, KINDS, REASONS))
    return sql.format(given=given, states=states, kinds=kinds, reasons=reasons)


def _listed(words: Sequence[str]) -> str:
    return "ARRAY[" + ", ".join(f"'{word}'" for word in words) + "]"


def history_of(fixes: NDArray[np.void], verdicts: NDArray[np.int8], now_ms: int) -> Columns:
    """One line of history a fix."""
    return {
        "device_id": fixes["device_id"],
        "key": fixes["key"],
        "received_ms": np.full(len(fixes), now_ms, dtype=np.int64),
        "recorded_ms": fixes["recorded_ms"],
        "lat": fixes["lat"],
        "lng": fixes["lng"],
        "accuracy_m": fixes["accuracy_m"],
        "speed_mps": fixes["speed_mps"],
        "heading_deg": fixes["heading_deg"],
        "altitude_m": fixes["altitude_m"],
        "battery": fixes["battery"],
        "verdict": verdicts,
    }


_FIX_TYPES = ("i8", "i8", "i8", "i8", "f8", "f8", "f4", "f4", "f4", "f4", "f4", "i2")


def copy_history(cursor: psycopg.Cursor[Any], history: Columns) -> None:
    """The same rows by COPY: cheaper for PostgreSQL in bulk, dearer than a statement's part."""
    columns = {
        name: (dtype, timestamps(column) if name.endswith("_ms") else column)
        for dtype, (name, column) in zip(_FIX_TYPES, history.items(), strict=True)
    }
    with cursor.copy(_COPY_FIXES) as copy:
        for block in copy_stream(columns):
            copy.write(block)


def changes_of(
    outcome: Outcome,
    states: NDArray[np.void],
    fixes: NDArray[np.void] | None,
    index: Index,
    *,
    now_ms: int,
    touch: bool = False,
) -> Changes:
    """Only what differs from what is stored; `touch` also sets the next due time anew.

    `fixes` are those that the rows of what is told count in.
    """
    believed = outcome.after["state"] != _OUTSIDE
    changed = believed if touch else believed & (outcome.after != outcome.before)
    return Changes(
        forgotten=_forgotten(outcome, np.flatnonzero(~believed)),
        believed=_believed(outcome, states, np.flatnonzero(changed)),
        told=_told(outcome.told, states, fixes, index, now_ms),
    )


def _forgotten(outcome: Outcome, rows: NDArray[np.int64]) -> Columns | None:
    gone = outcome.before[rows[outcome.before["state"][rows] != _OUTSIDE]]
    if not len(gone):
        return None
    return {"device_id": gone["device_id"], "geofence_id": gone["geofence_id"]}


def _believed(
    outcome: Outcome, states: NDArray[np.void], rows: NDArray[np.int64]
) -> Columns | None:
    if not len(rows):
        return None
    kept = outcome.after.take(rows)
    same = ("visit_id", "entered_ms", "since_ms", "agreeing", "dwelled_s", "shape_version")
    return {
        "device_id": kept["device_id"],
        "geofence_id": kept["geofence_id"],
        "brand_id": _brands(kept["device_id"], states),
        "state": kept["state"],
        **{name: kept[name] for name in same},
        "due_ms": outcome.due_ms[rows],
    }


def _brands(device_ids: NDArray[np.int64], states: NDArray[np.void]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = states["brand_id"][np.searchsorted(states["device_id"], device_ids)]
    return found


def _told(
    told: NDArray[np.void],
    states: NDArray[np.void],
    fixes: NDArray[np.void] | None,
    index: Index,
    now_ms: int,
) -> Columns | None:
    if not len(told):
        return None
    ordinal = index.ordinals(told["geofence_id"])
    wanted = np.ones(len(told), dtype=bool)  # no longer armed: evaluation says what that means
    wanted[ordinal >= 0] = index.settings["campaign"][ordinal[ordinal >= 0]]
    place = np.full((3, len(told)), np.nan)
    if fixes is not None:
        rows = told["row"]
        for line, name in enumerate(("lat", "lng", "accuracy_m")):
            place[line, rows >= 0] = fixes[name][rows[rows >= 0]]
    return {
        "brand_id": _brands(told["device_id"], states),
        **{name: told[name] for name in ("device_id", "geofence_id", "kind", "visit_id")},
        **{name: told[name] for name in ("dwell_s", "entered_ms", "occurred_ms")},
        "recorded_ms": np.full(len(told), now_ms, dtype=np.int64),
        "reason": told["reason"],
        "lat": place[0],
        "lng": place[1],
        "accuracy_m": place[2],
        "wanted": wanted,
    }


def write_outcome(
    cursor: psycopg.Cursor[Any],
    states: NDArray[np.void],
    outcome: Outcome,
    index: Index,
    now_ms: int,
    *,
    touch: bool = False,
) -> None:
    """Write changes that no fix caused; the hot rows of `states` must be locked."""
    count_presences(states, outcome)
    write(cursor, states, changes_of(outcome, states, None, index, now_ms=now_ms, touch=touch))


def end_visits(
    cursor: psycopg.Cursor[Any],
    states: NDArray[np.void],
    beliefs: NDArray[np.void],
    at_ms: NDArray[np.int64],
    reasons: NDArray[np.int8],
    index: Index,
    now_ms: int,
) -> None:
    """Forget these beliefs and write how their visits ended; the hot rows must be locked.

    `reasons` are places in REASONS.
    """
    after = beliefs.copy()
    told = end(after, at_ms, reasons)
    # Nothing is believed afterwards, so when it is due is never asked.
    outcome = Outcome(before=beliefs, after=after, due_ms=at_ms, told=told)
    write_outcome(cursor, states, outcome, index, now_ms)

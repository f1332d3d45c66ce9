"""What ingest and the clock write, inside their transaction; it decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from devices.arrays import Column, copy_stream, timestamps
from devices.presence import Rules, due_ms
from devices.sightings import Fleet, Outcome, Told
from geofences.matching import Index

_MOVE = """
    UPDATE devices_devicestate s
       SET recorded_at = u.recorded_at, received_at = %s, lat = u.lat, lng = u.lng,
           accuracy_m = nullif(u.accuracy_m, 'NaN'), speed_mps = nullif(u.speed_mps, 'NaN'),
           presences = u.presences, jump_lat = NULL, jump_lng = NULL
      FROM unnest(%s, %s, %s, %s, %s, %s, %s)
        AS u(device_id, recorded_at, lat, lng, accuracy_m, speed_mps, presences)
     WHERE s.device_id = u.device_id
"""
_JUMP = """
    UPDATE devices_devicestate s SET jump_lat = u.lat, jump_lng = u.lng
      FROM unnest(%s::int8[], %s::float8[], %s::float8[]) AS u(device_id, lat, lng)
     WHERE s.device_id = u.device_id
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
    SELECT * FROM unnest(%s, %s, %s, %s::text[], %s, %s, %s, %s, %s, %s, %s)
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
    SELECT u.brand_id, u.device_id, u.geofence_id, u.kind, u.visit_id, u.dwell_s, u.entered_at,
           u.occurred_at, %s, u.reason, nullif(u.lat, 'NaN'), nullif(u.lng, 'NaN'),
           nullif(u.accuracy_m, 'NaN'), CASE WHEN u.wanted THEN NULL ELSE now() END, ''
      FROM unnest(%s, %s, %s, %s::text[], %s, %s, %s, %s, %s::text[], %s, %s, %s, %s)
           WITH ORDINALITY
        AS u(brand_id, device_id, geofence_id, kind, visit_id, dwell_s, entered_at, occurred_at,
             reason, lat, lng, accuracy_m, wanted, number)
     ORDER BY u.number
    ON CONFLICT DO NOTHING
"""


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


def write_places(
    cursor: psycopg.Cursor[Any],
    fixes: NDArray[np.void],
    device: NDArray[np.int64],
    fleet: Fleet,
    outcome: Outcome,
    now_ms: int,
) -> None:
    """The last used fix of each device, and how many presences it now has."""
    if not len(fixes):
        return
    last = np.flatnonzero(np.append(device[1:] != device[:-1], True))
    rows, which = fixes[last], device[last]
    presences = fleet.presences.copy()
    walked, grown = _growth(outcome)
    presences[np.searchsorted(fleet.device_id, walked)] += grown
    cursor.execute(
        _MOVE,
        (
            _datetime(now_ms),
            Column(fleet.device_id[which]),
            Column(rows["recorded_ms"], instants=True),
            Column(rows["lat"]),
            Column(rows["lng"]),
            Column(rows["accuracy_m"]),
            Column(rows["speed_mps"].astype("f8")),
            Column(presences[which]),
        ),
        prepare=True,
    )


def _growth(outcome: Outcome) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Devices that walked, and by how many presences each has more."""
    grown = [len(after) - len(outcome.before[each]) for each, after in outcome.after.items()]
    return np.array(list(outcome.after), dtype=np.int64), np.array(grown, dtype=np.int32)


def write_presence_counts(cursor: psycopg.Cursor[Any], outcome: Outcome) -> None:
    """For changes that no fix caused: `write_places` counts with the place."""
    walked, grown = _growth(outcome)
    cursor.execute(
        "UPDATE devices_devicestate s SET presences = s.presences + u.grown"
        " FROM unnest(%s, %s) AS u(device_id, grown)"
        " WHERE s.device_id = u.device_id AND u.grown <> 0",
        (Column(walked), Column(grown)),
    )


def write_jumps(
    cursor: psycopg.Cursor[Any], fleet: Fleet, jumps: Mapping[int, tuple[float, float]]
) -> None:
    """Remember the far places that one more fix would confirm; `jumps` by place in the fleet."""
    if jumps:
        cursor.execute(
            _JUMP,
            (
                Column(fleet.device_id[list(jumps)]),
                Column(np.array([lat for lat, _ in jumps.values()])),
                Column(np.array([lng for _, lng in jumps.values()])),
            ),
        )


def _datetime(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def write_beliefs(
    cursor: psycopg.Cursor[Any],
    outcome: Outcome,
    fleet: Fleet,
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
            Column(devices),
            _ints(g for _, g, _ in kept),
            Column(fleet.brand_id[np.searchsorted(fleet.device_id, devices)]),
            [b.state.value for _, _, b in kept],
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
            _datetime(now_ms),
            _ints(each.brand_id for each in told),
            _ints(each.device_id for each in told),
            Column(ids),
            [change.kind.value for change in changes],
            _ints(change.visit_id for change in changes),
            _ints((change.dwell_s for change in changes), "i4"),
            _instants(change.entered_ms for change in changes),
            _instants(change.occurred_ms for change in changes),
            [change.reason.value for change in changes],
            Column(place[0]),
            Column(place[1]),
            Column(place[2]),
            Column(wanted),
        ),
        prepare=True,
    )
    if wanted.any():
        cursor.execute("SELECT pg_notify('nearcast_transitions', '')")


def forget_all(cursor: psycopg.Cursor[Any], device_ids: Sequence[int]) -> None:
    """Believe these devices to be nowhere."""
    ids = list(device_ids)
    cursor.execute("DELETE FROM devices_presence WHERE device_id = ANY(%s)", (ids,))
    cursor.execute("UPDATE devices_devicestate SET presences = 0 WHERE device_id = ANY(%s)", (ids,))

"""What ingest and the clock read, under the lock of the devices' hot rows; it writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from django.db import connection
from numpy.typing import NDArray

from devices.arrays import Column, read_column, read_instants, register
from devices.judgement import Places
from devices.presence import Belief, PresenceState
from devices.sightings import Fleet

_STORED = (PresenceState.ENTERING, PresenceState.INSIDE, PresenceState.LEAVING)


def open_cursor() -> psycopg.Cursor[Any]:
    """A cursor on Django's connection as psycopg sees it: server-side parameters, numpy columns."""
    connection.ensure_connection()
    raw: psycopg.Connection[Any] = connection.connection
    register(raw)
    return psycopg.Cursor(raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """The locked hot rows of a batch, ascending by device id."""

    fleet: Fleet
    serial: NDArray[np.int32]
    consent: NDArray[np.bool_]
    places: Places


def _query(cursor: psycopg.Cursor[Any], sql: str, params: Sequence[Any]) -> list[bytes | None]:
    """The one row of a query, each value as PostgreSQL's binary, undecoded."""
    cursor.execute(sql, params, prepare=True, binary=True)
    result = cursor.pgresult
    assert result is not None
    return [result.get_value(0, column) for column in range(result.nfields)]


_LOCK = """
    WITH locked AS MATERIALIZED (
      SELECT * FROM devices_devicestate WHERE device_id = ANY(%s) ORDER BY device_id FOR UPDATE
    )
    SELECT array_agg(device_id), array_agg(brand_id), array_agg(serial),
           array_agg(consent_location), array_agg(presences),
           array_agg(coalesce(received_at, '-infinity')),
           array_agg(coalesce(recorded_at, '-infinity')),
           array_agg(coalesce(lat, 'NaN')), array_agg(coalesce(lng, 'NaN')),
           array_agg(coalesce(accuracy_m, 'NaN')),
           array_agg(coalesce(jump_lat, 'NaN')), array_agg(coalesce(jump_lng, 'NaN'))
      FROM locked
"""


def lock_states(cursor: psycopg.Cursor[Any], device_ids: NDArray[np.int64]) -> States:
    """Lock in id order: two batches that share devices wait for each other, never in a ring."""
    wire = _query(cursor, _LOCK, (Column(device_ids),))
    places = Places(
        recorded_ms=read_instants(wire[6]),
        lat=read_column(wire[7], "f8"),
        lng=read_column(wire[8], "f8"),
        accuracy_m=read_column(wire[9], "f8"),
        jump_lat=read_column(wire[10], "f8"),
        jump_lng=read_column(wire[11], "f8"),
    )
    fleet = Fleet(
        device_id=read_column(wire[0], "i8"),
        brand_id=read_column(wire[1], "i8"),
        presences=read_column(wire[4], "i4"),
        recorded_ms=places.recorded_ms,
        received_ms=read_instants(wire[5]),
        lat=places.lat,
        lng=places.lng,
    )
    return States(
        fleet=fleet,
        serial=read_column(wire[2], "i4"),
        consent=read_column(wire[3], "b1"),
        places=places,
    )


_KNOWN = """
    SELECT array_agg(device_id), array_agg(key) FROM (
      SELECT f.device_id, f.key
        FROM unnest(%s, %s) AS u(device_id, key)
        JOIN devices_fix f USING (device_id, key)
    ) known
"""


def already_stored(
    cursor: psycopg.Cursor[Any], fixes: NDArray[np.void], asked: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which of the asked-about fixes history holds already, or this batch holds earlier."""
    pairs = np.empty(len(fixes), dtype=[("device_id", "i8"), ("key", "i8")])
    pairs["device_id"], pairs["key"] = fixes["device_id"], fixes["key"]
    repeated = np.ones(len(fixes), dtype=bool)
    repeated[np.unique(pairs, return_index=True)[1]] = False
    rows = np.flatnonzero(asked & ~repeated)
    if len(rows):
        wire = _query(
            cursor, _KNOWN, (Column(fixes["device_id"][rows]), Column(fixes["key"][rows]))
        )
        known = set(
            zip(
                read_column(wire[0], "i8").tolist(),
                read_column(wire[1], "i8").tolist(),
                strict=True,
            )
        )
        if known:
            repeated[rows] |= [pair in known for pair in pairs[rows].tolist()]
    return repeated


_PRESENCES = """
    SELECT array_agg(device_id), array_agg(geofence_id),
           array_agg((CASE state WHEN 'entering' THEN 0 WHEN 'inside' THEN 1 ELSE 2 END)::int2),
           array_agg(visit_id), array_agg(entered_at), array_agg(since_at),
           array_agg(agreeing), array_agg(dwelled_s), array_agg(shape_version)
      FROM devices_presence WHERE device_id = ANY(%s)
"""


def beliefs_of(
    cursor: psycopg.Cursor[Any], device_ids: NDArray[np.int64]
) -> dict[int, dict[int, Belief]]:
    """Stored beliefs by device and geofence; the devices' hot rows must be locked."""
    found: dict[int, dict[int, Belief]] = {}
    if not len(device_ids):
        return found
    wire = _query(cursor, _PRESENCES, (Column(device_ids),))
    columns = (
        read_column(wire[0], "i8"),
        read_column(wire[1], "i8"),
        read_column(wire[2], "i2"),
        read_column(wire[3], "i8"),
        read_instants(wire[4]),
        read_instants(wire[5]),
        read_column(wire[6], "i2"),
        read_column(wire[7], "i4"),
        read_column(wire[8], "i4"),
    )
    for device_id, geofence_id, state, *rest in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        found.setdefault(device_id, {})[geofence_id] = Belief(_STORED[state], *rest)
    return found

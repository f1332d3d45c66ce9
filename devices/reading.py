"""What ingest and the clock read of devices, their history and their beliefs; it writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from django.db import connection
from numpy.typing import NDArray

from devices.arrays import Column, query, read_column, read_instants, register
from devices.judgement import STATE_DTYPE
from devices.presence import Belief, PresenceState

_COLUMN_TYPES = {
    name: "b1" if STATE_DTYPE[name].kind == "b" else STATE_DTYPE[name].str[1:]
    for name in STATE_DTYPE.names or ()
}
_STORED = (PresenceState.ENTERING, PresenceState.INSIDE, PresenceState.LEAVING)


@contextmanager
def open_cursor() -> Iterator[psycopg.Cursor[Any]]:
    """A cursor on Django's connection as psycopg sees it: server-side parameters, numpy columns.

    Errors come out as Django's, so that a lost connection is known for what it is everywhere.
    """
    connection.ensure_connection()
    raw: psycopg.Connection[Any] = connection.connection
    register(raw)
    with connection.wrap_database_errors, psycopg.Cursor(raw) as cursor:
        yield cursor


_STATES = """
    WITH found AS MATERIALIZED (
      SELECT * FROM devices_devicestate WHERE device_id = ANY(%s) ORDER BY device_id {lock}
    )
    SELECT array_agg(device_id), array_agg(version), array_agg(brand_id), array_agg(serial),
           array_agg(consent_location), array_agg(presences),
           array_agg(coalesce(received_at, '-infinity')),
           array_agg(coalesce(recorded_at, '-infinity')),
           array_agg(coalesce(lat, 'NaN')), array_agg(coalesce(lng, 'NaN')),
           array_agg(coalesce(accuracy_m, 'NaN')), array_agg(coalesce(speed_mps, 'NaN')),
           array_agg(coalesce(jump_lat, 'NaN')), array_agg(coalesce(jump_lng, 'NaN'))
      FROM found
"""
_READ, _LOCK = _STATES.format(lock=""), _STATES.format(lock="FOR UPDATE")


def states_of(
    cursor: psycopg.Cursor[Any], device_ids: NDArray[np.int64], *, lock: bool
) -> NDArray[np.void]:
    """The hot rows (STATE_DTYPE) of those devices that exist, ascending by id.

    Locked in id order: two batches that share devices wait for each other, never in a ring.
    """
    wire = query(cursor, _LOCK if lock else _READ, (Column(device_ids),))
    found = np.empty(len(read_column(wire[0], "i8")), dtype=STATE_DTYPE)
    for name, column in zip(STATE_DTYPE.names or (), wire, strict=True):
        if name.endswith("_ms"):
            found[name] = read_instants(column)
        else:
            found[name] = read_column(column, _COLUMN_TYPES[name])
    return found


_KNOWN = """
    SELECT array_agg(device_id), array_agg(key) FROM (
      SELECT f.device_id, f.key
        FROM unnest(%s, %s) AS u(device_id, key)
        JOIN devices_fix f USING (device_id, key)
    ) known
"""


def already_stored(
    cursor: psycopg.Cursor[Any],
    fixes: NDArray[np.void],
    asked: NDArray[np.bool_],
    repeated: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Those `repeated` within the batch, and of the asked-about ones those that history holds."""
    rows = np.flatnonzero(asked & ~repeated)
    if len(rows):
        device_id, key = fixes["device_id"][rows], fixes["key"][rows]
        wire = query(cursor, _KNOWN, (Column(device_id), Column(key)))
        known = set(
            zip(
                read_column(wire[0], "i8").tolist(),
                read_column(wire[1], "i8").tolist(),
                strict=True,
            )
        )
        if known:
            pairs = zip(device_id.tolist(), key.tolist(), strict=True)
            repeated[rows] = [pair in known for pair in pairs]
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
    """Stored beliefs by device and geofence, as true as the hot rows read before them."""
    found: dict[int, dict[int, Belief]] = {}
    if not len(device_ids):
        return found
    wire = query(cursor, _PRESENCES, (Column(device_ids),))
    of_device, of_geofence, states, *rest = (
        column.tolist()
        for column in (
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
    )
    beliefs = map(Belief, map(_STORED.__getitem__, states), *rest)
    for device_id, geofence_id, belief in zip(of_device, of_geofence, beliefs, strict=True):
        found.setdefault(device_id, {})[geofence_id] = belief
    return found

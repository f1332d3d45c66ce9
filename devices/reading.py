"""What ingest and the clock read of devices, their history and their beliefs; it writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from django.db import connection
from numpy.typing import NDArray

from devices.arrays import Column, query, read_column, read_instants, read_tids, register
from devices.judgement import STATE_DTYPE
from devices.presence import BELIEF_DTYPE

_ON_THE_WIRE = {"|b1": "b1", "|i1": "i2"}  # PostgreSQL's smallest number has two bytes


@contextmanager
def open_cursor() -> Iterator[psycopg.Cursor[Any]]:
    """A cursor on Django's connection as psycopg sees it: server-side parameters, numpy columns.

    Parameters are PostgreSQL's own, $1 and so on: psycopg takes a long statement with others apart
    each time. Errors come out as Django's, so that a lost connection is known for what it is.
    """
    connection.ensure_connection()
    raw: psycopg.Connection[Any] = connection.connection
    register(raw)
    with connection.wrap_database_errors, psycopg.RawCursor(raw) as cursor:
        yield cursor


_STATES = """
    SELECT array_agg(device_id), array_agg(version), array_agg(brand_id), array_agg(serial),
           array_agg(consent_location), array_agg(presences),
           array_agg(coalesce(received_at, '-infinity')),
           array_agg(coalesce(recorded_at, '-infinity')),
           array_agg(coalesce(lat, 'NaN')), array_agg(coalesce(lng, 'NaN')),
           array_agg(coalesce(accuracy_m, 'NaN')), array_agg(coalesce(speed_mps, 'NaN')),
           array_agg(coalesce(jump_lat, 'NaN')), array_agg(coalesce(jump_lng, 'NaN')),
           array_agg(tid)
      FROM found
"""
_BELIEFS = """
    SELECT array_agg(device_id), array_agg(geofence_id), array_agg(visit_id),
           array_agg(entered_at), array_agg(since_at), array_agg(shape_version),
           array_agg(dwelled_s), array_agg(agreeing),
           array_agg((CASE state WHEN 'entering' THEN 1 WHEN 'inside' THEN 2 ELSE 3 END)::int2)
      FROM devices_presence WHERE device_id {of}
"""
_FOUND = """
    WITH found AS MATERIALIZED (
      SELECT *, ctid AS tid FROM devices_devicestate
       WHERE device_id = ANY($1) ORDER BY device_id {lock}
    )
"""
_BOTH = "{found} SELECT * FROM ({states}) AS states, ({beliefs}) AS beliefs"
_READ = _BOTH.format(
    found=_FOUND.format(lock=""),
    states=_STATES,
    beliefs=_BELIEFS.format(of="IN (SELECT device_id FROM found WHERE presences > 0)"),
)
_LOCK = _FOUND.format(lock="FOR UPDATE") + _STATES
_READ_LOCKED = _BELIEFS.format(of="= ANY($1)")

Known = tuple[NDArray[np.void], NDArray[np.void]]
"""Hot rows (STATE_DTYPE) and beliefs (BELIEF_DTYPE), ascending by device: of one moment."""


def read(cursor: psycopg.Cursor[Any], device_ids: NDArray[np.int64]) -> Known:
    """What is known of those devices that exist, by one statement: it sees them at one moment."""
    wire = query(cursor, _READ, (Column(device_ids),))
    width = len(STATE_DTYPE.names or ())
    return _rows(wire[:width], STATE_DTYPE), _beliefs(wire[width:])


def read_locked(cursor: psycopg.Cursor[Any], device_ids: NDArray[np.int64]) -> Known:
    """The same, with the hot rows locked until the transaction ends.

    Locked in id order: two batches that share devices wait for each other, never in a ring. The
    beliefs are read after the wait, as a statement sees what there was when it began.
    """
    states = _rows(query(cursor, _LOCK, (Column(device_ids),)), STATE_DTYPE)
    states["tid"] = 0  # under a lock nothing may be missed: who had it may have moved the row
    return states, _beliefs(query(cursor, _READ_LOCKED, (Column(states["device_id"]),)))


def _beliefs(wire: Sequence[bytes | None]) -> NDArray[np.void]:
    found = _rows(wire, BELIEF_DTYPE)
    return found.take(np.lexsort((found["geofence_id"], found["device_id"])))


def _rows(wire: Sequence[bytes | None], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Columns in the order of a type's fields; instants where a name ends in `_ms`."""
    found = np.zeros(len(read_column(wire[0], "i8")), dtype)
    for name, column in zip(dtype.names or (), wire, strict=True):
        if name == "tid":
            found[name] = read_tids(column)
        elif name.endswith("_ms"):
            found[name] = read_instants(column)
        else:
            kind = _ON_THE_WIRE.get(dtype[name].str, dtype[name].str[1:])
            found[name] = read_column(column, kind)
    return found


_KNOWN = """
    SELECT array_agg(device_id), array_agg(key) FROM (
      SELECT f.device_id, f.key
        FROM unnest($1, $2) AS u(device_id, key)
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

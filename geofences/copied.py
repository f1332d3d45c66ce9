"""Geofences and covers as a binary COPY sends their rows, taken apart in bulk. It asks nothing.

A row is the count of its fields, then the length and the bytes of each, big-endian (PostgreSQL's
manual, COPY, Binary Format). Here the fields of one length come first, so that they are one record
of an array, and the last of it says how long the first of the others is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geofences.layers import Columns
from geofences.outlines import Packed
from geofences.ragged import Pieces

Dwells = dict[int, tuple[int, ...]]

HEADER = 19  # bytes before the first row
END = b"\xff\xff"  # instead of one more row
_LENGTH = 4  # bytes before a field
_SIZES = 8  # bytes of a packed shape before its grid (see `packing`)

_TYPES = {">i2": "int2", ">i4": "int4", ">i8": "int8", ">f8": "float8", "?": "boolean"}
_FIXED = (
    ("id", ">i8", "g.id"),
    ("brand", ">i8", "g.brand_id"),
    ("version", ">i4", "g.shape_version"),
    ("exit_buffer_m", ">f8", "g.exit_buffer_m"),
    ("confirm_fixes", ">i2", "g.confirm_fixes"),
    ("confirm_s", ">i4", "g.confirm_s"),
    ("armed_ms", ">i8", "coalesce(date_part('epoch', g.armed_at) * 1000, 0)"),
    ("campaign", "?", "coalesce(g.armed_until > now(), false)"),
    ("resolution", ">i2", "c.resolution"),
    ("shape", ">i4", "length(c.shape)"),
    # Of the grid, below 64 K words; coordinates follow it.
    ("grid", ">i4", "8 * (get_byte(c.shape, 0) + 256 * get_byte(c.shape, 1))"),
)
_OTHERS = "c.blocks, c.shape, array_to_string(g.dwell_thresholds, ' ')"
_LENGTHS = [(f"length of {name}", ">i4") for name, _, _ in _FIXED]
_FIELDS = [(name, kind) for name, kind, _ in _FIXED]
_RECORD = np.dtype(
    [
        ("fields", ">i2"),
        *(field for pair in zip(_LENGTHS, _FIELDS, strict=True) for field in pair),
        ("blocks", ">i4"),
    ]
)

SELECT = f"""
    SELECT {", ".join(f"({column})::{_TYPES[kind]}" for _, kind, column in _FIXED)}, {_OTHERS}
    FROM geofences_geofence g JOIN geofences_geofencecover c ON c.geofence_id = g.id
"""  # noqa: S608 - constants


def taken_apart(rows: Sequence[bytes]) -> tuple[Columns, Dwells]:
    """Rows that `SELECT` answered, as the index takes them, and their thresholds in seconds."""
    width = _RECORD.itemsize
    fixed = np.frombuffer(b"".join([row[:width] for row in rows]), _RECORD)
    # A field begins after the one before it and its own length.
    shape_at = width + fixed["blocks"].astype(np.int64) + _LENGTH
    grid_at, end = shape_at + _SIZES, shape_at + fixed["shape"]
    places = zip(
        rows, shape_at.tolist(), (grid_at + fixed["grid"]).tolist(), end.tolist(), strict=True
    )
    blocks, hot, cold, dwells = [], [], [], []
    for row, at, middle, last in places:
        blocks.append(row[width : at - _LENGTH])
        hot.append(row[at + _SIZES : middle])
        cold.append(row[middle:last])
        dwells.append(row[last + _LENGTH :])
    ids = fixed["id"].astype(np.int64)
    columns = Columns(
        geofence_id=ids,
        brand_id=fixed["brand"].astype(np.int64),
        version=fixed["version"].astype(np.int64),
        resolution=fixed["resolution"].astype(np.uint8),
        cover=Pieces.of(blocks),
        shape=Packed(Pieces.of(hot), Pieces.of(cold)),
        settings={
            "exit_buffer_m": fixed["exit_buffer_m"].astype(np.float32),
            "confirm_fixes": fixed["confirm_fixes"].astype(np.int16),
            "confirm_s": fixed["confirm_s"].astype(np.int32),
            "armed_ms": fixed["armed_ms"].astype(np.int64),
            "campaign": fixed["campaign"].astype(np.bool_),
        },
    )
    thresholds = {
        number: tuple(map(int, bytes(text).split()))
        for number, text in zip(ids.tolist(), dwells, strict=True)
        if text
    }
    return columns, thresholds

"""Geofences and covers as a binary COPY sends their rows, taken apart in bulk. It asks nothing.

A row is the count of its fields, then the length and the bytes of each, big-endian (PostgreSQL's
manual, COPY, Binary Format). Here the fields of one length come first, so that they are one record
of an array, and the last of it says how long the first of the others is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofences.compiled import compiled
from geofences.layers import Columns
from geofences.outlines import Packed
from geofences.ragged import Ints, Pieces

Bytes = NDArray[np.uint8]
Dwells = dict[int, tuple[int, ...]]

_SIGNATURE, _HEADER = b"PGCOPY\n\xff\r\n\0", 19  # what comes before the first row, and its length
_END = b"\xff\xff"  # instead of one more row
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
_WIDTH = _RECORD.itemsize
_PLACES: Mapping[str, Any] = _RECORD.fields or {}
_SHAPE_AT, _GRID_AT = _PLACES["shape"][1], _PLACES["grid"][1]

# Parts of a row, in the order in which those of many rows are put side by side: whole words first.
_BLOCKS, _HOT, _COLD, _HEAD, _TEXT = range(5)
# The same in the order of a row, with the bytes of lengths that stand before each.
_PARTS = ((_HEAD, 0), (_BLOCKS, 0), (_HOT, _LENGTH + _SIZES), (_COLD, 0), (_TEXT, _LENGTH))

SELECT = f"""
    SELECT {", ".join(f"({column})::{_TYPES[kind]}" for _, kind, column in _FIXED)}, {_OTHERS}
    FROM geofences_geofence g JOIN geofences_geofencecover c ON c.geofence_id = g.id
"""  # noqa: S608 - constants


def taken_apart(messages: Sequence[memoryview]) -> tuple[Columns, Dwells]:
    """Rows that `SELECT` answered, as the index takes them, and their thresholds in seconds."""
    if messages and messages[0][: len(_SIGNATURE)] == _SIGNATURE:
        messages = [messages[0][_HEADER:], *messages[1:]]
    rows = [message for message in messages if message != _END]
    raw = np.frombuffer(bytearray().join(rows), np.uint8)
    size = np.empty((len(_PARTS), len(rows)), np.int64)
    sorted_ = np.empty_like(raw)
    _sort(raw, size, sorted_)
    blocks, hot, cold, heads, texts = np.split(sorted_, np.cumsum(size.sum(axis=1)))[:-1]
    head = heads.view(_RECORD)
    ids = head["id"].astype(np.int64)
    columns = Columns(
        geofence_id=ids,
        brand_id=head["brand"].astype(np.int64),
        version=head["version"].astype(np.int64),
        resolution=head["resolution"].astype(np.uint8),
        cover=Pieces.joined(blocks, size[_BLOCKS]),
        shape=Packed(Pieces.joined(hot, size[_HOT]), Pieces.joined(cold, size[_COLD])),
        settings={
            "exit_buffer_m": head["exit_buffer_m"].astype(np.float32),
            "confirm_fixes": head["confirm_fixes"].astype(np.int16),
            "confirm_s": head["confirm_s"].astype(np.int32),
            "armed_ms": head["armed_ms"].astype(np.int64),
            "campaign": head["campaign"].astype(np.bool_),
        },
    )
    return columns, _thresholds(ids, size[_TEXT], texts)


def _thresholds(ids: Ints, size: Ints, texts: Bytes) -> Dwells:
    """Of the geofences that have any."""
    some, ends = np.flatnonzero(size), np.cumsum(size)
    return {
        ids.item(row): tuple(map(int, texts[ends[row] - size[row] : ends[row]].tobytes().split()))
        for row in some.tolist()
    }


@compiled
def _sort(raw: Bytes, size: Ints, sorted_: Bytes) -> None:
    """From rows one after the other: parts of one kind side by side, and how long each is."""
    kinds, rows = size.shape
    at, to = 0, np.zeros(kinds, np.int64)
    for row in range(rows):
        if at + _WIDTH > len(raw):
            raise ValueError("no rows of SELECT")
        shape, grid = _number(raw, at + _SHAPE_AT), _number(raw, at + _GRID_AT)
        size[_HEAD, row] = _WIDTH
        size[_BLOCKS, row] = _number(raw, at + _WIDTH - _LENGTH)
        size[_HOT, row] = grid
        size[_COLD, row] = shape - _SIZES - grid
        at += _WIDTH + size[_BLOCKS, row] + _LENGTH + shape
        if size[_COLD, row] < 0 or at + _LENGTH > len(raw):
            raise ValueError("no rows of SELECT")
        size[_TEXT, row] = _number(raw, at)
        at += _LENGTH + size[_TEXT, row]
    if at != len(raw):
        raise ValueError("no rows of SELECT")
    for kind in range(kinds - 1):
        to[kind + 1] = to[kind] + size[kind].sum()
    at = 0
    for row in range(rows):
        for kind, skipped in _PARTS:
            at += skipped
            end, start = at + size[kind, row], to[kind]
            to[kind] += size[kind, row]
            # Of slices that start at 0, so that many bytes are copied at once.
            source, target = raw[at:end], sorted_[start : to[kind]]
            for byte in range(len(source)):
                target[byte] = source[byte]
            at = end


@compiled
def _number(raw: Bytes, at: int) -> int:
    """Four bytes, big-endian."""
    number = 0
    for byte in raw[at : at + _LENGTH]:
        number = number << 8 | int(byte)
    return number

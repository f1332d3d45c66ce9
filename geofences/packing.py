"""A shape as the bytes that `outlines` asks: a grid of squares and the exact coordinates.

Computed once, when a geofence is written. It answers no point.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from geofences.geometry import EARTH_RADIUS_M, Circle, Shape
from geofences.icosahedron import unit_vectors
from geofences.ragged import spread

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_SQUARES = 64  # a side
_MOST_VERTICES = 8192  # larger polygons leave every square with an edge to GEOS, prepared
MOST_ENTRIES = 0x7FFF
_SMALLEST_DEG = 1e-6  # below 0.1 m rounding would reach a square's size: one square for all
_SLACK = 1e-4  # of a square: what rounding may move a grid line by
_MARGIN = 0.0137  # of the width: keeps grid lines off the sides of rectangles

HOT = np.dtype(
    [
        ("west", "<f8"),  # a circle: its centre as a unit vector, then the squared chord
        ("south", "<f8"),
        ("columns_a_degree", "<f8"),
        ("rows_a_degree", "<f8"),
        ("side", "<u2"),  # squares from west to east and from south to north; 0: a circle
        ("width", "<u2"),  # bytes an edge's number takes; 0: it is not there, ask GEOS
        ("parts", "<u4"),
        ("rings", "<u4"),
        ("vertices", "<u4"),
    ]
)
"""The head of a hot record, 48 bytes. Then for each square, row by row, and once more for the end,
as u2: corner inside << 15 | first of its entries; then the entries: numbers of edges. Padded to 8
bytes.

The cold record: vertices as lng, lat; then vertices of each ring and rings of each part as u4. A
circle: lat, lng, radius_m. Padded to 16 bytes, so that a vertex is one complex number."""


def pack(shape: Shape) -> bytes:
    """What is stored of a normalised shape (`GeofenceCover.shape`) for the index to read."""
    hot, cold = _packed_circle(shape) if isinstance(shape, Circle) else _packed_polygon(shape)
    return np.array([len(hot) // 8, len(cold) // 8], "<u4").tobytes() + hot + cold


def _packed_circle(shape: Circle) -> tuple[bytes, bytes]:
    head = np.zeros(1, HOT)
    center = unit_vectors(np.array([shape.lat]), np.array([shape.lng]))[:, 0]
    chord = 2 * np.sin(shape.radius_m / EARTH_RADIUS_M / 2)
    head["west"], head["south"], head["columns_a_degree"] = center
    head["rows_a_degree"] = chord * chord
    return head.tobytes(), _padded(
        np.array([shape.lat, shape.lng, shape.radius_m], "<f8").tobytes(), 16
    )


def _packed_polygon(shape: Polygon | MultiPolygon) -> tuple[bytes, bytes]:
    parts = shapely.get_parts(shape)
    rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
    loops = [shapely.get_coordinates(ring) for ring in rings]
    ends = np.cumsum([len(loop) for loop in loops])
    vertices = np.concatenate(loops)
    head = np.zeros(1, HOT)[0]
    head["parts"], head["rings"], head["vertices"] = len(parts), len(rings), len(vertices)
    # Somewhat more squares than vertices: two or three edges run through one that has any.
    side = int(np.clip(1.15 * np.sqrt(len(vertices)), 4, _MOST_SQUARES))
    begins, entries = _grid(shape, vertices, ends, head, side)
    while len(entries) > MOST_ENTRIES:
        side //= 2
        begins, entries = _grid(shape, vertices, ends, head, side)
    head["width"] = 0
    if len(vertices) <= _MOST_VERTICES:
        head["width"] = 1 if len(vertices) <= 256 else 2
    listed = entries.astype("<u1" if head["width"] < 2 else "<u2")
    hot = head.tobytes() + begins.astype("<u2").tobytes() + listed.tobytes()
    sizes = [*np.diff(ends, prepend=0), *(1 + len(part.interiors) for part in parts)]
    cold = vertices.astype("<f8").tobytes() + np.array(sizes, "<u4").tobytes()
    # One byte more: a number of one byte is read with the byte after it.
    return _padded(hot + bytes(1), 8), _padded(cold, 16)


def _padded(raw: bytes, size: int) -> bytes:
    return raw + bytes(-len(raw) % size)


def _grid(
    shape: Polygon | MultiPolygon, vertices: Floats, ends: Ints, head: np.void, side: int
) -> tuple[Ints, Ints]:
    """What each square begins with, and the entries; fills in the head."""
    west, south, east, north = shape.bounds
    wide, high = east - west, north - south
    if min(wide, high) < _SMALLEST_DEG:
        side = 1
    head["side"] = side
    head["west"], head["south"] = west - _MARGIN * wide, south - _MARGIN * high
    head["columns_a_degree"] = side / (wide * (1 + 2 * _MARGIN))
    head["rows_a_degree"] = side / (high * (1 + 2 * _MARGIN))
    square, edge = _crossings(vertices, ends, head)
    if len(vertices) > _MOST_VERTICES:
        square, first = np.unique(square, return_index=True)
        edge = edge[first]
    row, column = np.divmod(np.arange(side * side), side)
    x, y = (
        corner(head["west"], column, head["columns_a_degree"]),
        corner(head["south"], row, head["rows_a_degree"]),
    )
    shapely.prepare(shape)
    inside = np.append(shapely.intersects_xy(shape, x, y), False)
    return np.searchsorted(square, np.arange(side * side + 1)) | (inside << 15), edge


def corner(origin: Any, number: Any, a_degree: Any) -> Any:
    """Degrees of a grid line, of numbers or arrays; packing and asking agree on every bit."""
    return origin + number / a_degree


def _crossings(vertices: Floats, ends: Ints, head: np.void) -> tuple[Ints, Ints]:
    """Which squares each edge runs through, by square, then edge."""
    side = int(head["side"])
    x = (vertices[:, 0] - head["west"]) * head["columns_a_degree"]
    y = (vertices[:, 1] - head["south"]) * head["rows_a_degree"]
    edge = np.delete(np.arange(len(x) - 1), ends[:-1] - 1)
    edge, row = _through(
        edge, np.minimum(y[edge], y[edge + 1]), np.maximum(y[edge], y[edge + 1]), side
    )
    rise = y[edge + 1] - y[edge]
    flat = rise == 0
    rise[flat] = 1.0
    enters = np.clip((row - _SLACK - y[edge]) / rise, 0, 1)
    leaves = np.clip((row + 1 + _SLACK - y[edge]) / rise, 0, 1)
    enters[flat], leaves[flat] = 0.0, 1.0
    width = x[edge + 1] - x[edge]
    one, other = x[edge] + width * enters, x[edge] + width * leaves
    at, column = _through(
        np.arange(len(edge)), np.minimum(one, other), np.maximum(one, other), side
    )
    square = row[at] * side + column
    order = np.argsort(square, kind="stable")
    return square[order], edge[at[order]]


def _through(what: Ints, low: Floats, high: Floats, side: int) -> tuple[Ints, Ints]:
    """Each of `what` once for every whole step between low and high, and the steps."""
    first = np.clip(np.floor(low - _SLACK), 0, side - 1).astype(np.int64)
    last = np.clip(np.floor(high + _SLACK), 0, side - 1).astype(np.int64)
    owner, step = spread(first, last - first + 1)
    return what[owner], step

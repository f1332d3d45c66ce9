"""Shapes as packed arrays that answer "is this point inside?" in bulk. It knows no cells, no ids.

A polygon is cut into rows of equal height. In a row its outline shows as a few *strands*: runs of
edges that pass through. A point is inside when an odd number of passing strands lies to its left,
and each strand's extent in its row, rounded outwards to 1/65535 of the shape's width, tells that
for most points without looking at an edge. A point within an extent looks at the edges of that
strand, in doubles with Shewchuk's error bound. Those closer to an edge than the bound can tell,
the points exactly on it among them, are left to GEOS: every answer is the one GEOS gives.

Rows and strands (`hot`) stay in memory, a few hundred bytes a shape. Exact coordinates (`cold`) are
read for a few points in a hundred, so they may lie in a mapped file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from geofences.geometry import EARTH_RADIUS_M, Circle, Shape, great_circle_m
from geofences.lattice import unit_vectors

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_GRID = 65535
_VERTICES_A_ROW = 6
_MAX_ROWS = 4096
_MAX_STRANDS = 65535
_MAX_EDGES = 255
_SMALLEST_DEG = 1e-6  # below 0.1 m rounding would reach a grid step: every point asks the edges
_ROW_SLACK = 1e-6
_SPOOL_BYTES = 64 << 20  # exact coordinates beyond this size are mapped from a file

_HOT = np.dtype(
    [
        ("west", "<f8"),  # a circle: its centre as a unit vector, then the squared chord
        ("south", "<f8"),
        ("columns_a_degree", "<f8"),
        ("rows_a_degree", "<f8"),
        ("rows", "<u2"),  # 0: a circle
        ("strands", "<u2"),
        ("parts", "<u4"),
        ("rings", "<u4"),
        ("vertices", "<u4"),
    ]
)
"""The head of a hot record, 48 bytes. Then, padded to 8 bytes: rows + 1 first strands as u2,
padded to 4; extents as u4 (low << 16 | high); edges as u4 (start << 9 | count << 1 | passes)."""

_ORIENTATION_ERROR = 3.3306690738754716e-16
"""(3 + 16 eps) eps, `ccwerrboundA` in J. R. Shewchuk, Adaptive Precision Floating-Point
Arithmetic and Fast Robust Geometric Predicates (1997)."""

_CHORD_ERROR = 1e-12  # 6 micrometres; nearer to a circle's edge haversine itself decides


def pack(shape: Shape) -> bytes:
    """What is stored of a normalised shape (`GeofenceCover.shape`) for the index to read."""
    hot, cold = _packed_circle(shape) if isinstance(shape, Circle) else _packed_polygon(shape)
    return np.array([len(hot) // 8, len(cold) // 8], "<u4").tobytes() + hot + cold


def unpack(packed: bytes) -> Shape:
    """The shape that was packed, to the last bit; a ring may start at another of its corners."""
    return Outlines.of([packed]).shape(0)


def _packed_circle(shape: Circle) -> tuple[bytes, bytes]:
    head = np.zeros(1, _HOT)
    center = unit_vectors(np.array([shape.lat]), np.array([shape.lng]))[:, 0]
    chord = 2 * np.sin(shape.radius_m / EARTH_RADIUS_M / 2)
    head["west"], head["south"], head["columns_a_degree"] = center
    head["rows_a_degree"] = chord * chord
    return head.tobytes(), np.array([shape.lat, shape.lng, shape.radius_m], "<f8").tobytes()


def _packed_polygon(shape: Polygon | MultiPolygon) -> tuple[bytes, bytes]:
    parts = shapely.get_parts(shape)
    rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
    loops = [_from_lowest(shapely.get_coordinates(ring)) for ring in rings]
    ends = np.cumsum([len(loop) for loop in loops])
    vertices = np.concatenate(loops)
    head = np.zeros(1, _HOT)
    west, south, east, north = shape.bounds
    head["west"], head["south"] = west, south
    head["parts"], head["rings"], head["vertices"] = len(parts), len(rings), len(vertices)
    rows = int(np.clip(len(vertices) // _VERTICES_A_ROW, 4, _MAX_ROWS))
    if min(east - west, north - south) < _SMALLEST_DEG:
        rows = 1
    else:
        head["columns_a_degree"] = _GRID / (east - west)
    while True:
        head["rows_a_degree"] = rows / (north - south) * (1 - 1e-9) if rows > 1 else 0.0
        strands = _strands(vertices, ends, head, rows)
        if len(strands.row) <= _MAX_STRANDS:
            break
        rows //= 2
    head["rows"], head["strands"] = rows, len(strands.row)
    first = np.searchsorted(strands.row, np.arange(rows + 1)).astype("<u2")
    hot = head.tobytes() + _padded(first.tobytes(), 4)
    hot += strands.extent.astype("<u4").tobytes() + strands.edges.astype("<u4").tobytes()
    sizes = [*np.diff(ends, prepend=0), *(1 + len(part.interiors) for part in parts)]
    cold = vertices.astype("<f8").tobytes() + np.array(sizes, "<u4").tobytes()
    return _padded(hot, 8), _padded(cold, 8)


def _padded(raw: bytes, size: int) -> bytes:
    return raw + bytes(-len(raw) % size)


def _from_lowest(loop: Floats) -> Floats:
    lowest = int(loop[:-1, 1].argmin())
    return np.concatenate((loop[lowest:-1], loop[: lowest + 1]))


@dataclass(frozen=True, slots=True)
class _Strands:
    row: Ints  # ascending
    extent: Ints
    edges: Ints


def _strands(vertices: Floats, ends: Ints, head: NDArray[np.void], rows: int) -> _Strands:
    """The runs of edges in each row of a polygon whose rings begin at their lowest corner."""
    x = (vertices[:, 0] - head["west"]) * head["columns_a_degree"]
    y = (vertices[:, 1] - head["south"]) * head["rows_a_degree"]
    begins = np.concatenate(([0], ends[:-1]))
    edge = np.delete(np.arange(len(x) - 1), ends[:-1] - 1)
    low, high = np.minimum(y[edge], y[edge + 1]), np.maximum(y[edge], y[edge + 1])
    bottom = np.clip(np.floor(low - _ROW_SLACK), 0, rows - 1).astype(np.int64)
    top = np.clip(np.floor(high + _ROW_SLACK), 0, rows - 1).astype(np.int64)
    seen, row = _spread(bottom, top - bottom + 1)
    order = np.argsort(row, kind="stable")
    row, run = row[order], edge[seen[order]]
    starts = np.flatnonzero(np.concatenate(([True], (np.diff(row) != 0) | (np.diff(run) != 1))))
    stops = np.append(starts[1:], len(run))
    low_x, high_x = _extents(x, y, run, row, rows)
    west = np.floor(np.minimum.reduceat(low_x, starts)) - 1
    east = np.floor(np.maximum.reduceat(high_x, starts)) + 1
    row, head_edge, last_edge = row[starts], run[starts], run[stops - 1]
    _join_at_ring_starts(row, head_edge, last_edge + 2, begins, ends, west, east)
    # A ring's start is its lowest corner: where it lies within a row, the ring comes from below.
    starts_above = (y[head_edge] > row + 0.5) & ~np.isin(head_edge, begins)
    ends_above = (y[last_edge + 1] > row + 0.5) & ~np.isin(last_edge + 2, ends)
    extent = np.clip(west, 0, _GRID).astype(np.int64) << 16
    extent |= np.clip(east, 0, _GRID).astype(np.int64)
    count = stops - starts
    count[count > _MAX_EDGES] = 0  # too many for its bits: such a strand asks GEOS
    return _Strands(row, extent, head_edge << 9 | count << 1 | (starts_above != ends_above))


def _extents(x: Floats, y: Floats, run: Ints, row: Ints, rows: int) -> tuple[Floats, Floats]:
    """How far each edge reaches to either side within its row, in grid steps."""
    floor = np.where(row == 0, -np.inf, row - _ROW_SLACK)
    ceiling = np.where(row == rows - 1, np.inf, row + 1 + _ROW_SLACK)
    y1, rise = y[run], y[run + 1] - y[run]
    flat = rise == 0
    rise = np.where(flat, 1.0, rise)
    enters = np.where(flat, 0.0, np.clip((floor - y1) / rise, 0, 1))
    leaves = np.where(flat, 1.0, np.clip((ceiling - y1) / rise, 0, 1))
    width = x[run + 1] - x[run]
    one, other = x[run] + width * enters, x[run] + width * leaves
    return np.minimum(one, other), np.maximum(one, other)


def _join_at_ring_starts(
    row: Ints, head: Ints, after: Ints, begins: Ints, ends: Ints, west: Floats, east: Floats
) -> None:
    """Give the two strands that meet at a ring's start one extent, for they are one strand.

    Either both then count as left of a point or both ask their edges.
    """
    ring_of_end = dict(zip(ends.tolist(), begins.tolist(), strict=True))
    last = {
        (row[strand], ring_of_end[after[strand]]): strand
        for strand in np.flatnonzero(np.isin(after, ends))
    }
    for strand in np.flatnonzero(np.isin(head, begins)):
        other = last.get((row[strand], head[strand]))
        if other is not None:
            both = [strand, other]
            west[both], east[both] = west[both].min(), east[both].max()


def _spread(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """For each i, first[i], first[i] + 1, … count[i] times: the i's and the values."""
    owner = np.repeat(np.arange(len(count)), count)
    shift = first - np.cumsum(count) + count
    return owner, np.arange(len(owner)) + shift[owner]


def _spooled(pieces: Iterable[bytes], size: int) -> tuple[Floats, bool]:
    """The pieces as one array of doubles; large ones from a file, and whether it is one."""
    if size <= _SPOOL_BYTES:
        return np.frombuffer(b"".join(pieces), "<f8"), False
    with tempfile.TemporaryFile() as file:
        file.writelines(pieces)
        file.flush()
        # A plain view: subclasses of ndarray slow every access down.
        return np.asarray(np.memmap(file, "<f8", mode="r")), True


@dataclass(frozen=True, slots=True)
class _Spans:
    """Where records lie in one long array of words of 8 bytes."""

    first: Ints
    size: NDArray[np.int32]

    @classmethod
    def in_line(cls, size: NDArray[Any]) -> _Spans:
        ends = np.cumsum(size, dtype=np.int64)
        return cls(ends - size, size.astype(np.int32))

    def at(self, positions: Ints) -> _Spans:
        return _Spans(self.first[positions], self.size[positions])

    def words(self) -> Ints:
        return _spread(self.first, self.size.astype(np.int64))[1]

    @property
    def nbytes(self) -> int:
        return self.first.nbytes + self.size.nbytes


@dataclass(frozen=True, slots=True)
class Outlines:
    """Many packed shapes, addressed by position."""

    hot: NDArray[np.uint64]
    hot_at: _Spans
    cold: Floats
    cold_at: _Spans
    mapped: bool  # is `cold` in a file
    # The same memory as `hot` in other sizes.
    u2: NDArray[np.uint16] = field(init=False)
    u4: NDArray[np.uint32] = field(init=False)
    f8: Floats = field(init=False)

    def __post_init__(self) -> None:
        for name in ("u2", "u4", "f8"):
            object.__setattr__(self, name, self.hot.view(f"<{name}"))

    @classmethod
    def of(cls, packed: Sequence[bytes]) -> Outlines:
        sizes = np.frombuffer(b"".join([one[:8] for one in packed]), "<u4").reshape(-1, 2)
        split = (8 + 8 * sizes[:, 0].astype(np.int64)).tolist()
        hot = b"".join([one[8:cut] for one, cut in zip(packed, split, strict=True)])
        pieces = (one[cut:] for one, cut in zip(packed, split, strict=True))
        cold, mapped = _spooled(pieces, 8 * int(sizes[:, 1].sum()))
        return cls(
            np.frombuffer(hot, "<u8"),
            _Spans.in_line(sizes[:, 0]),
            cold,
            _Spans.in_line(sizes[:, 1]),
            mapped,
        )

    @classmethod
    def joined(cls, chosen: Sequence[tuple[Outlines, Ints]]) -> Outlines:
        """Some shapes of each, one after the other."""
        hot_at = [one.hot_at.at(positions) for one, positions in chosen]
        hot = [one.hot[spans.words()] for (one, _), spans in zip(chosen, hot_at, strict=True)]
        cold_size = np.concatenate([one.cold_at.size[positions] for one, positions in chosen])
        pieces = (
            one.cold[one.cold_at.at(positions[start : start + 4096]).words()].tobytes()
            for one, positions in chosen
            for start in range(0, len(positions), 4096)
        )
        cold, mapped = _spooled(pieces, 8 * int(cold_size.sum()))
        return cls(
            np.concatenate(hot),
            _Spans.in_line(np.concatenate([spans.size for spans in hot_at])),
            cold,
            _Spans.in_line(cold_size),
            mapped,
        )

    def permuted(self, order: Ints) -> Outlines:
        """The same shapes in another order."""
        return replace(self, hot_at=self.hot_at.at(order), cold_at=self.cold_at.at(order))

    def __len__(self) -> int:
        return len(self.hot_at.first)

    @property
    def bytes_in_memory(self) -> int:
        columns = self.hot.nbytes + self.hot_at.nbytes + self.cold_at.nbytes
        return columns + (0 if self.mapped else self.cold.nbytes)

    def shape(self, position: int) -> Shape:
        """The shape itself."""
        head = self.hot[self.hot_at.first[position] :][: _HOT.itemsize // 8].view(_HOT)[0]
        cold = self.cold[self.cold_at.first[position] :]
        if head["rows"] == 0:
            lat, lng, radius_m = cold[:3].tolist()
            return Circle(lat=lat, lng=lng, radius_m=radius_m)
        vertices, rings, parts = int(head["vertices"]), int(head["rings"]), int(head["parts"])
        sizes = cold[2 * vertices :][: (rings + parts + 1) // 2].view("<u4")
        ring_ends = np.concatenate(([0], np.cumsum(sizes[:rings])))
        part_ends = np.concatenate(([0], np.cumsum(sizes[rings : rings + parts])))
        corners = np.array(cold[: 2 * vertices]).reshape(-1, 2)
        polygons = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, corners, (ring_ends, part_ends)
        )
        whole: Polygon | MultiPolygon = polygons[0] if parts == 1 else MultiPolygon(polygons)
        return whole

    def inside(self, position: Ints, lat: Floats, lng: Floats) -> Bools:
        """Pair by pair: is the point inside or on the edge of the shape?"""
        base = self.hot_at.first[position]
        rows = self.u2[base * 4 + 16].astype(np.int64)
        answer = np.zeros(len(base), np.bool_)
        round_ = np.flatnonzero(rows == 0)
        if len(round_):
            answer[round_] = self._in_circle(position[round_], lat[round_], lng[round_])
        flat = np.flatnonzero(rows)
        if len(flat):
            answer[flat] = self._in_polygon(position[flat], rows[flat], lat[flat], lng[flat])
        return answer

    def holds(self, position: int, lat: float, lng: float) -> bool:
        """`inside` for one pair without arrays, unless an edge is near."""
        base = self.hot_at.first.item(position)
        rows = self.u2.item(base * 4 + 16)
        west, south, columns, grid_rows = self.f8[base : base + 4].tolist()
        row, column = (lat - south) * grid_rows, (lng - west) * columns
        if rows:
            if not (0 <= row < rows and 0 <= column < _GRID + 1):
                return False
            at = base * 4 + 24 + int(row)
            strand = base * 2 + 12 + (rows + 2) // 2
            begin, end = strand + self.u2.item(at), strand + self.u2.item(at + 1)
            strands, odd, column = self.u2.item(base * 4 + 17), 0, int(column)
            for place in range(begin, end):
                extent = self.u4.item(place)
                if extent & _GRID < column:
                    odd ^= self.u4.item(place + strands) & 1
                elif extent >> 16 <= column:
                    break
            else:
                return odd == 1
        one = np.array([position]), np.array([lat]), np.array([lng])
        return bool(self.inside(*one)[0])

    def _in_circle(self, position: Ints, lat: Floats, lng: Floats) -> Bools:
        base = self.hot_at.first[position]
        values = self.f8
        x, y, z = unit_vectors(lat, lng)
        x, y, z = x - values[base], y - values[base + 1], z - values[base + 2]
        chord2, limit2 = x * x + y * y + z * z, values[base + 3]
        inside = chord2 <= limit2
        near = np.abs(chord2 - limit2) <= _CHORD_ERROR * np.sqrt(limit2) * 2 + _CHORD_ERROR**2
        for row in np.flatnonzero(near):
            inside[row] = self._distance_to_circle(position[row], lat[row], lng[row]) >= 0
        return inside

    def _in_polygon(self, position: Ints, rows: Ints, lat: Floats, lng: Floats) -> Bools:
        base = self.hot_at.first[position]
        values = self.f8
        row = np.floor((lat - values[base + 1]) * values[base + 3]).astype(np.int64)
        column = np.floor((lng - values[base]) * values[base + 2]).astype(np.int64)
        first_at = base * 4 + 24 + row
        near = (row >= 0) & (row < rows) & (column >= 0) & (column <= _GRID)
        first_at = np.where(near, first_at, 0)
        first = self.u2[first_at].astype(np.int64)
        count = np.where(near, self.u2[first_at + 1] - first, 0)
        pair, strand = _spread(base * 2 + 12 + (rows + 2) // 2 + first, count)
        words = self.u4
        extent, at = words[strand].astype(np.int64), column[pair]
        total = self.u2[base * 4 + 17].astype(np.int64)
        edges = words[strand + total[pair]].astype(np.int64)
        left = (extent & _GRID) < at
        # bincount: the number of passing strands to the left of each point.
        crossed = np.bincount(pair[left & (edges & 1 == 1)], minlength=len(base)) % 2 == 1
        touched = np.flatnonzero((extent >> 16 <= at) & ~left)
        if len(touched):
            self._ask_edges(crossed, pair[touched], edges[touched], position, lat, lng)
        return crossed

    def _ask_edges(
        self, crossed: Bools, pair: Ints, edges: Ints, position: Ints, lat: Floats, lng: Floats
    ) -> None:
        """Correct `crossed` for points within a strand's extent, from the strand's edges."""
        count = edges >> 1 & _MAX_EDGES
        first = self.cold_at.first[position[pair]] + 2 * (edges >> 9)
        owner, step = _spread(np.zeros_like(count), count)
        corner, row = first[owner] + 2 * step, pair[owner]
        x1, y1, x2, y2 = (self.cold[corner + offset] for offset in range(4))
        x, y = lng[row], lat[row]
        rise = y2 - y1
        one, other = (x2 - x1) * (y - y1), (x - x1) * rise
        side = one - other
        passes = (y1 > y) != (y2 > y)
        crosses = row[passes & ((side < 0) == (rise > 0))]
        crossed ^= np.bincount(crosses, minlength=len(crossed)) % 2 == 1
        unsure = np.abs(side) <= _ORIENTATION_ERROR * (np.abs(one) + np.abs(other))
        unsure &= (np.minimum(y1, y2) <= y) & (y <= np.maximum(y1, y2))
        for asked in np.unique(np.concatenate((row[unsure], pair[count == 0]))):
            shape = self.shape(int(position[asked]))
            crossed[asked] = shapely.intersects_xy(shape, lng[asked], lat[asked])

    def distance_m(self, position: Ints, lat: Floats, lng: Floats) -> Floats:
        """Metres to the edge: positive inside, negative outside.

        Circles by great circle. Polygons on a plane that touches the point: at 1 km from the edge
        and 60° of latitude off by less than 0.2 m, growing with the square of the distance.
        Edges along the antimeridian or a pole are cuts of `normalise`, not edges.
        """
        answer = np.empty(len(position))
        rows = self.u2[self.hot_at.first[position] * 4 + 16]
        round_ = np.flatnonzero(rows == 0)
        answer[round_] = self._distance_to_circle(position[round_], lat[round_], lng[round_])
        flat = np.flatnonzero(rows)
        if len(flat):
            away = self._distance_to_edges(position[flat], lat[flat], lng[flat])
            inside = self.inside(position[flat], lat[flat], lng[flat])
            answer[flat] = np.where(inside, away, -away)
        return answer

    def _distance_to_circle(self, position: Ints, lat: Floats, lng: Floats) -> Floats:
        first = self.cold_at.first[position]
        away = great_circle_m(lat, lng, self.cold[first], self.cold[first + 1])
        distance: Floats = self.cold[first + 2] - away
        return distance

    def _distance_to_edges(self, position: Ints, lat: Floats, lng: Floats) -> Floats:
        base = self.hot_at.first[position]
        count = self.u4[base * 2 + 11].astype(np.int64) - 1
        owner, step = _spread(np.zeros_like(count), count)
        corner = self.cold_at.first[position][owner] + 2 * step
        x1, y1, x2, y2 = (self.cold[corner + offset] for offset in range(4))
        cut = ((x1 == x2) & (np.abs(x1) == 180)) | ((y1 == y2) & (np.abs(y1) == 90))
        cut |= self._between_rings(position, owner, step)
        turn = np.rint(((x1 + x2) / 2 - lng[owner]) / 360) * 360
        metres = np.radians(1) * EARTH_RADIUS_M
        narrow = (np.cos(np.radians(lat)) * metres)[owner]
        x1, x2 = (x1 - turn - lng[owner]) * narrow, (x2 - turn - lng[owner]) * narrow
        y1, y2 = (y1 - lat[owner]) * metres, (y2 - lat[owner]) * metres
        dx, dy = x2 - x1, y2 - y1
        length2 = np.maximum(dx * dx + dy * dy, 1e-30)
        along = np.clip(-(x1 * dx + y1 * dy) / length2, 0, 1)
        away = np.hypot(x1 + along * dx, y1 + along * dy)
        away[cut] = np.inf
        nearest: Floats = np.minimum.reduceat(away, np.cumsum(count) - count)
        return nearest

    def _between_rings(self, position: Ints, owner: Ints, step: Ints) -> Bools:
        """Which steps along the vertices lead from one ring's end to the next one's start."""
        words = self.u4
        base = self.hot_at.first[position] * 2
        between = np.zeros(len(step), np.bool_)
        for row in np.flatnonzero(words[base + 10] > 1):
            vertices, rings = int(words[base[row] + 11]), int(words[base[row] + 10])
            sizes = self.cold[self.cold_at.first[position[row]] + 2 * vertices :].view("<u4")[
                :rings
            ]
            own = np.flatnonzero(owner == row)
            between[own[np.cumsum(sizes.astype(np.int64))[:-1] - 1]] = True
        return between

    def bounds(self) -> tuple[Floats, Floats, Floats]:
        """For every shape a lat, a lng and how far at most, in metres, it reaches from there."""
        values = self.f8
        base = self.hot_at.first
        rows = self.u2[base * 4 + 16]
        lat, lng, reach_m = np.empty((3, len(base)))
        round_, flat = np.flatnonzero(rows == 0), np.flatnonzero(rows)
        lat[round_], lng[round_], reach_m[round_] = (
            self.cold[self.cold_at.first[round_] + offset] for offset in range(3)
        )
        west, south, columns, grid_rows = (values[base[flat] + offset] for offset in range(4))
        with np.errstate(divide="ignore"):
            # Too small for a grid: it has no size that would matter.
            width = np.where(columns > 0, _GRID / columns, _SMALLEST_DEG)
            height = np.where(grid_rows > 0, rows[flat] / grid_rows, 0)
        thin = np.flatnonzero((grid_rows == 0) | (columns == 0))
        for position in thin:
            box = self.shape(int(flat[position])).bounds
            west[position], south[position] = box[0], box[1]
            width[position], height[position] = box[2] - box[0], box[3] - box[1]
        lat[flat], lng[flat] = south + height / 2, west + width / 2
        reach_m[flat] = np.radians(np.hypot(width, height)) / 2 * EARTH_RADIUS_M
        return lat, lng, reach_m

"""Shapes as packed arrays that answer "is this point inside?" in bulk. It knows no cells, no ids.

A grid of squares lies over each polygon. A square knows whether its corner is inside and which
edges run through it, so a point counts the edges between itself and its square's corner: none in
most squares, two or three in others, however many the polygon has. Signs come from doubles with
Shewchuk's error bound; points closer to an edge than the bound can tell, those exactly on it among
them, are left to GEOS: every answer is the one GEOS gives.

The grid (`hot`) stays in memory, a few hundred bytes a shape. Exact coordinates (`cold`) may lie in
a mapped file.
"""

from __future__ import annotations

import itertools
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from geofences.geometry import EARTH_RADIUS_M, Circle, Shape, great_circle_m
from geofences.icosahedron import unit_vectors
from geofences.packing import HOT, MOST_ENTRIES, corner, pack
from geofences.ragged import NOTHING, Pieces, Spans, Words, spread

__all__ = ["Outlines", "pack", "unpack"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_SPOOL_BYTES = 64 << 20  # exact coordinates beyond this size are mapped from a file

_AT_ONCE = 3072
"""Pairs whose intermediate arrays stay in the cache, and below the 128 KiB from which the C library
gets fresh pages, page fault by page fault, for each."""

_ORIENTATION_ERROR = 3.3306690738754716e-16
"""(3 + 16 eps) eps, `ccwerrboundA` in J. R. Shewchuk, Adaptive Precision Floating-Point
Arithmetic and Fast Robust Geometric Predicates (1997)."""

_GRID_ERROR = 16 * _ORIENTATION_ERROR  # of sums of three differences of two products below 1

# Of one record: HOT as far as `vertices`, a square and the next, an edge's two ends.
_HEAD, _SQUARE, _EDGE = struct.Struct("<4d2H"), struct.Struct("<2H"), struct.Struct("<4d")

_CHORD_ERROR = 1e-12  # 6 micrometres; nearer to a circle's edge haversine itself decides


def unpack(packed: bytes) -> Shape:
    """The shape that was packed, to the last bit."""
    return Outlines.of([Pieces.of([packed])]).shape(0)


def _spooled(pieces: Iterable[Words]) -> tuple[Floats, bool]:
    """The pieces as one array of doubles; large ones from a file, and whether it is one."""
    kept, size, coming = [np.empty(0, np.uint64)], 0, iter(pieces)
    for piece in coming:
        kept.append(piece)
        size += piece.nbytes
        if size > _SPOOL_BYTES:
            break
    else:
        return np.concatenate(kept).view("<f8"), False
    with tempfile.TemporaryFile() as file:
        for piece in itertools.chain(kept, coming):
            file.write(piece.data)
        file.flush()
        # A plain view: subclasses of ndarray slow every access down.
        return np.asarray(np.memmap(file, "<f8", mode="r")), True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Squares:
    """Pairs of a point and a shape whose point lies in a square with edges."""

    position: Ints  # of the shape
    base: Ints  # of its hot record, in words of 8 bytes
    side: Ints
    row: Ints
    column: Ints
    first: Ints  # of the square's entries
    count: Ints


@dataclass(frozen=True, slots=True)
class Outlines:
    """Many packed shapes, addressed by position."""

    hot: NDArray[np.uint64]
    hot_at: Spans
    cold: Floats
    cold_at: Spans
    mapped: bool  # is `cold` in a file
    # The same memory as `hot` in other sizes.
    u1: NDArray[np.uint8] = field(init=False)
    u2: NDArray[np.uint16] = field(init=False)
    u4: NDArray[np.uint32] = field(init=False)
    f8: Floats = field(init=False)
    corners: NDArray[np.complex128] = field(init=False)  # of `cold`: lng + i lat
    raw: tuple[memoryview, memoryview] = field(init=False)  # hot and cold, for one record at a time
    _large: dict[int, Any] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("u1", "u2", "u4", "f8"):
            object.__setattr__(self, name, self.hot.view(f"<{name}"))
        object.__setattr__(self, "raw", (self.hot.data, self.cold.data))
        object.__setattr__(self, "corners", self.cold[: len(self.cold) // 2 * 2].view("<c16"))

    @classmethod
    def of(cls, portions: Iterable[Pieces]) -> Outlines:
        """From what `pack` made, portion by portion."""
        hot, cold_size = [NOTHING], [NOTHING.size]

        def cold() -> Iterator[Words]:
            for packed in portions:
                sizes = packed.words.take(packed.first).view("<u4").reshape(-1, 2).astype(np.int64)
                hot.append(packed.part(np.ones_like(packed.size), sizes[:, 0]))
                cold_size.append(sizes[:, 1])
                yield packed.part(1 + sizes[:, 0], sizes[:, 1]).words

        exact, mapped = _spooled(cold())
        return cls(
            np.concatenate([each.words for each in hot]),
            Spans.in_line(np.concatenate([each.size for each in hot])),
            exact,
            Spans.in_line(np.concatenate(cold_size)),
            mapped,
        )

    @classmethod
    def joined(cls, chosen: Sequence[tuple[Outlines, Ints]]) -> Outlines:
        """Some shapes of each, one after the other."""
        hot, hot_size, cold_size, pieces = [], [], [], []
        for one, positions in chosen:
            size = one.hot_at.sizes()[positions]
            hot.append(one.hot[spread(one.hot_at.first[positions], size)[1]])
            hot_size.append(size)
            cold_size.append(one.cold_at.sizes()[positions])
            pieces.append(one.cold_pieces(positions, cold_size[-1]))
        line = Spans.in_line(np.concatenate(cold_size))
        cold, mapped = _spooled(itertools.chain(*pieces))
        return cls(np.concatenate(hot), Spans.in_line(np.concatenate(hot_size)), cold, line, mapped)

    def cold_pieces(self, positions: Ints, size: Ints) -> Iterator[Words]:
        """The exact coordinates of some shapes, some thousand at a time."""
        first = self.cold_at.first[positions]
        for start in range(0, len(positions), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            yield self.cold.take(spread(first[part], size[part])[1]).view("<u8")

    def permuted(self, order: Ints) -> Outlines:
        """The same shapes in another order."""
        return replace(
            self, hot_at=self.hot_at.permuted(order), cold_at=self.cold_at.permuted(order)
        )

    def __len__(self) -> int:
        return len(self.hot_at.first)

    @property
    def bytes_in_memory(self) -> int:
        columns = self.hot.nbytes + self.hot_at.first.nbytes + self.cold_at.first.nbytes
        return columns + (0 if self.mapped else self.cold.nbytes)

    def shape(self, position: int) -> Shape:
        """The shape itself."""
        head = self.hot[self.hot_at.first[position] :][: HOT.itemsize // 8].view(HOT)[0]
        cold = self.cold[self.cold_at.first[position] :]
        if head["side"] == 0:
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
        """For each pair: whether the point is inside the shape or on its edge."""
        if len(position) > _AT_ONCE:
            parts = (slice(at, at + _AT_ONCE) for at in range(0, len(position), _AT_ONCE))
            return np.concatenate(
                [self.inside(position[part], lat[part], lng[part]) for part in parts]
            )
        base = self.hot_at.first[position]
        side = self.u2[base * 4 + 16].astype(np.int64)
        round_ = np.flatnonzero(side == 0)
        if not len(round_):
            return self._in_polygon(position, base, side, lat, lng)
        answer = np.zeros(len(base), np.bool_)
        answer[round_] = self._in_circle(position[round_], lat[round_], lng[round_])
        flat = np.flatnonzero(side)
        answer[flat] = self._in_polygon(
            position[flat], base[flat], side[flat], lat[flat], lng[flat]
        )
        return answer

    def holds(self, position: int, lat: float, lng: float) -> bool:
        """`inside` for one pair without arrays, unless an edge is near."""
        base = self.hot_at.first.item(position)
        hot = self.raw[0]
        west, south, columns, rows, side, width = _HEAD.unpack_from(hot, 8 * base)
        if side:
            row, column = (lat - south) * rows, (lng - west) * columns
            if not (0 <= row < side and 0 <= column < side):
                return False
            square = 48 + 2 * (int(row) * side + int(column))
            begin, end = _SQUARE.unpack_from(hot, 8 * base + square)
            inside, begin, end = begin > MOST_ENTRIES, begin & MOST_ENTRIES, end & MOST_ENTRIES
            if begin == end:
                return bool(inside)
            corner_x = corner(west, int(column), columns)
            corner_y = corner(south, int(row), rows)
            error = _GRID_ERROR * side * side / (columns * rows)
            for x1, y1, x2, y2 in self._edges_of_one(position, base, side, width, begin, end):
                rise, run = y2 - y1, x2 - x1
                at_point = (lat - y1) * run - (lng - x1) * rise
                at_turn = (lat - y1) * run - (corner_x - x1) * rise
                at_corner = (corner_y - y1) * run - (corner_x - x1) * rise
                if (
                    -error <= at_point <= error
                    or -error <= at_turn <= error
                    or -error <= at_corner <= error
                ):
                    break
                if (x1 > corner_x) != (x2 > corner_x) and (at_turn < 0) != (at_corner < 0):
                    inside = not inside
                if (y1 > lat) != (y2 > lat) and (at_point < 0) != (at_turn < 0):
                    inside = not inside
            else:
                if width:
                    return bool(inside)
        one = np.array([position]), np.array([lat]), np.array([lng])
        return bool(self.inside(*one)[0])

    def _in_circle(self, position: Ints, lat: Floats, lng: Floats) -> Bools:
        base = self.hot_at.first[position]
        x, y, z = unit_vectors(lat, lng)
        x, y, z = x - self.f8[base], y - self.f8[base + 1], z - self.f8[base + 2]
        chord2, limit2 = x * x + y * y + z * z, self.f8[base + 3]
        inside: Bools = chord2 <= limit2
        near = np.abs(chord2 - limit2) <= _CHORD_ERROR * (np.sqrt(limit2) * 2 + _CHORD_ERROR)
        rows = np.flatnonzero(near)
        inside[rows] = self._distance_to_circle(position[rows], lat[rows], lng[rows]) >= 0
        return inside

    def _in_polygon(
        self, position: Ints, base: Ints, side: Ints, lat: Floats, lng: Floats
    ) -> Bools:
        west, south, columns, rows = (self.f8.take(base + offset) for offset in range(4))
        # int64 of a negative number between -1 and 0 is 0: hence floor.
        row = np.floor((lat - south) * rows).astype(np.int64)
        column = np.floor((lng - west) * columns).astype(np.int64)
        on_grid = (row >= 0) & (row < side) & (column >= 0) & (column < side)
        square = (base * 4 + 24 + row * side + column) * on_grid
        first, end = self.u2.take(square), self.u2.take(square + 1)
        inside: Bools = on_grid & (first > MOST_ENTRIES)
        first &= MOST_ENTRIES
        count = (end & MOST_ENTRIES) - first
        open_ = np.flatnonzero(on_grid & (count > 0))
        if len(open_):
            squares = _Squares(
                position=position.take(open_),
                base=base.take(open_),
                side=side.take(open_),
                row=row.take(open_),
                column=column.take(open_),
                first=first.take(open_).astype(np.int64),
                count=count.take(open_).astype(np.int64),
            )
            here = lat.take(open_), lng.take(open_)
            inside[open_] = self._past_edges(inside.take(open_), squares, *here)
        return inside

    def _past_edges(
        self, corner_inside: Bools, squares: _Squares, lat: Floats, lng: Floats
    ) -> Bools:
        """Walk straight from the square's corner to the point; each edge crossed changes sides.

        An edge is crossed when its ends lie on both sides of the walk and the walk's ends on both
        sides of the edge: four signs of cross products, of which one follows from the others.
        """
        base, width = squares.base, self.u2.take(squares.base * 4 + 17)
        west, south, columns, rows = (self.f8.take(base + offset) for offset in range(4))
        start = corner(west, squares.column, columns) + 1j * corner(south, squares.row, rows)
        walk = (lng + 1j * lat - start).conj()
        owner, edge = self._edges(squares, width)
        start, walk = start.take(owner), walk.take(owner)
        tail, head = self.corners.take(edge) - start, self.corners.take(edge + 1) - start
        tail_side, head_side = (walk * tail).imag, (walk * head).imag
        start_side = (tail.conj() * head).imag
        point_side = start_side + tail_side - head_side
        crosses = ((tail_side < 0) != (head_side < 0)) & ((start_side < 0) != (point_side < 0))
        crossed = np.bincount(owner.compress(crosses), minlength=len(lat))
        inside: Bools = corner_inside ^ (crossed & 1 == 1)
        # No product above is larger than the whole grid.
        error = _GRID_ERROR * squares.side**2 / (columns * rows)
        least = np.minimum(np.abs(tail_side), np.abs(head_side))
        least = np.minimum(least, np.minimum(np.abs(start_side), np.abs(point_side)))
        close = np.flatnonzero(least <= error.max(initial=0.0))
        unsure = owner[close[least[close] <= error[owner[close]]]]
        for pair in {*unsure.tolist(), *np.flatnonzero(width == 0).tolist()}:
            shape = self._prepared(int(squares.position[pair]))
            inside[pair] = shapely.intersects_xy(shape, lng[pair], lat[pair])
        return inside

    def _edges(self, squares: _Squares, width: NDArray[np.uint16]) -> tuple[Ints, Ints]:
        """For each edge of each square: the square's position and where the edge begins."""
        size = width.astype(np.int64)
        entries = squares.base * 8 + 50 + 2 * squares.side**2 + squares.first * size
        first = self.cold_at.first.take(squares.position) // 2
        if (width == 1).all():
            owner, at = spread(entries, squares.count)
            return owner, first.take(owner) + self.u1.take(at)
        owner, step = spread(np.zeros_like(size), np.where(width, squares.count, 0))
        at = entries[owner] + step * size[owner]
        number = self.u1[at].astype(np.int64)
        number |= np.where(size[owner] > 1, self.u1[at + 1].astype(np.int64) << 8, 0)
        return owner, first[owner] + number

    def _edges_of_one(
        self, position: int, base: int, side: int, width: int, begin: int, end: int
    ) -> Iterator[tuple[float, float, float, float]]:
        if width:
            first = 8 * self.cold_at.first.item(position)
            entries = 8 * base + 50 + 2 * side * side
            numbers = self.u1[entries + begin * width : entries + end * width].tobytes()
            for number in numbers if width == 1 else memoryview(numbers).cast("H"):
                yield _EDGE.unpack_from(self.raw[1], first + 16 * number)

    def _prepared(self, position: int) -> Polygon | MultiPolygon:
        """The shape for GEOS; those with very many vertices are built once."""
        if position in self._large:
            return self._large[position]
        shape = self.shape(position)
        if self.u2.item(self.hot_at.first.item(position) * 4 + 17) == 0:
            shapely.prepare(shape)
            self._large[position] = shape
        return shape

    def distance_m(self, position: Ints, lat: Floats, lng: Floats) -> Floats:
        """Metres to the edge: positive inside, negative outside.

        Circles by great circle. Polygons on a plane that touches the point: at 1 km from the edge
        and 60° of latitude off by less than 0.2 m, growing with the square of the distance.
        Edges along the antimeridian or a pole are cuts of `normalise`, not edges.
        """
        answer = np.empty(len(position))
        side = self.u2[self.hot_at.first[position] * 4 + 16]
        round_ = np.flatnonzero(side == 0)
        answer[round_] = self._distance_to_circle(position[round_], lat[round_], lng[round_])
        flat = np.flatnonzero(side)
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
        owner, step = spread(np.zeros_like(count), count)
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
        base = self.hot_at.first
        side = self.u2[base * 4 + 16]
        lat, lng, reach_m = np.empty((3, len(base)))
        round_, flat = np.flatnonzero(side == 0), np.flatnonzero(side)
        lat[round_], lng[round_], reach_m[round_] = (
            self.cold[self.cold_at.first[round_] + offset] for offset in range(3)
        )
        west, south, columns, rows = (self.f8[base[flat] + offset] for offset in range(4))
        width, height = side[flat] / columns, side[flat] / rows
        lat[flat], lng[flat] = south + height / 2, west + width / 2
        reach_m[flat] = np.radians(np.hypot(width, height)) / 2 * EARTH_RADIUS_M
        return lat, lng, reach_m

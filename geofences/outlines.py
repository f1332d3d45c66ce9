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

from geofences.candidates import INSIDE, OPEN, OUTSIDE, Candidates
from geofences.compiled import compiled
from geofences.geometry import EARTH_RADIUS_M, Circle, Shape, great_circle_m
from geofences.packing import HOT, MOST_ENTRIES, pack
from geofences.prefetch import ahead
from geofences.ragged import NOTHING, Pieces, Spans, Words, spread

__all__ = ["Outlines", "Packed", "pack", "unpack"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_SPOOL_BYTES = 64 << 20  # exact coordinates beyond this size are mapped from a file

_AT_ONCE = 4096  # shapes whose coordinates are copied at once

_ORIENTATION_ERROR = 3.3306690738754716e-16
"""(3 + 16 eps) eps, `ccwerrboundA` in J. R. Shewchuk, Adaptive Precision Floating-Point
Arithmetic and Fast Robust Geometric Predicates (1997)."""

_GRID_ERROR = 16 * _ORIENTATION_ERROR  # of sums of three differences of two products below 1

_TILE = 256  # pairs that are settled side by side
_NO_SQUARE, _ROUND = -1, -2  # a point beyond a polygon's grid; a circle

_SIZES = struct.Struct("<2I")  # what a packed shape begins with

_CHORD_ERROR = 1e-12  # 6 micrometres; nearer to a circle's edge haversine itself decides


def unpack(packed: bytes) -> Shape:
    """The shape that was packed, to the last bit."""
    return Outlines.of([Packed.of(Pieces.of([packed]))]).shape(0)


def _spooled(pieces: Iterable[Words]) -> tuple[Floats, bool]:
    """The pieces as one array of doubles; large ones from a file, and whether it is one."""
    kept, coming = bytearray(), iter(pieces)
    for piece in coming:
        kept += piece.data
        if len(kept) > _SPOOL_BYTES:
            break
    else:
        return np.frombuffer(kept, "<f8"), False
    with tempfile.TemporaryFile() as file:
        file.write(kept)
        for piece in coming:
            file.write(piece.data)
        file.flush()
        # A plain view: subclasses of ndarray slow every access down. Copied where it is written,
        # which is nowhere: compiled code takes what is read only for another kind of array.
        return np.asarray(np.memmap(file, "<f8", mode="c")), True


@dataclass(frozen=True, slots=True)
class Packed:
    """What `pack` made of many shapes, taken apart."""

    hot: Pieces
    cold: Pieces

    @classmethod
    def of(cls, packed: Pieces) -> Packed:
        sizes = packed.words.take(packed.first).view("<u4").reshape(-1, 2).astype(np.int64)
        hot, cold = sizes.T
        return cls(packed.part(np.ones_like(hot), hot), packed.part(1 + hot, cold))

    def __iter__(self) -> Iterator[bytes]:
        """What `pack` made."""
        for hot, cold in zip(self.hot, self.cold, strict=True):
            yield _SIZES.pack(len(hot) // 8, len(cold) // 8) + hot + cold

    def rows(self, chosen: Ints) -> Packed:
        return Packed(self.hot.rows(chosen), self.cold.rows(chosen))

    def plus(self, other: Packed) -> Packed:
        """These, then the other's."""
        return Packed(self.hot.plus(other.hot), self.cold.plus(other.cold))


NO_SHAPES = Packed(NOTHING, NOTHING)


@dataclass(frozen=True, slots=True)
class Outlines:
    """Many packed shapes, addressed by position."""

    hot: NDArray[np.uint64]
    hot_at: Spans
    cold: Floats
    cold_at: Spans
    mapped: bool  # is `cold` in a file
    _large: dict[int, Any] = field(init=False, default_factory=dict, repr=False)

    @classmethod
    def of(cls, portions: Iterable[Packed]) -> Outlines:
        """Of shapes that come portion by portion."""
        hot, hot_size, cold_size = bytearray(), [NOTHING.size], [NOTHING.size]

        def cold() -> Iterator[Words]:
            nonlocal hot
            for packed in portions:
                hot += packed.hot.words.data
                hot_size.append(packed.hot.size)
                cold_size.append(packed.cold.size)
                yield packed.cold.words

        exact, mapped = _spooled(cold())
        return cls(
            np.frombuffer(hot, "<u8"),
            Spans.in_line(np.concatenate(hot_size)),
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

    def judge(self, candidates: Candidates, lat: Floats, lng: Floats) -> None:
        """Settle every OPEN pair: INSIDE is a point in the shape or on its edge."""
        fix, position, verdict = candidates.fix, candidates.geofence, candidates.verdict
        hot = self.hot.view(np.float64), self.hot_at.first
        cold = self.cold, self.cold_at.first
        if not _judge(fix, position, verdict, lat, lng, *hot, *cold):
            return
        for pair in np.flatnonzero(verdict == OPEN).tolist():
            here = lat.item(fix.item(pair)), lng.item(fix.item(pair))
            verdict[pair] = INSIDE if self._holds(position.item(pair), *here) else OUTSIDE

    def _holds(self, position: int, lat: float, lng: float) -> bool:
        """The last word, where doubles cannot tell."""
        if self._sides(position) == 0:
            one = np.array([position]), np.array([lat]), np.array([lng])
            return bool(self._distance_to_circle(*one)[0] >= 0)
        return bool(shapely.intersects_xy(self._prepared(position), lng, lat))

    def _sides(self, position: Any) -> Any:
        """Squares along a side, of one shape or many; 0 for circles."""
        return self.hot[self.hot_at.first[position] + 4] & np.uint64(0xFFFF)

    def _widths(self, position: Any) -> Any:
        """Bytes of an edge's number, as in HOT."""
        return self.hot[self.hot_at.first[position] + 4] >> np.uint64(16) & np.uint64(0xFFFF)

    def _prepared(self, position: int) -> Polygon | MultiPolygon:
        """The shape for GEOS; those with very many vertices are built once."""
        if position in self._large:
            return self._large[position]
        shape = self.shape(position)
        if self._widths(position) == 0:
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
        side = self._sides(position)
        round_ = np.flatnonzero(side == 0)
        if len(round_):
            answer[round_] = self._distance_to_circle(position[round_], lat[round_], lng[round_])
        flat = np.flatnonzero(side)
        if len(flat):
            every, some = np.arange(len(flat), dtype=np.int32), position[flat].astype(np.int32)
            pairs = Candidates(every, some, np.full(len(flat), OPEN, np.int8))
            here, away = (lat[flat], lng[flat]), np.empty(len(flat))
            self.judge(pairs, *here)
            _measure(some, *here, self.hot, self.hot_at.first, self.cold, self.cold_at.first, away)
            answer[flat] = np.where(pairs.verdict == INSIDE, away, -away)
        return answer

    def _distance_to_circle(self, position: Ints, lat: Floats, lng: Floats) -> Floats:
        first = self.cold_at.first[position]
        away = great_circle_m(lat, lng, self.cold[first], self.cold[first + 1])
        distance: Floats = self.cold[first + 2] - away
        return distance

    def bounds(self) -> tuple[Floats, Floats, Floats]:
        """For every shape a lat, a lng and how far at most, in metres, it reaches from there."""
        base = self.hot_at.first
        side = self._sides(np.arange(len(base)))
        lat, lng, reach_m = np.empty((3, len(base)))
        round_, flat = np.flatnonzero(side == 0), np.flatnonzero(side)
        lat[round_], lng[round_], reach_m[round_] = (
            self.cold[self.cold_at.first[round_] + offset] for offset in range(3)
        )
        hot = self.hot.view(np.float64)
        west, south, columns, rows = (hot[base[flat] + offset] for offset in range(4))
        width, height = side[flat] / columns, side[flat] / rows
        lat[flat], lng[flat] = south + height / 2, west + width / 2
        reach_m[flat] = np.radians(np.hypot(width, height)) / 2 * EARTH_RADIUS_M
        return lat, lng, reach_m


@compiled
def _judge(
    fix: NDArray[np.int32],
    position: NDArray[np.int32],
    verdict: NDArray[np.int8],
    lat: Floats,
    lng: Floats,
    hot: Floats,
    hot_first: Ints,
    cold: Floats,
    cold_first: Ints,
) -> int:
    """Settles OPEN verdicts; answers how many it has to leave open."""
    # Views are made here and handed on: whoever makes one counts it atomically, at 5 ns a time.
    left, halves, bytes_ = 0, hot.view(np.uint16), hot.view(np.uint8)
    some, bases, corners, squares = np.empty((4, _TILE), np.int64)
    # In passes: each asks for the places in memory that the next one reads.
    for start in range(0, len(fix), _TILE):
        count = 0
        # Picked without a branch, which would be guessed wrong every third time.
        for pair in range(start, min(start + _TILE, len(fix))):
            some[count] = pair
            count += 1 if verdict[pair] == OPEN else 0
        for each in range(count):
            ahead(hot_first, position[some[each]])
            ahead(cold_first, position[some[each]])
        for each in range(count):
            one = position[some[each]]
            bases[each], corners[each] = hot_first[one], cold_first[one]
            ahead(hot, bases[each])
            ahead(hot, bases[each] + 4)
        for each in range(count):
            y, x = lat[fix[some[each]]], lng[fix[some[each]]]
            squares[each] = _square(y, x, hot, halves, bases[each])
            ahead(halves, squares[each])
        crossed = 0
        for each in range(count):
            pair, base, square = some[each], bases[each], squares[each]
            some[crossed], bases[crossed], squares[crossed] = pair, base, square
            corners[crossed] = corners[each]
            if square >= 0:
                verdict[pair] = _in_square(halves, square)
                crossed += 1 if verdict[pair] == OPEN else 0
            elif square == _ROUND:
                verdict[pair] = _in_circle(lat[fix[pair]], lng[fix[pair]], hot, base)
                left += verdict[pair] == OPEN
            else:
                verdict[pair] = OUTSIDE
        for each in range(crossed):
            ahead(bytes_, _entry(halves, bases[each], squares[each]))
        for each in range(crossed):
            base, square = bases[each], squares[each]
            entry, width = _entry(halves, base, square), np.int64(halves[4 * base + 17])
            tail = corners[each] + 2 * _edge(bytes_, entry, width)
            ahead(cold, tail)
            ahead(cold, tail + 3)
        for each in range(crossed):
            pair, base, square = some[each], bases[each], squares[each]
            y, x = lat[fix[pair]], lng[fix[pair]]
            verdict[pair] = _past_edges(
                y, x, hot, halves, bytes_, base, square, cold, corners[each]
            )
            left += verdict[pair] == OPEN
    return left


@compiled
def _in_circle(lat: float, lng: float, hot: Floats, base: int) -> int:
    phi, theta = np.radians(lat), np.radians(lng)
    x = np.cos(phi) * np.cos(theta) - hot[base]
    y = np.cos(phi) * np.sin(theta) - hot[base + 1]
    z = np.sin(phi) - hot[base + 2]
    chord2, limit2 = x * x + y * y + z * z, hot[base + 3]
    if abs(chord2 - limit2) <= _CHORD_ERROR * (np.sqrt(limit2) * 2 + _CHORD_ERROR):
        return OPEN
    return INSIDE if chord2 <= limit2 else OUTSIDE


@compiled
def _square(lat: float, lng: float, hot: Floats, halves: NDArray[np.uint16], base: int) -> int:
    """Where the point's square stands in a polygon's record, counted in u2."""
    side = halves[4 * base + 16]
    if side == 0:
        return _ROUND
    row = np.floor((lat - hot[base + 1]) * hot[base + 3])
    column = np.floor((lng - hot[base]) * hot[base + 2])
    if not (0 <= row < side and 0 <= column < side):
        return _NO_SQUARE
    return int(4 * base + 24 + int(row) * np.int64(side) + int(column))


@compiled
def _in_square(halves: NDArray[np.uint16], square: int) -> int:
    """The verdict on all of a square that no edge runs through."""
    if (halves[square] ^ halves[square + 1]) & MOST_ENTRIES:
        return OPEN
    return INSIDE if halves[square] > MOST_ENTRIES else OUTSIDE


@compiled
def _entry(halves: NDArray[np.uint16], base: int, square: int) -> int:
    """Where the first of a square's entries stands, counted in bytes."""
    side, width = np.int64(halves[4 * base + 16]), np.int64(halves[4 * base + 17])
    number = np.int64(halves[square] & MOST_ENTRIES)
    return int(8 * base + 50 + 2 * side * side + number * width)


@compiled
def _edge(bytes_: NDArray[np.uint8], entry: int, width: int | np.int64) -> int:
    """The number of an edge, from one byte or two."""
    edge = np.int64(bytes_[entry])
    if width == 2:
        edge |= np.int64(bytes_[entry + 1]) << 8
    return int(edge)


@compiled
def _past_edges(
    lat: float,
    lng: float,
    hot: Floats,
    halves: NDArray[np.uint16],
    bytes_: NDArray[np.uint8],
    base: int,
    square: int,
    cold: Floats,
    corners: int,
) -> int:
    """Walk from the square's corner to the point; each edge crossed changes sides.

    First along the meridian, then along the parallel. An edge is crossed when its ends lie on both
    sides of the walk and the walk's ends on both sides of the edge.
    """
    side, width = np.int64(halves[4 * base + 16]), np.int64(halves[4 * base + 17])
    if width == 0:
        return OPEN
    row, column = (square - 4 * base - 24) // side, (square - 4 * base - 24) % side
    columns, rows = hot[base + 2], hot[base + 3]
    corner_x, corner_y = (
        hot[base] + column / columns,
        hot[base + 1] + row / rows,
    )  # `packing.corner`
    # No product below is larger than the whole grid.
    error = _GRID_ERROR * side * side / (columns * rows)
    inside = halves[square] > MOST_ENTRIES
    for at in range(_entry(halves, base, square), _entry(halves, base, square + 1), width):
        tail = corners + 2 * _edge(bytes_, at, width)
        x1, y1, x2, y2 = cold[tail], cold[tail + 1], cold[tail + 2], cold[tail + 3]
        rise, run = y2 - y1, x2 - x1
        at_point = (lat - y1) * run - (lng - x1) * rise
        at_turn = (lat - y1) * run - (corner_x - x1) * rise
        at_corner = (corner_y - y1) * run - (corner_x - x1) * rise
        if min(abs(at_point), abs(at_turn), abs(at_corner)) <= error:
            return OPEN
        inside ^= ((x1 > corner_x) != (x2 > corner_x)) & ((at_turn < 0) != (at_corner < 0))
        inside ^= ((y1 > lat) != (y2 > lat)) & ((at_point < 0) != (at_turn < 0))
    return INSIDE if inside else OUTSIDE


@compiled
def _measure(
    position: NDArray[np.int32],
    lat: Floats,
    lng: Floats,
    hot: NDArray[np.uint64],
    hot_first: Ints,
    cold: Floats,
    cold_first: Ints,
    away_m: Floats,
) -> None:
    """Fills in metres to the nearest edge of polygons, on a plane that touches the point."""
    counts, sizes = hot.view(np.uint32), cold.view(np.uint32)
    metres = np.radians(1.0) * EARTH_RADIUS_M
    for pair in range(len(position)):
        base, start = hot_first[position[pair]], cold_first[position[pair]]
        y, x, narrow = lat[pair], lng[pair], np.cos(np.radians(lat[pair])) * metres
        size_at = 2 * (start + 2 * np.int64(counts[2 * base + 11]))
        nearest = np.inf
        for ring in range(np.int64(counts[2 * base + 10])):
            end = start + 2 * np.int64(sizes[size_at + ring])
            for at in range(start, end - 2, 2):
                x1, y1, x2, y2 = cold[at], cold[at + 1], cold[at + 2], cold[at + 3]
                if (x1 == x2 and abs(x1) == 180) or (y1 == y2 and abs(y1) == 90):
                    continue
                turn = np.rint(((x1 + x2) / 2 - x) / 360) * 360
                east, west = (x2 - turn - x) * narrow, (x1 - turn - x) * narrow
                north, south = (y2 - y) * metres, (y1 - y) * metres
                run, rise = east - west, north - south
                along = -(west * run + south * rise) / max(run * run + rise * rise, 1e-30)
                along = min(max(along, 0.0), 1.0)
                off_x, off_y = west + along * run, south + along * rise
                nearest = min(nearest, off_x * off_x + off_y * off_y)
            start = end
        away_m[pair] = np.sqrt(nearest)

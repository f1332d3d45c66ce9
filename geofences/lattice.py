"""H3's lattice in arrays: from points to cells, from cells to their reach. It knows no geofence.

h3-py asks for one point at a time, 0.7 µs each: more than matching may cost as a whole. Here the
same cells come out of numpy for a batch. H3 projects a point onto the nearest of the 20 faces of an
icosahedron (gnomonic, https://h3geo.org/docs/core-library/geoToH3desc), where cells of every second
resolution form one hexagonal lattice scaled by 7. Everything that is a convention of H3 (where the
faces lie, base cells, rotations) is read out of h3 itself at first use, nothing is copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

MAX_RESOLUTION = 15
_CHUNK = 8192  # keeps the temporaries of one step inside the second-level cache
_TOP = 2  # base cells lie at -2..2 on both axes of a face
_UNKNOWN = 15  # a rotation that was not learnt
_CLASS_III_TURN = np.arcsin(np.sqrt(3 / 28))  # odd resolutions are turned by this angle
_SQRT3_2 = np.sqrt(3) / 2

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Cells = NDArray[np.uint64]
Bools = NDArray[np.bool_]


def unit_vectors(lat: Floats, lng: Floats) -> Floats:
    """Degrees to points on the unit sphere, shape (3, n)."""
    phi, theta = np.radians(lat), np.radians(lng)
    cos_phi = np.cos(phi)
    return np.stack((cos_phi * np.cos(theta), cos_phi * np.sin(theta), np.sin(phi)))


@dataclass(frozen=True, slots=True)
class _Tables:
    unit: float  # length of a lattice step on the plane that touches the sphere
    centers: Floats  # (20, 3) unit vectors
    axes: Floats  # (20, 3, 3): rows are the i axis, its normal and the centre of a face
    face_of_degree: NDArray[np.int8]  # (180 * 360) the face of a whole square degree, or -1
    pair_code: Ints  # (49) two digits by (a mod 7, b mod 7)
    pair_a: Floats  # (49) what to add to (a // 7, b // 7) for the grandparent's place
    pair_b: Floats
    turned: Ints  # (6 * 64) two digits by rotation and two digits
    base: Ints  # (20 * 25) base cell by face and place
    pentagon: NDArray[np.bool_]  # (20 * 25) the same, is it a pentagon
    rotation: Ints  # (20 * 25 * 8) by face, place and first digit that is not 0


_DIGIT_STEPS = ((0, 0), (-1, -1), (0, 1), (-1, 0), (1, 0), (0, -1), (1, 1))
"""H3's digits as steps along the i and j axes; the k axis is minus their sum."""

_TURN = (0, 5, 3, 1, 6, 4, 2, 7)
"""A digit after a turn by 60° (H3 `_rotate60ccw`); 7 is "no digit"."""


_NEXT = 0.4  # neighbouring corners are 63.4° apart, cos 63.4° = 0.447; others 116.6°


def _corners() -> tuple[Floats, Bools]:
    """The corners of the icosahedron, where H3's pentagons are, and which are neighbours."""
    places = np.array([h3.cell_to_latlng(cell) for cell in h3.get_pentagons(0)])
    corners = unit_vectors(*places.T).T
    return corners, (corners @ corners.T > _NEXT) & ~np.eye(12, dtype=np.bool_)


def _icosahedron() -> tuple[Floats, Floats]:
    """The faces in H3's order, from its twelve pentagons, which sit on the corners."""
    corners = unit_vectors(*np.array([h3.cell_to_latlng(cell) for cell in h3.get_pentagons(0)]).T).T
    near = corners @ corners.T > 0.4  # neighbours: cos 63.4° = 0.447
    axes = np.zeros((20, 3, 3))
    found = 0
    for a in range(12):
        for b in range(a + 1, 12):
            for c in range(b + 1, 12):
                if near[a, b] and near[b, c] and near[a, c]:
                    center = corners[[a, b, c]].sum(axis=0)
                    center /= np.linalg.norm(center)
                    # The corner lies 2 units along the i axis of the tangent plane.
                    i_axis = (corners[a] / (corners[a] @ center) - center) / 2
                    unit = i_axis @ i_axis
                    axes[found] = i_axis / unit, np.cross(center, i_axis) / unit, center
                    found += 1
    return axes[:, 2], axes


def _faces_of_degrees(centers: Floats) -> NDArray[np.int8]:
    """The face of each square degree, -1 where more than one may be found in it."""
    lat, lng = np.meshgrid(np.arange(-89.5, 90), np.arange(-179.5, 180), indexing="ij")
    nearness = centers @ unit_vectors(lat.ravel(), lng.ravel())
    best = np.partition(nearness, -2, axis=0)[-2:]
    # The difference of two of these cosines changes by at most |c1 - c2| = 0.714 per radian; a
    # square's corner is at most 0.0124 from its middle.
    sure = best[1] - best[0] > 0.01
    return np.where(sure, nearness.argmax(axis=0), -1).astype(np.int8)


def _up(a: int, b: int, *, odd: bool) -> tuple[int, int, int]:
    """The parent's place and the digit of a cell (H3 `_upAp7`, `_upAp7r`)."""
    if odd:
        up_a, up_b = round((3 * a - b) / 7), round((a + 2 * b) / 7)
        step = (a - 2 * up_a - up_b, b + up_a - 3 * up_b)
    else:
        up_a, up_b = round((2 * a + b) / 7), round((3 * b - a) / 7)
        step = (a - 3 * up_a + up_b, b - up_a - 2 * up_b)
    return up_a, up_b, _DIGIT_STEPS.index(step)


def _pairs() -> tuple[Ints, Floats, Floats]:
    """Two digits at once: the grandparents' lattice is the cells' own, seven times as wide."""
    code, top_a, top_b = np.zeros(49, np.int64), np.zeros(49), np.zeros(49)
    for slot in range(49):
        up_a, up_b, last = _up(*divmod(slot, 7), odd=False)
        top_a[slot], top_b[slot], first = _up(up_a, up_b, odd=True)
        code[slot] = first * 8 + last
    return code, top_a, top_b


def _turns() -> Ints:
    turned, digits = [], np.arange(8)
    for _ in range(6):
        turned.append(np.add.outer(digits * 8, digits).ravel())
        digits = np.array(_TURN)[digits]
    return np.concatenate(turned)


@dataclass(frozen=True, slots=True)
class _Trace:
    """Where points fall on the lattice of their face, before H3's naming."""

    place: Ints  # face * 25 + place of the base cell
    codes: list[Ints]  # two digits each, finest first; turned as the face lies
    odd: Ints | None  # the last digit where the resolution is odd


def _faces(lat: Floats, lng: Floats, points: Floats, tables: _Tables) -> Ints:
    row = np.minimum((lat + 90).astype(np.int64), 179)
    face = tables.face_of_degree[row * 360 + (lng + 180).astype(np.int64) % 360].astype(np.int64)
    unsure = np.flatnonzero(face < 0)
    if len(unsure):
        face[unsure] = (tables.centers @ points[:, unsure]).argmax(axis=0)
    return face


def _project(points: Floats, face: Ints, tables: _Tables) -> tuple[Floats, Floats]:
    """Gnomonic coordinates on the face, one unit between neighbouring base cells."""
    if len(face) and (face == face[0]).all():
        x, y, z = tables.axes[face[0]] @ points
        return x / z, y / z
    rows = tables.axes[face]
    x, y, z = np.einsum("nij,jn->in", rows, points)
    return x / z, y / z


def _nearest(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The lattice point whose hexagon holds (x, y), in steps along the i and j axes."""
    b = y / _SQRT3_2
    a = x + b / 2
    c = b - a
    near_a, near_b, near_c = np.rint(a), np.rint(b), np.rint(c)
    off_a, off_b, off_c = np.abs(near_a - a), np.abs(near_b - b), np.abs(near_c - c)
    # a, -b and c sum to 0; after rounding the one that moved most is made to fit again.
    fix_a = (off_a > off_b) & (off_a > off_c)
    fix_b = (off_b > off_c) & ~fix_a
    return (
        np.where(fix_a, near_b - near_c, near_a),
        np.where(fix_b, near_a + near_c, near_b),
    )


def _trace(lat: Floats, lng: Floats, points: Floats, resolution: int, tables: _Tables) -> _Trace:
    face = _faces(lat, lng, points, tables)
    x, y = _project(points, face, tables)
    last = None
    if resolution % 2:
        cos, sin = np.cos(_CLASS_III_TURN), np.sin(_CLASS_III_TURN)
        scale = np.sqrt(7) ** resolution
        a, b = _nearest((x * cos + y * sin) * scale, (y * cos - x * sin) * scale)
        up_a, up_b = np.rint((3 * a - b) / 7), np.rint((a + 2 * b) / 7)
        step_a, step_b = a - 2 * up_a - up_b, b + up_a - 3 * up_b
        last = _DIGIT_OF_STEP[(step_a * 3 + step_b + 4).astype(np.int64)]
        a, b = up_a, up_b
    else:
        scale = 7.0 ** (resolution // 2)
        a, b = _nearest(x * scale, y * scale)
    codes = []
    for _ in range(resolution // 2):
        # a + 0.5: whole numbers divided by 7 then never fall on the wrong side of a floor.
        up_a, up_b = np.floor((a + 0.5) / 7), np.floor((b + 0.5) / 7)
        slot = ((a - 7 * up_a) * 7 + (b - 7 * up_b)).astype(np.int64)
        codes.append(tables.pair_code[slot])
        a, b = up_a + tables.pair_a[slot], up_b + tables.pair_b[slot]
    return _Trace(face * 25 + ((a + _TOP) * 5 + b + _TOP).astype(np.int64), codes, last)


_DIGIT_OF_STEP = np.zeros(9, np.int64)
for _digit, (_a, _b) in enumerate(_DIGIT_STEPS):
    _DIGIT_OF_STEP[_a * 3 + _b + 4] = _digit


def _leading(trace: _Trace, rows: Ints) -> Ints:
    """The first digit that is not 0."""
    lead = np.zeros(len(rows), np.int64)
    for codes in reversed(trace.codes):
        code = codes[rows]
        lead = np.where(lead, lead, np.where(code > 7, code >> 3, code & 7))
    return lead if trace.odd is None else np.where(lead, lead, trace.odd[rows])


def _samples() -> tuple[Floats, Floats]:
    """Points all over the earth, along the faces' edges and, ever closer, around the pentagons."""
    rng = np.random.default_rng(20)
    corners, _ = _corners()
    directions = [rng.normal(size=(3, 4000))]
    for corner in corners:
        directions += [corner[:, None] + rng.normal(size=(3, 100)) * 0.3 / 5**k for k in range(5)]
        for other in corners[corners @ corner > _NEXT]:
            between = np.linspace(corner, other, 60).T
            directions += [between + rng.normal(size=(3, 60)) * width for width in (0.02, 0.002)]
    x, y, z = np.concatenate(directions, axis=1)
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


@cache
def _tables() -> _Tables:
    centers, axes = _icosahedron()
    pair_code, pair_a, pair_b = _pairs()
    tables = _Tables(
        unit=float(1 / np.linalg.norm(axes[0, 0])),
        centers=centers,
        axes=axes,
        face_of_degree=_faces_of_degrees(centers),
        pair_code=pair_code,
        pair_a=pair_a,
        pair_b=pair_b,
        turned=_turns(),
        base=np.zeros(500, np.int64),
        pentagon=np.zeros(500, np.bool_),
        rotation=np.full(4000, _UNKNOWN),
    )
    _learn_names(tables)
    return tables


def _learn_names(tables: _Tables, resolution: int = 6) -> None:
    """Which base cell lies where on a face and how its digits are turned, as h3 has it.

    A pentagon lacks one of seven directions, so its turn depends on the first digit as well.
    """
    lat, lng = _samples()
    trace = _trace(lat, lng, unit_vectors(lat, lng), resolution, tables)
    lead = _leading(trace, np.arange(len(lat)))
    for row, (place, first) in enumerate(zip(trace.place, lead, strict=True)):
        if tables.rotation[place * 8 + first] != _UNKNOWN:
            continue
        cell = h3.latlng_to_cell(lat[row], lng[row], resolution)
        pentagon = h3.is_pentagon(h3.cell_to_parent(cell, 0))
        tables.base[place] = cell >> 45 & 127
        tables.pentagon[place] = pentagon
        ours = [int(codes[row]) for codes in reversed(trace.codes)]
        theirs = [cell >> 45 - 6 * pair & 63 for pair in (1, 2, 3)]
        for turn in range(6):
            if all(tables.turned[turn * 64 + a] == b for a, b in zip(ours, theirs, strict=True)):
                leads = [first] if pentagon else range(8)
                tables.rotation[[place * 8 + each for each in leads]] = turn
                break


def cells_of(lat: Floats, lng: Floats, points: Floats, resolution: int) -> Cells:
    """`cells_at` for those who have the unit vectors already; lng in [-180, 180]."""
    tables = _tables()
    cells = np.empty(len(lat), np.uint64)
    for start in range(0, len(lat), _CHUNK):
        part = slice(start, start + _CHUNK)
        trace = _trace(lat[part], lng[part], points[:, part], resolution, tables)
        lead = np.zeros(len(trace.place), np.int64)
        pentagons = np.flatnonzero(tables.pentagon[trace.place])
        if len(pentagons):
            lead[pentagons] = _leading(trace, pentagons)
        rotation = tables.rotation[trace.place * 8 + lead]
        unknown = np.flatnonzero(rotation == _UNKNOWN)
        rotation[unknown] = 0
        cell = _named(trace, rotation, tables, resolution)
        for row in unknown:
            cell[row] = h3.latlng_to_cell(lat[start + row], lng[start + row], resolution)
        cells[part] = cell
    return cells


def _named(trace: _Trace, rotation: Ints, tables: _Tables, resolution: int) -> Ints:
    """The H3 index: mode 1, resolution, base cell, three bits a digit, 7 where there is none."""
    unused = (1 << 45 - 3 * resolution) - 1
    cell = (tables.base[trace.place] << 45) | (1 << 59 | resolution << 52 | unused)
    turn = rotation * 64
    for pair, codes in enumerate(reversed(trace.codes), start=1):
        cell |= tables.turned[turn + codes] << 45 - 6 * pair
    if trace.odd is not None:
        cell |= tables.turned[turn + trace.odd] << 45 - 3 * resolution
    return cell


def cells_at(lat: Floats, lng: Floats, resolution: int) -> Cells:
    """`h3.latlng_to_cell` for arrays of degrees, lng in [-180, 180].

    Points within some nanometres of a cell's edge may fall to its other side.
    """
    return cells_of(lat, lng, unit_vectors(lat, lng), resolution)


_REACH = 1.06
_REACH_AT_KINK = 1.45
_CORNERS = 12
_SLACK = 1.02  # for the bend of an outline's edges between projection and plate carrée
_MAX_BEND = 0.3  # where a degree of longitude shrinks faster than this across a cell: use its box


@dataclass(frozen=True, slots=True)
class Reach:
    """What cells of one resolution may hold at most, whichever way a point came to them.

    A cell's descendants do not fill its hexagon but a wavy figure around it: seven hexagons of
    seven hexagons, and so on. That figure lies within 1.0526 circumradii of the centre (the sum of
    0.6547 / 7 ** (n / 2)); where a cell spans two faces of the icosahedron the lattice has a kink,
    and 10 million samples reached 1.34. A point whose cell, at this or any finer resolution, is or
    descends from a given one lies within `radius` of `lat, lng` and inside `outlines`.
    """

    lat: Floats  # of the centres
    lng: Floats
    radius: Floats  # angle in radians
    _axes: Floats
    _points: Floats
    _plane_radius: Floats

    @classmethod
    def of(cls, cells: Cells) -> Reach:
        tables = _tables()
        ids = cells.tolist()
        resolution = h3.get_resolution(ids[0]) if ids else 0
        lat, lng = np.array([h3.cell_to_latlng(cell) for cell in ids]).reshape(-1, 2).T
        points = unit_vectors(lat, lng)
        axes = tables.axes[_faces(lat, lng, points, tables)]
        circumradius = 7 ** (-resolution / 2) / np.sqrt(3)
        nearness = np.partition(tables.centers @ points, -2, axis=0)[-2:]
        at_kink = nearness[1] - nearness[0] < 0.72 * 2 * circumradius * tables.unit
        plane_radius = np.where(at_kink, _REACH_AT_KINK, _REACH) * circumradius
        # Gnomonic projection stretches by at least 1 / cos of the angle from the face's centre.
        from_center = np.arccos(np.clip(nearness[1], -1, 1))
        wide = plane_radius * tables.unit
        radius = wide * np.cos(np.maximum(from_center - wide, 0))
        return cls(lat, lng, radius, axes, points, plane_radius)

    def outlines(self) -> Floats:
        """A polygon around each reach, straight in lng and lat: (n, 12, 2), lng may pass ±180."""
        ring = self._ring()
        lat = np.degrees(np.arcsin(ring[2]))
        lng = np.degrees(np.arctan2(ring[1], ring[0]))
        lng = self.lng[:, None] + (lng - self.lng[:, None] + 180) % 360 - 180
        corners = np.stack((lng, lat), axis=-1)
        steep = np.minimum(np.radians(np.abs(self.lat)) + self.radius, 1.57)
        for row in np.flatnonzero(self.radius * np.tan(steep) > _MAX_BEND):
            corners[row] = _box(self.lat[row], self.lng[row], self.radius[row])
        return corners

    def _ring(self) -> Floats:
        """Corners around the reach on the plane of the face, as unit vectors (3, n, 12)."""
        tables = _tables()
        x, y, z = np.einsum("nij,jn->in", self._axes, self._points)
        angle = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)
        wide = (self._plane_radius * _SLACK / np.cos(np.pi / _CORNERS))[:, None]
        along_i = ((x / z)[:, None] + wide * np.cos(angle)) * tables.unit**2
        along_j = ((y / z)[:, None] + wide * np.sin(angle)) * tables.unit**2
        i_axis, j_axis, center = np.moveaxis(self._axes, 0, 2)[..., None]
        ring = center + along_i * i_axis + along_j * j_axis
        unit: Floats = ring / np.sqrt((ring * ring).sum(axis=0))
        return unit


def _box(lat: float, lng: float, radius: float) -> Floats:
    """The latitudes and longitudes of a cap, as a ring of 12 corners."""
    half = np.degrees(radius)
    south, north = max(lat - half, -90.0), min(lat + half, 90.0)
    west, east = -180.0, 180.0
    if south > -90 and north < 90:
        width = np.degrees(np.arcsin(min(1.0, np.sin(radius) / np.cos(np.radians(lat)))))
        west, east = lng - width, lng + width
    ring = np.full((_CORNERS, 2), (west, south))
    ring[1:3, 0] = east
    ring[2:4, 1] = north
    return ring


def children(cells: Cells) -> tuple[Cells, Ints]:
    """All cells one resolution finer and the position of each one's parent."""
    if not len(cells):
        return cells, np.empty(0, np.int64)
    resolution = h3.get_resolution(int(cells[0])) + 1
    shift = np.uint64(45 - 3 * resolution)
    bare = (cells + np.uint64(1 << 52)) & ~(np.uint64(7) << shift)
    family = bare[:, None] | (np.arange(7, dtype=np.uint64) << shift)
    exists = np.ones(family.shape, np.bool_)
    # A pentagon has no child in the direction of the k axis.
    exists[[h3.is_pentagon(cell) for cell in cells.tolist()], 1] = False
    return family[exists], np.nonzero(exists)[0]

"""From points to H3 cells, in arrays. It knows no geofence.

h3-py asks for one point at a time, 0.7 µs each: more than matching may cost as a whole. Here the
same cells come out of numpy for a batch in 0.1 µs. On a face of the icosahedron the cells of every
second resolution form one hexagonal lattice, each seven times finer. What is a convention of H3
(base cells, rotations) is read out of h3 itself at first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

from geofences.icosahedron import NEXT, Bools, Floats, Ints, corners, icosahedron, unit_vectors

MAX_RESOLUTION = 15
_CHUNK = 8192  # keeps the temporaries of one step inside the second-level cache
_TOP = 2  # base cells lie at -2..2 on both axes of a face
_UNKNOWN = 6  # a rotation that was not learnt: h3 itself is asked
_CLASS_III_TURN = np.arcsin(np.sqrt(3 / 28))  # odd resolutions are turned by this angle
_SQRT3_2 = np.sqrt(3) / 2

Cells = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Steps:
    """Some digits at once: a cell's ancestor that many resolutions up, on the same lattice."""

    digits: int
    scale: float  # how much wider the ancestors' lattice is
    code: Ints  # digits by (a mod scale) * scale + (b mod scale)
    add_a: Floats  # what to add to (a // scale, b // scale) for the ancestor's place
    add_b: Floats


@dataclass(frozen=True, slots=True)
class _Names:
    """What H3 calls a place on a face."""

    base: Ints  # (20 * 25) base cell by face and place
    pentagon: Bools  # (20 * 25) the same, is it a pentagon
    rotation: Ints  # (20 * 25 * 8) by face, place and first digit that is not 0


_DIGIT_STEPS = ((0, 0), (-1, -1), (0, 1), (-1, 0), (1, 0), (0, -1), (1, 1))
"""H3's digits as steps along the i and j axes; the k axis is minus their sum."""

_TURN = (0, 5, 3, 1, 6, 4, 2, 7)
"""A digit after a turn by 60° (H3 `_rotate60ccw`); 7 is "no digit"."""


def _up(a: int, b: int, *, odd: bool) -> tuple[int, int, int]:
    """The parent's place and the digit of a cell (H3 `_upAp7`, `_upAp7r`)."""
    if odd:
        up_a, up_b = round((3 * a - b) / 7), round((a + 2 * b) / 7)
        step = (a - 2 * up_a - up_b, b + up_a - 3 * up_b)
    else:
        up_a, up_b = round((2 * a + b) / 7), round((3 * b - a) / 7)
        step = (a - 3 * up_a + up_b, b - up_a - 2 * up_b)
    return up_a, up_b, _DIGIT_STEPS.index(step)


def _two_digits() -> _Steps:
    code, add_a, add_b = np.zeros(49, np.int64), np.zeros(49), np.zeros(49)
    for slot in range(49):
        up_a, up_b, last = _up(*divmod(slot, 7), odd=False)
        add_a[slot], add_b[slot], first = _up(up_a, up_b, odd=True)
        code[slot] = first * 8 + last
    return _Steps(2, 7.0, code, add_a, add_b)


def _four_digits(two: _Steps) -> _Steps:
    a, b = (each.astype(np.float64) for each in np.divmod(np.arange(49 * 49), 49))
    up_a, up_b, last = _climb(a, b, two)
    add_a, add_b, first = _climb(up_a, up_b, two)
    return _Steps(4, 49.0, first << 6 | last, add_a, add_b)


def _climb(a: Floats, b: Floats, steps: _Steps) -> tuple[Floats, Floats, Ints]:
    """The ancestors' places and the digits that lead from them to the cells."""
    # a + 0.5: a whole number divided then never falls on the wrong side of a floor.
    up_a, up_b = np.floor((a + 0.5) / steps.scale), np.floor((b + 0.5) / steps.scale)
    slot = ((a - steps.scale * up_a) * steps.scale + (b - steps.scale * up_b)).astype(np.int64)
    return up_a + steps.add_a[slot], up_b + steps.add_b[slot], steps.code[slot]


def _turns() -> Ints:
    """Four digits turned by 0 to 5 sixths of a circle."""
    turned, digit = [], np.arange(8)
    for _ in range(6):
        one_by_one = [digit[np.arange(4096) >> shift & 7] << shift for shift in (0, 3, 6, 9)]
        turned.append(np.bitwise_or.reduce(one_by_one))
        digit = np.array(_TURN)[digit]
    return np.concatenate([*turned, turned[0]])  # and unknown ones


_TWO = _two_digits()
_FOUR = _four_digits(_TWO)
_TURNED = _turns()
"""(7 * 4096) four digits by rotation and four digits."""


@dataclass(frozen=True, slots=True)
class _Trace:
    """Where points fall on the lattice of their face, before H3's naming."""

    place: Ints  # face * 25 + place of the base cell
    digits: Ints  # three bits each, the finest last; turned as the face lies


def _nearest(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The lattice point whose hexagon holds (x, y), in steps along the i and j axes."""
    # Along axes 60° apart, each rounded; then one step along the axis that is farther off
    # (J. Rus, https://observablehq.com/@jrus/hexround).
    r = y / _SQRT3_2
    q = x - r / 2
    near_q, near_r = np.rint(q), np.rint(r)
    q, r = q - near_q, r - near_r
    along_q = q * q >= r * r
    near_q += np.rint(q + r / 2) * along_q
    near_r += np.rint(r + q / 2) * ~along_q
    return near_q + near_r, near_r


def _trace(lat: Floats, lng: Floats, points: Floats, resolution: int) -> _Trace:
    solid = icosahedron()
    face = solid.faces(lat, lng, points)
    x, y = solid.project(points, face)
    digits, done = np.zeros(len(lat), np.int64), 0
    if resolution % 2:
        cos, sin = np.cos(_CLASS_III_TURN), np.sin(_CLASS_III_TURN)
        scale = np.sqrt(7) ** resolution
        a, b = _nearest((x * cos + y * sin) * scale, (y * cos - x * sin) * scale)
        up_a, up_b = np.rint((3 * a - b) / 7), np.rint((a + 2 * b) / 7)
        step_a, step_b = a - 2 * up_a - up_b, b + up_a - 3 * up_b
        digits = _DIGIT_OF_STEP[(step_a * 3 + step_b + 4).astype(np.int64)]
        a, b, done = up_a, up_b, 1
    else:
        scale = 7.0 ** (resolution // 2)
        a, b = _nearest(x * scale, y * scale)
    while done < resolution:
        steps = _FOUR if resolution - done >= 4 else _TWO
        a, b, code = _climb(a, b, steps)
        digits |= code << 3 * done
        done += steps.digits
    return _Trace(face * 25 + ((a + _TOP) * 5 + b + _TOP).astype(np.int64), digits)


_DIGIT_OF_STEP = np.zeros(9, np.int64)
for _digit, (_a, _b) in enumerate(_DIGIT_STEPS):
    _DIGIT_OF_STEP[_a * 3 + _b + 4] = _digit


def _leading(digits: Ints) -> Ints:
    """The first digit that is not 0."""
    lead = np.zeros(len(digits), np.int64)
    for shift in range(0, 3 * MAX_RESOLUTION, 3):
        digit = digits >> shift & 7
        lead = np.where(digit, digit, lead)
    return lead


def _samples() -> tuple[Floats, Floats]:
    """Points all over the earth, along the faces' edges and, ever closer, around the pentagons."""
    rng = np.random.default_rng(20)
    tips, _ = corners()
    directions = [rng.normal(size=(3, 4000))]
    for tip in tips:
        directions += [tip[:, None] + rng.normal(size=(3, 100)) * 0.3 / 5**k for k in range(5)]
        for other in tips[tips @ tip > NEXT]:
            between = np.linspace(tip, other, 60).T
            directions += [between + rng.normal(size=(3, 60)) * width for width in (0.02, 0.002)]
    x, y, z = np.concatenate(directions, axis=1)
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


@cache
def _names(resolution: int = 6) -> _Names:
    """Which base cell lies where on a face and how its digits are turned, as h3 has it.

    A pentagon lacks one of seven directions, so its turn depends on the first digit as well.
    """
    names = _Names(
        base=np.zeros(500, np.int64),
        pentagon=np.zeros(500, np.bool_),
        rotation=np.full(4000, _UNKNOWN),
    )
    lat, lng = _samples()
    trace = _trace(lat, lng, unit_vectors(lat, lng), resolution)
    turned = np.stack([_turned(trace.digits, np.array(turn)) for turn in range(6)])
    slots = trace.place * 8 + _leading(trace.digits)
    for row in np.unique(slots, return_index=True)[1].tolist():
        cell = h3.latlng_to_cell(lat[row], lng[row], resolution)
        pentagon = h3.is_pentagon(h3.cell_to_parent(cell, 0))
        names.base[trace.place[row]] = cell >> 45 & 127
        names.pentagon[trace.place[row]] = pentagon
        digits = cell >> 45 - 3 * resolution & (1 << 3 * resolution) - 1
        turn = np.flatnonzero(turned[:, row] == digits)
        # All digits 0 look the same however they are turned: they tell nothing of the others.
        if len(turn) and (pentagon or digits):
            first = slots[row] if pentagon else slice(slots[row] // 8 * 8, slots[row] // 8 * 8 + 8)
            names.rotation[first] = turn[0]
    return names


def _turned(digits: Ints, turn: Ints) -> Ints:
    turned: Ints = _TURNED[turn * 4096 + (digits & 4095)]
    for shift in range(12, 3 * MAX_RESOLUTION, 12):
        if shift == 12 or (digits >> shift).any():
            turned |= _TURNED[turn * 4096 + (digits >> shift & 4095)] << shift
    return turned


def cells_of(lat: Floats, lng: Floats, points: Floats, resolution: int) -> Cells:
    """`cells_at` for those who have the unit vectors already; lng in [-180, 180]."""
    names = _names()
    cells = np.empty(len(lat), np.uint64)
    for start in range(0, len(lat), _CHUNK):
        part = slice(start, start + _CHUNK)
        trace = _trace(lat[part], lng[part], points[:, part], resolution)
        slot = trace.place * 8
        pentagons = np.flatnonzero(names.pentagon[trace.place])
        if len(pentagons):
            slot[pentagons] += _leading(trace.digits[pentagons])
        rotation = names.rotation[slot]
        digits = _turned(trace.digits, rotation)
        # The H3 index: mode 1, resolution, base cell, three bits a digit, 7 where there is none.
        unused = (1 << 45 - 3 * resolution) - 1
        cell = names.base[trace.place] << 45 | digits << 45 - 3 * resolution
        cells[part] = cell | (1 << 59 | resolution << 52 | unused)
        for row in start + np.flatnonzero(rotation == _UNKNOWN):
            cells[row] = h3.latlng_to_cell(lat[row], lng[row], resolution)
    return cells


def cells_at(lat: Floats, lng: Floats, resolution: int) -> Cells:
    """`h3.latlng_to_cell` for arrays of degrees, lng in [-180, 180].

    Points within some nanometres of a cell's edge may fall to its other side.
    """
    return cells_of(lat, lng, unit_vectors(lat, lng), resolution)

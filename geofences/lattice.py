"""From points to H3 cells, in arrays. It knows no geofence.

h3-py asks for one point at a time, 0.7 µs each: more than matching may cost as a whole. Here the
same cells come out of a compiled loop in a fraction of that. On a face of the icosahedron the cells
of every second resolution form one hexagonal lattice, each seven times finer. What is a convention
of H3 (base cells, rotations) is read out of h3 itself at first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

from geofences.compiled import compiled
from geofences.icosahedron import NEXT, Bools, Floats, Ints, corners, icosahedron

MAX_RESOLUTION = 15
_TOP = 2  # base cells lie at -2..2 on both axes of a face
_UNKNOWN = 6  # a rotation that was not learnt: h3 itself is asked
_CLASS_III_TURN = np.arcsin(np.sqrt(3 / 28))  # odd resolutions are turned by this angle
_SQRT3_2 = np.sqrt(3) / 2

Cells = NDArray[np.uint64]


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


def _steps() -> Ints:
    """From a place (a, b) two resolutions up: (49, 3) by (a mod 7) * 7 + (b mod 7).

    What to add to (a // 7, b // 7) for the ancestor's place, and the two digits that lead down.
    """
    steps = np.zeros((49, 3), np.int64)
    for slot in range(49):
        up_a, up_b, last = _up(*divmod(slot, 7), odd=False)
        top_a, top_b, first = _up(up_a, up_b, odd=True)
        steps[slot] = top_a, top_b, first * 8 + last
    return steps


def _turns() -> Ints:
    """Four digits turned by 0 to 5 sixths of a circle."""
    turned, digit = [], np.arange(8)
    for _ in range(6):
        one_by_one = [digit[np.arange(4096) >> shift & 7] << shift for shift in (0, 3, 6, 9)]
        turned.append(np.bitwise_or.reduce(one_by_one))
        digit = np.array(_TURN)[digit]
    return np.concatenate([*turned, turned[0]])  # and unknown ones


_STEPS = _steps()
_TURNED = _turns()
"""(7 * 4096) four digits by rotation and four digits."""

_DIGIT_OF_STEP = np.zeros(9, np.int64)
for _digit, (_a, _b) in enumerate(_DIGIT_STEPS):
    _DIGIT_OF_STEP[_a * 3 + _b + 4] = _digit


@compiled
def _trace(
    face: Ints,
    x: Floats,
    y: Floats,
    resolution: int,
    steps: Ints,
    digit_of_step: Ints,
    place: Ints,
    digits: Ints,
) -> None:
    """Where points fall on the lattice of their face, before H3's naming.

    Fills in `place`, face * 25 + place of the base cell, and `digits`, three bits each, the finest
    last; turned as the face lies.
    """
    odd = resolution % 2
    scale = np.sqrt(7.0) ** resolution if odd else 7.0 ** (resolution // 2)
    cos, sin = (np.cos(_CLASS_III_TURN), np.sin(_CLASS_III_TURN)) if odd else (1.0, 0.0)
    for at in range(len(x)):
        # The lattice point whose hexagon holds the point, along axes 60° apart, each rounded; then
        # one step along the axis that is farther off (J. Rus, https://observablehq.com/@jrus/hexround).
        r = (y[at] * cos - x[at] * sin) * scale / _SQRT3_2
        q = (x[at] * cos + y[at] * sin) * scale - r / 2
        near_q, near_r = np.rint(q), np.rint(r)
        q, r = q - near_q, r - near_r
        if q * q >= r * r:
            near_q += np.rint(q + r / 2)
        else:
            near_r += np.rint(r + q / 2)
        a, b = int(near_q + near_r), int(near_r)
        found = 0
        if odd:
            up_a, up_b = int(np.rint((3 * a - b) / 7)), int(np.rint((a + 2 * b) / 7))
            step_a, step_b = a - 2 * up_a - up_b, b + up_a - 3 * up_b
            found = digit_of_step[step_a * 3 + step_b + 4]
            a, b = up_a, up_b
        for done in range(odd, resolution, 2):
            up_a, up_b = a // 7, b // 7
            slot = (a - 7 * up_a) * 7 + b - 7 * up_b
            a, b = up_a + steps[slot, 0], up_b + steps[slot, 1]
            found |= steps[slot, 2] << 3 * done
        place[at] = face[at] * 25 + (a + _TOP) * 5 + b + _TOP
        digits[at] = found


@compiled
def _name(
    place: Ints,
    digits: Ints,
    resolution: int,
    base: Ints,
    pentagon: Bools,
    rotation: Ints,
    turned: Ints,
    cells: NDArray[np.int64],
) -> int:
    """Fills in the H3 indexes; 0 for those h3 has to name itself, and how many these are."""
    left = 0
    for at in range(len(place)):
        slot, rest = place[at] * 8, digits[at]
        if pentagon[place[at]]:
            lead = 0
            while rest >> 3 * lead:
                lead += 1
            if lead:
                slot += rest >> 3 * (lead - 1)
        turn = rotation[slot]
        if turn == _UNKNOWN:
            cells[at] = 0
            left += 1
            continue
        # Mode 1, resolution, base cell, three bits a digit, 7 where there is none.
        cell = 1 << 59 | resolution << 52 | base[place[at]] << 45 | (1 << 45 - 3 * resolution) - 1
        shift = 45 - 3 * resolution
        while rest:
            cell |= turned[turn * 4096 + (rest & 4095)] << shift
            rest, shift = rest >> 12, shift + 12
        cells[at] = cell
    return left


def _traced(lat: Floats, lng: Floats, resolution: int) -> tuple[Ints, Ints]:
    place, digits = np.empty(len(lat), np.int64), np.empty(len(lat), np.int64)
    _trace(*icosahedron().places(lat, lng), resolution, _STEPS, _DIGIT_OF_STEP, place, digits)
    return place, digits


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
    place, traced = _traced(lat, lng, resolution)
    turned = np.stack([_turned(traced, turn) for turn in range(6)])
    slots = place * 8 + _leading(traced)
    for row in np.unique(slots, return_index=True)[1].tolist():
        cell = h3.latlng_to_cell(lat[row], lng[row], resolution)
        pentagon = h3.is_pentagon(h3.cell_to_parent(cell, 0))
        names.base[place[row]] = cell >> 45 & 127
        names.pentagon[place[row]] = pentagon
        digits = cell >> 45 - 3 * resolution & (1 << 3 * resolution) - 1
        turn = np.flatnonzero(turned[:, row] == digits)
        # All digits 0 look the same however they are turned: they tell nothing of the others.
        if len(turn) and (pentagon or digits):
            first = slots[row] if pentagon else slice(slots[row] // 8 * 8, slots[row] // 8 * 8 + 8)
            names.rotation[first] = turn[0]
    return names


def _turned(digits: Ints, turn: int) -> Ints:
    turned = np.zeros_like(digits)
    for shift in range(0, 3 * MAX_RESOLUTION, 12):
        turned |= _TURNED[turn * 4096 + (digits >> shift & 4095)] << shift
    return turned


@compiled
def meets_antimeridian(lng: Floats) -> bool:
    """Whether one of these longitudes lies at ±180 or beyond."""
    met = False
    for one in lng:
        met |= abs(one) >= 180
    return met


def cells_at(lat: Floats, lng: Floats, resolution: int) -> Cells:
    """`h3.latlng_to_cell` for arrays of degrees, lng in [-180, 180].

    Points within some nanometres of a cell's edge may fall to its other side.
    """
    if len(lat) == 1:  # h3 is quicker than three calls of compiled code
        return np.array([h3.latlng_to_cell(lat.item(), lng.item(), resolution)], np.uint64)
    names, cells = _names(), np.empty(len(lat), np.int64)
    place, digits = _traced(lat, lng, resolution)
    turns = names.base, names.pentagon, names.rotation, _TURNED
    if _name(place, digits, resolution, *turns, cells):
        for row in np.flatnonzero(cells == 0).tolist():
            cells[row] = h3.latlng_to_cell(lat[row], lng[row], resolution)
    return cells.view(np.uint64)

"""From geometries to the H3 cells that cover them. It stores nothing and answers no fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import h3.api.basic_int as h3
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from geofences.geometry import EARTH_RADIUS_M, Circle, Shape, great_circle_m, shifted
from geofences.reach import Reach, children

FINEST = 12
"""Cells of 300 m²; smaller places get a few boundary cells of this size."""

ENOUGH_CELLS = 43
"""A cover is refined until it has this many; each step makes at most seven of one: 300."""

_AT_ONCE = 500  # shapes whose cells are judged together; bounds memory

Cells = NDArray[np.uint64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """The cells of one geofence, ascending, little-endian uint64 (`.tobytes()` is what is stored).

    A point whose cell is in `interior` is inside; one in `boundary` needs the exact test; one in
    neither is outside. This holds for the cell at `resolution` and for the ancestor there of any
    finer cell of the point, which is not always the same (see `reach`).
    """

    resolution: int
    interior: Cells
    boundary: Cells


def cover(shape: Shape) -> Cover:
    """Cover a normalised shape with about 43 to 300 cells, fewer only at the finest resolution."""
    return covers([shape])[0]


def covers(shapes: Sequence[Shape]) -> list[Cover]:
    """The cover of each shape; many at once cost a fraction of one by one.

    From coarse to fine: cells that a shape cannot touch are dropped, those it surely holds are
    done, the others are split, so thin and scattered shapes cost no more than their edge.
    """
    return [
        one
        for start in range(0, len(shapes), _AT_ONCE)
        for one in _covers(shapes[start : start + _AT_ONCE])
    ]


@dataclass(frozen=True, slots=True)
class _Owned:
    """Cells and, for each, the position of the shape it is considered for."""

    cells: Cells
    owner: NDArray[np.int64]

    def where(self, chosen: Bools) -> _Owned:
        return _Owned(self.cells[chosen], self.owner[chosen])

    @staticmethod
    def joined(many: Sequence[_Owned]) -> _Owned:
        return _Owned(
            np.concatenate([one.cells for one in many]), np.concatenate([one.owner for one in many])
        )

    def children(self) -> _Owned:
        cells, parent = children(self.cells)
        return _Owned(cells, self.owner[parent])

    def by_owner(self, count: int) -> list[Cells]:
        order = np.lexsort((self.cells, self.owner))
        ends = np.cumsum(np.bincount(self.owner, minlength=count))
        return np.split(self.cells[order], ends[:-1])


_NONE = _Owned(np.empty(0, np.uint64), np.empty(0, np.int64))


def _covers(shapes: Sequence[Shape]) -> list[Cover]:
    count = len(shapes)
    judge = _Judge(shapes)
    starts = [_start(shape) for shape in shapes]
    found: dict[int, Cover] = {}
    candidates = interior = _NONE
    for resolution in range(FINEST + 1):
        begins = [
            _Owned(cells, np.full(len(cells), owner))
            for owner, (start, cells) in enumerate(starts)
            if start == resolution
        ]
        candidates = _Owned.joined([candidates, *begins])
        if not len(candidates.cells) and not len(interior.cells):
            continue
        holds, touches = judge.verdict(candidates)
        interior = _Owned.joined([interior, candidates.where(holds)])
        boundary = candidates.where(touches & ~holds)
        size = np.bincount(interior.owner, minlength=count)
        size += np.bincount(boundary.owner, minlength=count)
        ready = (size >= ENOUGH_CELLS) | ((size > 0) & (resolution == FINEST))
        if ready.any():
            inner, outer = interior.by_owner(count), boundary.by_owner(count)
            for owner in np.flatnonzero(ready).tolist():
                found[owner] = Cover(
                    resolution=resolution, interior=inner[owner], boundary=outer[owner]
                )
        interior = interior.where(~ready[interior.owner]).children()
        candidates = boundary.where(~ready[boundary.owner]).children()
    return [found[owner] for owner in range(count)]


def _start(shape: Shape) -> tuple[int, Cells]:
    """The finest resolution at which a cell and two rings around it surely hold the shape."""
    if isinstance(shape, Circle):
        lat, lng, angle = shape.lat, shape.lng, shape.radius_m / EARTH_RADIUS_M
    else:
        west, south, east, north = shape.bounds
        lat, lng = (south + north) / 2, (west + east) / 2
        # Half the box's diagonal is at most this, as every parallel is shorter than the equator.
        angle = np.radians(np.hypot(north - south, east - west)) / 2
    # Cells of the third ring begin 0.11 radians away at resolution 0, at a kink or pentagon too.
    resolution = int(np.floor(-2 * np.log(max(angle, 1e-9) / 0.11) / np.log(7)))
    if resolution < 0:
        return 0, np.array(h3.get_res0_cells(), np.uint64)
    resolution = min(resolution, FINEST)
    return resolution, np.array(h3.grid_disk(h3.latlng_to_cell(lat, lng, resolution), 2), np.uint64)


class _Judge:
    """Which cells a shape holds, and which it may touch."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self._round = np.array([isinstance(shape, Circle) for shape in shapes])
        self._circles = np.full((3, len(shapes)), np.nan)
        self._areas = np.full(len(shapes), None, object)
        for position, shape in enumerate(shapes):
            if isinstance(shape, Circle):
                self._circles[:, position] = shape.lat, shape.lng, shape.radius_m
            else:
                self._areas[position] = shape
        shapely.prepare(self._areas)
        self._copies = np.full(len(shapes), None, object)

    def verdict(self, candidates: _Owned) -> tuple[Bools, Bools]:
        reach = Reach.of(candidates.cells)
        lat, lng, radius_m = self._circles[:, candidates.owner]
        away_m = great_circle_m(reach.lat, reach.lng, lat, lng)
        reach_m = reach.radius * EARTH_RADIUS_M + 0.001  # for rounding
        holds, touches = away_m + reach_m <= radius_m, away_m - reach_m <= radius_m
        flat = np.flatnonzero(~self._round[candidates.owner])
        if len(flat):
            outlines = reach.outlines()[flat]
            areas = self._seen_by(outlines, candidates.owner[flat])
            polygons = shapely.polygons(outlines)
            touches[flat] = meets = shapely.intersects(areas, polygons)
            holds[flat[meets]] = shapely.covers(areas[meets], polygons[meets])
        return holds, touches

    def _seen_by(self, outlines: Floats, owner: NDArray[np.int64]) -> NDArray[np.object_]:
        """The shapes as outlines see them: across the antimeridian one, not two that end there."""
        areas = self._areas[owner]
        beyond = np.flatnonzero(np.abs(outlines[:, :, 0]).max(axis=1) > 180)
        for position in np.unique(owner[beyond]).tolist():
            if self._copies[position] is None:
                self._copies[position] = _all_around(self._areas[position])
        areas[beyond] = self._copies[owner[beyond]]
        return areas


def _all_around(shape: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    around: Polygon | MultiPolygon = shapely.unary_union(
        [shifted(shape, turn) for turn in (-360, 0, 360)]
    )
    shapely.prepare(around)
    return around


def middle(cell: int) -> tuple[float, float]:
    """The latitude and longitude of a cell's middle."""
    lat, lng = h3.cell_to_latlng(cell)
    return lat, lng


def rings(packed: bytes) -> Iterator[tuple[int, list[list[float]]]]:
    """Each stored cell with its closed outline to draw, longitude first.

    Longitudes of a cell across the antimeridian go on beyond 180.
    """
    for cell in np.frombuffer(packed, "<u8").tolist():
        corners = [[lng, lat] for lat, lng in h3.cell_to_boundary(cell)]
        east = max(lng for lng, _ in corners)
        ring = [[lng + 360 if east - lng > 180 else lng, lat] for lng, lat in corners]
        yield cell, [*ring, ring[0]]

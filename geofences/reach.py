"""How far H3 cells reach, and their children: what a cover needs to know. It names no point.

A cell's descendants do not fill its hexagon but a wavy figure around it: seven hexagons of seven
hexagons, and so on. That figure lies within 1.0526 circumradii of the centre (the sum of
0.6547 / 7 ** (n / 2)); where a cell spans two faces of the icosahedron the lattice has a kink, and
10 million samples reached 1.34. To be on the safe side of both:
"""

from __future__ import annotations

from dataclasses import dataclass

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

from geofences.icosahedron import Floats, Ints, icosahedron, unit_vectors

Cells = NDArray[np.uint64]

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
        solid = icosahedron()
        ids = cells.tolist()
        resolution = h3.get_resolution(ids[0]) if ids else 0
        lat, lng = np.array([h3.cell_to_latlng(cell) for cell in ids]).reshape(-1, 2).T
        points = unit_vectors(lat, lng)
        axes = solid.axes[solid.places(lat, lng)[0]]
        circumradius = 7 ** (-resolution / 2) / np.sqrt(3)
        nearness = np.partition(solid.centers @ points, -2, axis=0)[-2:]
        at_kink = nearness[1] - nearness[0] < 0.72 * 2 * circumradius * solid.unit
        plane_radius = np.where(at_kink, _REACH_AT_KINK, _REACH) * circumradius
        # Gnomonic projection stretches by at least 1 / cos of the angle from the face's centre.
        from_center = np.arccos(np.clip(nearness[1], -1, 1))
        wide = plane_radius * solid.unit
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
        solid = icosahedron()
        x, y, z = np.einsum("nij,jn->in", self._axes, self._points)
        angle = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)
        wide = (self._plane_radius * _SLACK / np.cos(np.pi / _CORNERS))[:, None]
        along_i = ((x / z)[:, None] + wide * np.cos(angle)) * solid.unit**2
        along_j = ((y / z)[:, None] + wide * np.sin(angle)) * solid.unit**2
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
    pentagons = np.array(h3.get_pentagons(resolution - 1), np.uint64)
    exists[np.isin(cells, pentagons), 1] = False
    return family[exists], np.nonzero(exists)[0]

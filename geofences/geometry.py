"""What a geofence's geometry means: bounds, wrapping, circles, distances. It knows no cells.

A polygon's edges are straight lines in longitude and latitude (RFC 7946, section 3.1.1), and a
point on an edge or a corner, of a hole too, is inside. A circle holds what is at most its radius
away along the great circle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius R1 = (2a + b) / 3 of WGS84 (Moritz, Geodetic Reference System 1980)."""

MAX_RADIUS_M = 100_000.0
"""Wider than any city; a bigger place is drawn as a polygon."""

_MAX_LNG = 540.0
"""One turn beyond the antimeridian on either side; more is no longitude that anyone meant."""

_SAFE_REPAIR = 0.01
"""Share of the area that a repair may add or lose and still be called the same place."""

Floats = NDArray[np.float64]


class GeometryReason(StrEnum):
    """Why a geometry cannot be a geofence."""

    EMPTY = "empty"
    NOT_AN_AREA = "not_an_area"
    NOT_FINITE = "not_finite"
    OUT_OF_BOUNDS = "out_of_bounds"
    SELF_CROSSING = "self_crossing"
    BAD_RADIUS = "bad_radius"


class GeometryError(ValueError):
    """A geometry that cannot be meant; `reason` for programs, the message for people."""

    def __init__(self, reason: GeometryReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """Every point whose great-circle distance to the centre is at most `radius_m`."""

    lat: float
    lng: float
    radius_m: float


Shape = Polygon | MultiPolygon | Circle


def wrapped(lng: Floats) -> Floats:
    """Any longitude as one in [-180, 180]; those already there keep every bit."""
    return np.where(np.abs(lng) <= 180, lng, (lng + 180) % 360 - 180)


def shifted(area: Polygon | MultiPolygon, east: float) -> Polygon | MultiPolygon:
    """The same area that many degrees farther east."""
    moved: Polygon | MultiPolygon = shapely.transform(area, lambda xy: xy + np.array([east, 0.0]))
    return moved


def circle(*, lat: float, lng: float, radius_m: float) -> Circle:
    """A checked circle with lng in [-180, 180]. Raises GeometryError."""
    if not (np.isfinite([lat, lng, radius_m])).all():
        raise GeometryError(GeometryReason.NOT_FINITE, "a coordinate or the radius is no number")
    _check_bounds(np.array([[lng, lat]]))
    if not 0 < radius_m <= MAX_RADIUS_M:
        raise GeometryError(
            GeometryReason.BAD_RADIUS,
            f"the radius is {radius_m:g} m; it must be more than 0 and at most {MAX_RADIUS_M:g} m",
        )
    return Circle(lat=float(lat), lng=float(wrapped(np.array(lng))), radius_m=float(radius_m))


def normalise(geometry: shapely.Geometry, *, repair: bool = False) -> Polygon | MultiPolygon:
    """The same area with lng in [-180, 180], flat, cut at the antimeridian, outer rings ccw.

    Where two vertices in a row are more than 180° apart the edge takes the short way, across the
    antimeridian; longitudes beyond ±180 are taken as they are and wrapped. A ring that goes around
    the earth holds the pole on its left (RFC 7946, section 3.1.6). What already is in its place
    keeps every coordinate to the last bit.

    Raises GeometryError. `repair=True` unites parts that overlap, and mends rings that cross or
    touch themselves where that changes the area by less than a hundredth.
    """
    _check_area(geometry)
    flat = shapely.force_2d(geometry)
    coordinates = shapely.get_coordinates(flat)
    if not np.isfinite(coordinates).all():
        raise GeometryError(GeometryReason.NOT_FINITE, "a coordinate is no number")
    _check_bounds(coordinates)
    parts = [_valid(part, repair=repair) for part in _unwrapped_parts(flat)]
    inside = [piece for part in parts for piece in _cut(part)]
    whole = inside[0] if len(inside) == 1 else MultiPolygon(inside)
    if not shapely.is_valid(whole):
        whole = _united(whole, repair=repair)
    oriented: Polygon | MultiPolygon = shapely.orient_polygons(whole)
    return oriented


def _check_area(geometry: shapely.Geometry) -> None:
    if geometry is None or shapely.is_empty(geometry):
        raise GeometryError(GeometryReason.EMPTY, "there is no geometry")
    if not isinstance(geometry, Polygon | MultiPolygon):
        raise GeometryError(
            GeometryReason.NOT_AN_AREA,
            f"a {geometry.geom_type} has no inside: Polygon, MultiPolygon or Point with a radius",
        )


def _check_bounds(coordinates: Floats) -> None:
    lng, lat = coordinates.T
    beyond = (np.abs(lat) > 90) | (np.abs(lng) > _MAX_LNG)
    if beyond.any():
        x, y = coordinates[beyond.argmax()]
        swapped = abs(y) <= 180 and abs(x) <= 90
        raise GeometryError(
            GeometryReason.OUT_OF_BOUNDS,
            f"longitude {x:g}, latitude {y:g} is not on earth"
            + ("; are latitude and longitude swapped?" if swapped else ""),
        )


def _unwrapped_parts(flat: Polygon | MultiPolygon) -> Iterator[Polygon]:
    for part in shapely.get_parts(flat):
        if shapely.is_empty(part):
            continue
        exterior = shapely.get_coordinates(part.exterior)
        holes = [shapely.get_coordinates(hole) for hole in part.interiors]
        yield _unwrapped(exterior, holes) or part


def _unwrapped(exterior: Floats, holes: list[Floats]) -> Polygon | None:
    """The polygon without jumps, perhaps beyond ±180; None where it is meant as it stands."""
    shell = _without_jumps(exterior)
    if shell is None:
        return None
    turn = shell[-1, 0] - shell[0, 0]
    if abs(turn) > 180:
        pole = 90.0 if turn > 0 else -90.0
        shell = np.vstack((shell, [(shell[-1, 0], pole), (shell[0, 0], pole)], shell[:1]))
    if Polygon(shell).area == 0:  # a band around the whole earth, given as a rectangle
        return None
    west, east = shell[:, 0].min(), shell[:, 0].max()
    placed = []
    for hole in holes:
        ring = _without_jumps(hole)
        ring = hole if ring is None else ring
        middle = (ring[:, 0].min() + ring[:, 0].max()) / 2
        shift = next((s for s in (0, 360, -360) if west <= middle + s <= east), 0)
        placed.append(ring + np.array([shift, 0.0]))
    return Polygon(shell, placed)


def _without_jumps(ring: Floats) -> Floats | None:
    """The ring with every edge going the short way round; None where it does already."""
    steps = np.diff(ring[:, 0])
    turns = np.where(steps > 180, -360.0, np.where(steps < -180, 360.0, 0.0))
    # Along a pole, as Antarctica is drawn, is one point: such a ring is cut open there already.
    polar = np.abs(ring[:, 1]) == 90
    jumps = turns[~(polar[1:] & polar[:-1])]
    if not jumps.any() and np.abs(ring[:, 0]).max() <= 180:
        return None
    smooth = ring.copy()
    smooth[1:, 0] += np.cumsum(turns)
    return smooth


def _valid(part: Polygon, *, repair: bool) -> Polygon | MultiPolygon:
    return part if shapely.is_valid(part) else _mended(part, repair=repair)


def _mended(broken: Polygon, *, repair: bool) -> Polygon | MultiPolygon:
    why = shapely.is_valid_reason(broken)
    if not repair:
        raise GeometryError(GeometryReason.SELF_CROSSING, why)
    mended = shapely.make_valid(broken, method="structure", keep_collapsed=False)
    if shapely.is_empty(mended) or not isinstance(mended, Polygon | MultiPolygon):
        raise GeometryError(GeometryReason.NOT_AN_AREA, f"{why}; nothing is left when mended")
    # Rings as drawn, each loop with its sign: a figure of eight cancels itself out here.
    if abs(mended.area - broken.area) > _SAFE_REPAIR * mended.area:
        raise GeometryError(
            GeometryReason.SELF_CROSSING, f"{why}; mending it would change its area too much"
        )
    return mended


def _united(overlapping: MultiPolygon, *, repair: bool) -> Polygon | MultiPolygon:
    """Valid parts that overlap: inside any of them is inside."""
    if not repair:
        why = shapely.is_valid_reason(overlapping)
        raise GeometryError(GeometryReason.SELF_CROSSING, f"parts overlap: {why}")
    united: Polygon | MultiPolygon = shapely.unary_union(overlapping)
    return united


def _cut(part: Polygon | MultiPolygon) -> Iterator[Polygon]:
    """The pieces on each turn of the earth, moved onto the first."""
    west, _, east, _ = part.bounds
    if west >= -180 and east <= 180:
        yield from shapely.get_parts(part)
        return
    pieces = []
    for turn in (-720, -360, 0, 360, 720):
        if east < turn - 180 or west > turn + 180:
            continue
        strip = shapely.intersection(part, shapely.box(turn - 180, -90, turn + 180, 90))
        moved = shifted(strip, -turn)
        # Moving rounds; the cut itself must stay on the antimeridian.
        exact = shapely.transform(moved, lambda xy: np.clip(xy, (-180, -90), (180, 90)))
        pieces += [each for each in shapely.get_parts(exact) if isinstance(each, Polygon)]
    if east - west >= 360:  # it comes round to itself where its ring began
        pieces = list(shapely.get_parts(shapely.unary_union(pieces)))
    yield from (each for each in pieces if not shapely.is_empty(each))


def great_circle_m(lat: Floats, lng: Floats, to_lat: Floats, to_lng: Floats) -> Floats:
    """Haversine distance in metres, element by element.

    R. W. Sinnott, Virtues of the Haversine, Sky and Telescope 68 (1984).
    """
    phi, to_phi = np.radians(lat), np.radians(to_lat)
    north, east = (to_phi - phi) / 2, np.radians(to_lng - lng) / 2
    h = np.sin(north) ** 2 + np.cos(phi) * np.cos(to_phi) * np.sin(east) ** 2
    distance: Floats = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(h, 0, 1)))
    return distance

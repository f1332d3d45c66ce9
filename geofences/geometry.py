"""What a geofence's geometry means: bounds, wrapping, circles, distances. It knows no cells."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius R1 of the WGS84 ellipsoid (Moritz, Geodetic Reference System 1980)."""

MAX_RADIUS_M = 100_000.0
"""Wider than any city; a bigger place is drawn as a polygon."""


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


def circle(*, lat: float, lng: float, radius_m: float) -> Circle:
    """A checked circle with lng in [-180, 180). Raises GeometryError."""
    raise NotImplementedError


def normalise(geometry: Polygon | MultiPolygon, *, repair: bool = False) -> Polygon | MultiPolygon:
    """The same area with lng in [-180, 180], split at the antimeridian, rings oriented.

    Raises GeometryError. `repair=True` mends self-crossing rings where that keeps the area.
    """
    raise NotImplementedError


def great_circle_m(
    lat: NDArray[np.float64],
    lng: NDArray[np.float64],
    to_lat: NDArray[np.float64],
    to_lng: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Haversine distance in metres, element by element."""
    raise NotImplementedError

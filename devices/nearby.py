"""Geofences as a phone's own region monitoring takes them: circles. It reads and writes no row."""

from __future__ import annotations

import numpy as np
import shapely

from geofences.geometry import great_circle_m
from geofences.models import Geofence


def bounding_circle(geofence: Geofence) -> tuple[float, float, float]:
    """A circle that holds the geofence: lat, lng, metres.

    Of a polygon, around the mean direction of its vertices: not the smallest circle, but one that
    knows neither antimeridian nor pole.
    """
    if geofence.radius_m is not None:
        point = geofence.geometry.centroid
        return point.y, point.x, geofence.radius_m
    lng, lat = shapely.get_coordinates(shapely.from_wkb(bytes(geofence.geometry.wkb))).T
    along, up = np.radians(lng), np.radians(lat)
    x, y, z = (
        float(part.mean())
        for part in (np.cos(up) * np.cos(along), np.cos(up) * np.sin(along), np.sin(up))
    )
    at_lat = float(np.degrees(np.arctan2(z, np.hypot(x, y))))
    at_lng = float(np.degrees(np.arctan2(y, x)))
    reach_m = great_circle_m(np.full(len(lat), at_lat), np.full(len(lng), at_lng), lat, lng)
    return at_lat, at_lng, float(reach_m.max())

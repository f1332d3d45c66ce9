"""What moments tell of geofences: rows read once and kept while they do not change."""

from __future__ import annotations

from collections import OrderedDict
from math import asin, cos, radians, sin, sqrt
from typing import Any, NamedTuple

import msgspec
from django.db import connection

from campaigns.definition import StepText, Trigger
from geofences.geometry import EARTH_RADIUS_M

_PLACES = """
    SELECT id, changed_xid, external_id, name, tags, metadata, dwell_s,
           ST_Y(ST_Centroid(geometry)), ST_X(ST_Centroid(geometry))
      FROM geofences_geofence WHERE id = ANY(%s)
"""
_PLACE_MARKS = "SELECT id, changed_xid FROM geofences_geofence WHERE id = ANY(%s)"


class Place(NamedTuple):
    """What moments tell of a geofence."""

    id: int
    mark: int
    external_id: str | None
    name: str
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    dwell_s: int | None
    lat: float | None
    lng: float | None

    def is_named(self, one: Trigger | StepText) -> bool:
        """Whether a trigger or a step chooses it: by an id of ours or of theirs, or by a tag."""
        return (
            self.id in one.geofences
            or (self.external_id is not None and self.external_id in one.geofences)
            or not set(one.tags).isdisjoint(self.tags)
        )


KEPT_PLACES = 200_000
_places: OrderedDict[int, Place] = OrderedDict()


def known_places(ids: set[int]) -> dict[int, Place]:
    """The geofences by id, from memory where their row has not changed."""
    if not ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_PLACE_MARKS, (list(ids),))
        marks = dict(cursor.fetchall())
        found = {
            key: place
            for key, mark in marks.items()
            if (place := _places.get(key)) is not None and place.mark == mark
        }
        stale = [key for key in marks if key not in found]
        if stale:
            cursor.execute(_PLACES, (stale,))
            for row in cursor.fetchall():
                key, mark, external_id, name, tags, metadata, dwell_s, lat, lng = row
                found[key] = _places[key] = Place(
                    key,
                    mark,
                    external_id,
                    name,
                    tuple(tags),
                    _json(metadata),
                    dwell_s,
                    lat,
                    lng,
                )
    while len(_places) > KEPT_PLACES:
        _places.popitem(last=False)
    return found


def distance_m(place: Place, fix: tuple[float, float] | None) -> int | None:
    """Metres from the fix to the middle of the place, for templates: "320 m from here"."""
    if fix is None or place.lat is None or place.lng is None:
        return None
    lat_a, lat_b = radians(fix[0]), radians(place.lat)
    half = (
        sin((lat_b - lat_a) / 2) ** 2
        + cos(lat_a) * cos(lat_b) * sin(radians(place.lng - fix[1]) / 2) ** 2
    )
    return round(2 * float(EARTH_RADIUS_M) * asin(sqrt(min(1.0, half))))


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value

"""Writes geofences and their covers, together or not at all. It reads no file and asks no rights.

The only writer of Geofence and GeofenceCover: what it has stored, the matching index can load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import shapely
from django.contrib.gis.geos import GEOSGeometry
from django.db import transaction

from geofences import cells, geometry, outlines
from geofences.models import Geofence, GeofenceCover

BATCH_ROWS = 2000  # rows per statement: a few megabytes of parameters
UNWRITTEN = frozenset(  # the key, what the trigger computes, what never changes
    {
        "id",
        "brand",
        "armed_until",
        "dwell_thresholds",
        "armed_at",
        "changed_xid",
        "shape_version",
        "created_at",
    }
)
CHANGEABLE = tuple(f.name for f in Geofence._meta.concrete_fields if f.name not in UNWRITTEN)


def fit(geofence: Geofence, *, repair: bool = False) -> geometry.Shape:
    """The shape that a geofence will have; its geometry becomes the normalised one.

    Raises GeometryError when there is no such place.
    """
    given = shapely.force_2d(shapely.from_wkb(bytes(geofence.geometry.wkb)))
    if geofence.radius_m is not None or isinstance(given, shapely.Point):
        shape = _circle(given, geofence.radius_m)
        stored = shapely.Point(shape.lng, shape.lat)
    else:
        shape = stored = geometry.normalise(given, repair=repair)
    geofence.geometry = GEOSGeometry(memoryview(stored.wkb), srid=4326)
    return shape


def _circle(centre: shapely.Geometry, radius_m: float | None) -> geometry.Circle:
    """Raises GeometryError where point and radius do not belong together."""
    if radius_m is None:
        raise geometry.GeometryError(
            geometry.GeometryReason.BAD_RADIUS, "A point needs a radius in metres."
        )
    if not isinstance(centre, shapely.Point):
        raise geometry.GeometryError(
            geometry.GeometryReason.BAD_RADIUS, "Only a point may have a radius."
        )
    if centre.is_empty:
        raise geometry.GeometryError(geometry.GeometryReason.EMPTY, "The point is empty.")
    return geometry.circle(lat=centre.y, lng=centre.x, radius_m=radius_m)


def save(geofences: Sequence[Geofence]) -> None:
    """Write rows and covers in one transaction; new rows get their ids.

    Rows that exist are written whole, so read them first. Raises GeometryError for a shape that
    cannot be (nothing is written then) and IntegrityError for an external id that is taken.
    """
    covers = [_cover(fit(geofence)) for geofence in geofences]
    new = [geofence for geofence in geofences if geofence._state.adding]
    # By id, so that two writers lock common rows in the same order.
    known = sorted((g for g in geofences if not g._state.adding), key=lambda geofence: geofence.pk)
    with transaction.atomic():
        Geofence.objects.bulk_create(new, batch_size=BATCH_ROWS)
        Geofence.objects.bulk_create(
            known,
            batch_size=BATCH_ROWS,
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=CHANGEABLE,
        )
        for geofence, cover in zip(geofences, covers, strict=True):
            cover.geofence = geofence
        GeofenceCover.objects.bulk_create(
            covers,
            batch_size=BATCH_ROWS,
            update_conflicts=True,
            unique_fields=["geofence"],
            update_fields=["resolution", "interior", "boundary", "shape"],
        )


def _cover(shape: geometry.Shape) -> GeofenceCover:
    cover = cells.cover(shape)
    return GeofenceCover(
        resolution=cover.resolution,
        interior=cover.interior.tobytes(),
        boundary=cover.boundary.tobytes(),
        shape=outlines.pack(shape),
    )


def retire(ids: Iterable[int], *, now: datetime) -> int:
    """Take geofences out of use; visits in them end. Answers how many were in use.

    The rows stay, for the history that names them and to be revived by their external id.
    """
    return Geofence.objects.present().filter(pk__in=list(ids)).update(retired_at=now)

"""Writes geofences and their covers, together or not at all. It reads no file and asks no rights.

The only writer of Geofence and GeofenceCover: what it has stored, the matching index can load.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import shapely
from django.contrib.gis.geos import GEOSGeometry, Point
from django.db import connection, transaction

from geofences import blocks, cells, geometry, outlines
from geofences.models import Geofence, GeofenceCover

BATCH_ROWS = 2000  # rows per statement: a few megabytes of parameters
UNCHANGEABLE = frozenset({"id", "brand", "created_at"})
BY_TRIGGER = frozenset(
    {"armed_until", "dwell_thresholds", "armed_at", "changed_xid", "shape_version"}
)
CHANGEABLE = tuple(
    field.name
    for field in Geofence._meta.concrete_fields
    if field.name not in UNCHANGEABLE | BY_TRIGGER
)
SAVED = tuple(name for name in CHANGEABLE if name != "retired_at")  # for retire and revive alone


def lock(brand_id: int) -> None:
    """Wait until no other transaction brings this brand's geofences up to date.

    Two upserts of one external id at a time would both find it missing; and who reads rows to
    save them would write over what another saves meanwhile. Ask for it before any row's lock.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('geofences'), %s)", [brand_id])
        # Every write waits for who publishes (migration 0011). Here, before a row is locked: who
        # publishes may want that row.
        cursor.execute("SELECT pg_advisory_xact_lock_shared(hashtext('geofences_arming'), 0)")


def fit(geofence: Geofence, *, repair: bool = False) -> geometry.Shape:
    """The shape that a geofence will have; its geometry becomes the normalised one.

    Raises GeometryError when there is no such place.
    """
    place: Any = geofence.geometry
    if geofence.radius_m is not None or isinstance(place, Point):
        circle = _circle(place, geofence.radius_m)
        if place.hasz or (place.x, place.y) != (circle.lng, circle.lat):
            geofence.geometry = Point(circle.lng, circle.lat, srid=4326)
        return circle
    given = shapely.force_2d(shapely.from_wkb(bytes(place.wkb)))
    shape = geometry.normalise(given, repair=repair)
    geofence.geometry = GEOSGeometry(memoryview(shapely.to_wkb(shape)), srid=4326)
    return shape


def _circle(centre: Any, radius_m: float | None) -> geometry.Circle:
    """Raises GeometryError where point and radius do not belong together."""
    if radius_m is None:
        raise geometry.GeometryError(
            geometry.GeometryReason.BAD_RADIUS, "A point needs a radius in metres."
        )
    if not isinstance(centre, Point):
        raise geometry.GeometryError(
            geometry.GeometryReason.BAD_RADIUS, "Only a point may have a radius."
        )
    if centre.empty:
        raise geometry.GeometryError(geometry.GeometryReason.EMPTY, "The point is empty.")
    return geometry.circle(lat=centre.y, lng=centre.x, radius_m=radius_m)


def save(geofences: Sequence[Geofence], shapes: Sequence[geometry.Shape] | None = None) -> None:
    """Write rows and covers in one transaction; new rows get their ids.

    Rows that exist are written whole, so read them under `lock`; only whether one is retired is
    for `retire` and `revive` to say. `shapes` are what `fit` answered for
    them, from those who have called it already. Raises GeometryError for a shape that cannot be
    (nothing is written then) and IntegrityError for an external id that is taken.
    """
    shapes = [fit(geofence) for geofence in geofences] if shapes is None else shapes
    together = list(zip(geofences, covers_of(shapes), strict=True))
    new = [pair for pair in together if pair[0]._state.adding]
    # By id, so that two writers lock common rows in the same order.
    known = sorted(
        (pair for pair in together if not pair[0]._state.adding), key=lambda pair: pair[0].pk
    )
    with transaction.atomic():
        _insert(new)
        _update(known)


def covers_of(shapes: Sequence[geometry.Shape]) -> list[GeofenceCover]:
    """What is stored beside geofences of these shapes; not stored yet, and of no geofence."""
    covers = cells.covers(shapes)
    return [
        GeofenceCover(resolution=cover.resolution, blocks=entries, shape=outlines.pack(shape))
        for shape, cover, entries in zip(shapes, covers, blocks.of_covers(covers), strict=True)
    ]


Pair = tuple[Geofence, GeofenceCover]


def _insert(pairs: Sequence[Pair]) -> None:
    """By COPY: a sixth of the time that INSERT takes for 200,000 circles."""
    if not pairs:
        return
    with connection.cursor() as cursor, connection.wrap_database_errors:
        cursor.execute(
            "SELECT nextval(pg_get_serial_sequence('geofences_geofence', 'id'))"
            " FROM generate_series(1, %s)",
            [len(pairs)],
        )
        ids = [pk for (pk,) in cursor.fetchall()]
        fields = Geofence._meta.concrete_fields
        names = ", ".join(str(field.column) for field in fields)
        with cursor.copy(f"COPY geofences_geofence ({names}) FROM STDIN") as rows:
            for pk, (geofence, _) in zip(ids, pairs, strict=True):
                rows.write_row([pk, *(_written(geofence, field) for field in fields[1:])])
        with cursor.copy(
            "COPY geofences_geofencecover (geofence_id, resolution, blocks, shape) FROM STDIN"
        ) as rows:
            for pk, (_, cover) in zip(ids, pairs, strict=True):
                rows.write_row((pk, cover.resolution, cover.blocks, cover.shape))
    for pk, (geofence, _) in zip(ids, pairs, strict=True):
        geofence.pk = pk
        geofence._state.adding = False
        geofence._state.db = connection.alias


def _written(geofence: Geofence, field: Any) -> Any:
    """A field's value as COPY takes it."""
    value = field.pre_save(geofence, add=True)
    if isinstance(value, GEOSGeometry):
        return value.hexewkb.decode()
    return json.dumps(value) if field.name == "metadata" else value


def _update(pairs: Sequence[Pair]) -> None:
    Geofence.objects.bulk_create(
        [geofence for geofence, _ in pairs],
        batch_size=BATCH_ROWS,
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=SAVED,
    )
    for geofence, cover in pairs:
        cover.geofence = geofence
    GeofenceCover.objects.bulk_create(
        [cover for _, cover in pairs],
        batch_size=BATCH_ROWS,
        update_conflicts=True,
        unique_fields=["geofence"],
        update_fields=["resolution", "blocks", "shape"],
    )


def retire(ids: Iterable[int], *, now: datetime, since: datetime | None = None) -> int:
    """Take geofences out of use; visits in them end. Answers how many were in use.

    The rows stay, for the history that names them and to be revived by their external id. `since`:
    when they are to have been retired, where not now.
    """
    in_use = Geofence.objects.present().filter(pk__in=list(ids))
    return in_use.update(retired_at=since or now, updated_at=now)


def revive(ids: Iterable[int], *, now: datetime) -> int:
    """Bring geofences back into use. Answers how many were retired."""
    retired = Geofence.objects.filter(pk__in=list(ids), retired_at__isnull=False)
    return retired.update(retired_at=None, updated_at=now)

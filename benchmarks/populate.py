"""Fills the benchmarks' database with geofences and devices, by COPY and SQL; it measures nothing.

Covers come from the cache that the matching benchmark uses, so that 300,000 geofences are there in
seconds instead of minutes. They are the rows that `geofences.writing` would have written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import shapely
from psycopg import sql

from benchmarks import armed, stage, world

BRAND, TAG = "bench", "shop"
_GEOFENCES = """
    COPY geofences_geofence (id, brand_id, name, geometry, tags, metadata, track_visits,
      exit_buffer_m, confirm_fixes, confirm_s, dwell_thresholds, changed_xid, shape_version,
      created_at, updated_at) FROM STDIN
"""
_COVERS = """
    COPY geofences_geofencecover (geofence_id, resolution, blocks, shape) FROM STDIN
"""
_DEVICES = """
    INSERT INTO devices_device (id, brand_id, installation_id, platform, locale, timezone,
      app_version, attributes, attribute_facts, consent_location, consent_marketing,
      consent_version, push_token, created_at, updated_at)
    SELECT i, %s, 'bench-' || i, 'android', 'en', 'UTC', '1', '{}', '{}', true, true, '1',
           'token' || i, now(), now() FROM generate_series(%s::int, %s) i
"""
_STATES = """
    INSERT INTO devices_devicestate (device_id, version, brand_id, serial, consent_location,
      presences)
    SELECT i, 0, %s, 1, true, 0 FROM generate_series(%s::int, %s) i
"""


class Phone(NamedTuple):
    """Who sends from where."""

    device_id: int
    token: str
    lat: float
    lng: float


def brand() -> Any:
    """The one brand of the benchmarks."""
    from brands.models import Brand

    return Brand.objects.get_or_create(name="Bench", slug=BRAND)[0]


def geofences(count: int, home: str, *, tracked: bool = True) -> list[dict[str, Any]]:
    """Replace all geofences by these, armed for visits where `tracked`; their GeoJSON."""
    brand_id = brand().pk
    shapes, columns = armed.shapes(count, home), armed.columns(count, home)
    places = shapely.to_wkb(shapely.set_srid(shapes, 4326), hex=True, include_srid=True)
    with stage.connect() as connection, connection.transaction():
        connection.execute("TRUNCATE geofences_geofence CASCADE")
        connection.execute("TRUNCATE devices_presence, devices_transition")
        connection.execute("UPDATE devices_devicestate SET presences = 0 WHERE presences > 0")
        now = connection.execute("SELECT now()::text").fetchone()
        assert now is not None
        with connection.cursor().copy(_GEOFENCES) as rows:
            for number, place in enumerate(places.tolist(), start=1):
                rows.write_row(
                    (
                        *(number, brand_id, f"g{number}", place, f"{{{TAG}}}", "{}", tracked),
                        *(20, 1, 0, "{}", 0, 1, now[0], now[0]),
                    )
                )
        with connection.cursor().copy(_COVERS) as rows:
            for number, cover in enumerate(
                zip(columns.resolution.tolist(), columns.cover, columns.shape, strict=True),
                start=1,
            ):
                rows.write_row((number, *cover))
        connection.execute(
            "SELECT setval(pg_get_serial_sequence('geofences_geofence', 'id'), %s)", (count,)
        )
    settle("geofences_geofence", "geofences_geofencecover")
    return [shape.__geo_interface__ for shape in shapes]


def devices(count: int, home: str) -> list[Phone]:
    """Replace all devices by these, spread over a home."""
    with stage.connect() as connection:
        connection.execute("TRUNCATE devices_device, devices_devicestate, devices_fix CASCADE")
    more_devices(1, count)
    return phones(range(1, count + 1), home)


def phones(device_ids: Sequence[int], home: str) -> list[Phone]:
    """Tokens of these devices, and places spread over a home."""
    from devices.auth import issue

    brand_id = brand().pk
    lat, lng = world.places(len(device_ids), home=home, seed=2)
    return [
        Phone(device_id, issue(device_id, brand_id, 1), north, east)
        for device_id, north, east in zip(device_ids, lat.tolist(), lng.tolist(), strict=True)
    ]


def more_devices(first: int, last: int) -> None:
    """Devices with these ids, without a place yet."""
    brand_id = brand().pk
    with stage.connect() as connection:
        connection.execute(_DEVICES, (brand_id, first, last))
        connection.execute(_STATES, (brand_id, first, last))
    settle("devices_device", "devices_devicestate")


def settle(*tables: str) -> None:
    """Statistics and visibility as they are some time after an import."""
    with stage.connect() as connection:
        for table in tables:
            connection.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))


def server_key() -> str:
    """A new key of the brand's back office."""
    from brands.models import AppKey, KeyKind

    _, secret = AppKey.issue(brand=brand(), kind=KeyKind.SERVER, name="bench")
    return secret

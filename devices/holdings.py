"""What is held about a device, table by table: one list for export and for erasure.

Each app adds its own tables in `AppConfig.ready`; the apps above are not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.db import connection

from devices.fixes import FixVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One part of the export; both kinds of SQL take `%(device_id)s`."""

    name: str
    rows: str  # a SELECT; its columns are the names in the export
    erase: tuple[str, ...]
    # Called with the device's id before its rows go; may take locks that others hold while they
    # wait for rows, so it comes after the rows of every other holding.
    settle: Callable[[int], None] | None = None
    # What names a person by `%(brand_id)s` and `%(external_id)s` beside their devices: of devices
    # that were theirs once.
    forget: tuple[str, ...] = ()


_holdings: dict[str, Holding] = {}


def hold(*holdings: Holding) -> None:
    """Add tables that name devices: erased as added, after the hot row; what settles comes last."""
    for holding in holdings:
        _holdings[holding.name] = holding


def exported(device_id: int) -> Iterator[tuple[str, list[str]]]:
    """Each part's name and its rows as JSON text, straight from the database."""
    for holding in _holdings.values():
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT to_jsonb(part)::text FROM ({holding.rows}) part",  # noqa: S608 - our own SQL
                {"device_id": device_id},
            )
            yield holding.name, [row[0] for row in cursor.fetchall()]


def erase(device_id: int) -> None:
    """Delete every row that names the device, but for Device itself; in the caller's transaction.

    The hot row goes first: ingest and the event door take its lock, so nothing is added behind
    our back. Deleting a transition waits for the evaluator that holds it, and what that one wrote
    is then seen and deleted by the statements that follow.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM devices_devicestate WHERE device_id = %(device_id)s",
            {"device_id": device_id},
        )
        for holding in sorted(_holdings.values(), key=lambda one: one.settle is not None):
            if holding.settle is not None:
                holding.settle(device_id)
            for statement in holding.erase:
                cursor.execute(statement, {"device_id": device_id})


def forget(brand_id: int, external_id: str) -> None:
    """Take a person's id out of what no device of theirs holds; in the caller's transaction."""
    with connection.cursor() as cursor:
        for holding in _holdings.values():
            for statement in holding.forget:
                cursor.execute(statement, {"brand_id": brand_id, "external_id": external_id})


_VERDICTS = ", ".join(f"'{verdict.name.lower()}'" for verdict in FixVerdict)

OWN = (
    Holding(
        name="last_position",  # kept longer than the fix that told it
        rows="""
            SELECT recorded_at, received_at, lat, lng, accuracy_m, speed_mps
              FROM devices_devicestate
             WHERE device_id = %(device_id)s AND recorded_at IS NOT NULL
        """,
        erase=(),
    ),
    Holding(
        name="fixes",
        rows=f"""
            SELECT recorded_at, received_at, lat, lng, accuracy_m, speed_mps, heading_deg,
                   altitude_m, battery, (ARRAY[{_VERDICTS}])[verdict + 1] AS verdict
              FROM devices_fix WHERE device_id = %(device_id)s ORDER BY recorded_at
        """,  # noqa: S608 - our own words
        erase=("DELETE FROM devices_fix WHERE device_id = %(device_id)s",),
    ),
    Holding(
        name="areas",
        rows="""
            SELECT kind, lat, lng, days, last_at
              FROM devices_area WHERE device_id = %(device_id)s ORDER BY kind, days DESC
        """,
        erase=(
            "DELETE FROM devices_area WHERE device_id = %(device_id)s",
            "DELETE FROM devices_areascan WHERE device_id = %(device_id)s",
        ),
    ),
    Holding(
        name="events",
        rows="""
            SELECT id, name, occurred_at, received_at, properties
              FROM devices_event WHERE device_id = %(device_id)s ORDER BY occurred_at, id
        """,
        erase=("DELETE FROM devices_event WHERE device_id = %(device_id)s",),
    ),
    Holding(
        name="transitions",
        rows="""
            SELECT t.id, t.device_id, t.kind, t.visit_id, t.dwell_s, t.entered_at, t.occurred_at,
                   t.recorded_at, t.reason, t.lat, t.lng, t.accuracy_m,
                   jsonb_build_object(
                     'id', t.geofence_id, 'external_id', g.external_id, 'name', g.name
                   ) AS geofence
              FROM devices_transition t LEFT JOIN geofences_geofence g ON g.id = t.geofence_id
             WHERE t.device_id = %(device_id)s ORDER BY t.id
        """,
        erase=("DELETE FROM devices_transition WHERE device_id = %(device_id)s",),
    ),
    Holding(
        name="presences",
        rows="""
            SELECT p.state, p.visit_id, p.entered_at, p.since_at, p.agreeing, p.dwelled_s,
                   jsonb_build_object(
                     'id', p.geofence_id, 'external_id', g.external_id, 'name', g.name
                   ) AS geofence
              FROM devices_presence p LEFT JOIN geofences_geofence g ON g.id = p.geofence_id
             WHERE p.device_id = %(device_id)s ORDER BY p.entered_at, p.geofence_id
        """,
        erase=("DELETE FROM devices_presence WHERE device_id = %(device_id)s",),
    ),
)

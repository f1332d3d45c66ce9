"""What is held about a device, table by table: one list for export and for erasure.

Each app adds its own tables in `AppConfig.ready`; the apps above are not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.db import connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One part of the export; both kinds of SQL take `%(device_id)s`."""

    name: str
    rows: str  # a SELECT; its columns are the names in the export
    erase: tuple[str, ...]
    # Called with the device's id before its rows go; may take locks that others hold while they
    # wait for rows, so it comes after the rows of every other holding.
    settle: Callable[[int], None] | None = None


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


OWN = (
    Holding(
        name="fixes",
        rows="""
            SELECT recorded_at, received_at, lat, lng, accuracy_m, speed_mps, heading_deg,
                   altitude_m, battery
              FROM devices_fix WHERE device_id = %(device_id)s ORDER BY recorded_at
        """,
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
        erase=(
            "DELETE FROM devices_transition WHERE device_id = %(device_id)s",
            "DELETE FROM devices_presence WHERE device_id = %(device_id)s",
        ),
    ),
)

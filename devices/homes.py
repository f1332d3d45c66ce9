"""Keeps the areas of devices: derived from the fixes still kept, gone with them. Their only writer.

Nothing is derived for a brand that does not want it, nor without consent to location.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
from django.conf import settings
from django.db import connection, transaction

from brands.wallclock import zone
from devices.areas import areas
from devices.fixes import FixVerdict
from geofences.cells import middle

logger = logging.getLogger(__name__)

BATCH = 200
LOOK_S = 60.0
AGAIN_AFTER = timedelta(hours=20)

# Locked, so that an erasure waits for us and then deletes what we wrote.
_STALE = """
    SELECT s.device_id, coalesce(nullif(d.timezone, ''), b.timezone)
      FROM devices_devicestate s
      JOIN devices_device d ON d.id = s.device_id AND d.consent_location
      JOIN brands_brand b ON b.id = d.brand_id AND b.derive_areas
      LEFT JOIN devices_areascan a ON a.device_id = s.device_id
     WHERE s.received_at IS NOT NULL
       AND (a.device_id IS NULL OR (a.derived_at < s.received_at AND a.derived_at < %s))
     ORDER BY s.device_id LIMIT %s
       FOR KEY SHARE OF s SKIP LOCKED
"""
# One fix for each quarter of an hour says as much about days and nights as all of them.
_FIXES = """
    SELECT DISTINCT ON (device_id, quarter) device_id,
           (extract(epoch FROM recorded_at) * 1000)::bigint, lat, lng,
           date_bin('15 minutes', recorded_at, 'epoch') AS quarter
      FROM devices_fix
     WHERE device_id = ANY(%s) AND received_at >= %s AND verdict = %s
       AND (accuracy_m IS NULL OR accuracy_m <= 1000)
     ORDER BY device_id, quarter, recorded_at
"""
_CLEAR = "DELETE FROM devices_area WHERE device_id = ANY(%s)"
_KEEP = """
    INSERT INTO devices_area (device_id, kind, cell, lat, lng, days, last_at)
    SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::float[], %s::float[],
                         %s::int[], %s::timestamptz[])
"""
_SCANNED = """
    INSERT INTO devices_areascan (device_id, derived_at)
    SELECT id, %s FROM unnest(%s::bigint[]) AS id
    ON CONFLICT (device_id) DO UPDATE SET derived_at = EXCLUDED.derived_at
"""
_FORGET = """
    DELETE FROM devices_area a
     WHERE a.last_at < %s OR NOT EXISTS (
       SELECT FROM devices_device d JOIN brands_brand b ON b.id = d.brand_id AND b.derive_areas
        WHERE d.id = a.device_id AND d.consent_location)
"""


def derive(*, now: datetime, limit: int = BATCH) -> int:
    """Derive the areas of devices that were heard of since; answers how many devices."""
    since = now - timedelta(days=settings.FIX_RETENTION_DAYS)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_STALE, (now - AGAIN_AFTER, limit))
        zones = dict(cursor.fetchall())
        if not zones:
            return 0
        ids = list(zones)
        cursor.execute(_FIXES, (ids, since, FixVerdict.USED.value))
        rows = cursor.fetchall()
        owner = np.array([row[0] for row in rows], dtype=np.int64)
        recorded_ms = np.array([row[1] for row in rows], dtype=np.int64)
        lat = np.array([row[2] for row in rows], dtype=np.float64)
        lng = np.array([row[3] for row in rows], dtype=np.float64)
        found = [
            (device_id, area)
            for device_id in ids
            for mine in [owner == device_id]
            for area in areas(recorded_ms[mine], lat[mine], lng[mine], zone(zones[device_id]))
        ]
        middles = [middle(area.cell) for _, area in found]
        cursor.execute(_CLEAR, (ids,))
        cursor.execute(
            _KEEP,
            (
                [device_id for device_id, _ in found],
                [area.kind.value for _, area in found],
                [area.cell for _, area in found],
                [place[0] for place in middles],
                [place[1] for place in middles],
                [area.days for _, area in found],
                [datetime.fromtimestamp(area.last_ms / 1000, UTC) for _, area in found],
            ),
        )
        cursor.execute(_SCANNED, (now, ids))
    return len(ids)


def forget(*, now: datetime) -> int:
    """Delete areas whose fixes are gone, and those that nobody may keep any more."""
    with connection.cursor() as cursor:
        cursor.execute(_FORGET, (now - timedelta(days=settings.FIX_RETENTION_DAYS),))
        return int(cursor.rowcount)


def run(stop: threading.Event) -> None:
    """Derive what is stale every minute, until `stop`; several loops take turns."""
    while not stop.is_set():
        forget(now=datetime.now(UTC))
        while not stop.is_set() and derive(now=datetime.now(UTC)) == BATCH:
            pass
        stop.wait(LOOK_S)
    connection.close()

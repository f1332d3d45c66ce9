"""Reads what happened since the last look, for the live page; it tells no viewer anything.

Rows are the only log: a look asks for rows after the last id seen, once per process whatever the
number of viewers. Ids are given out before rows are committed, so each look reaches back a little
and leaves out what it has seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection

BEHIND_S = 0.7  # fixes are read this late, so that those still being committed are not missed
SETTLED_S = 3.0  # ids older than this have no gaps left to fill
MOST_ROWS = 1_000  # of each kind in a look; what is beyond them is skipped, not queued

# Served by the BRIN index on received_at, then by primary keys: the cost is that of the recent
# fixes, not of all devices.
_MOVED = """
    WITH recent AS MATERIALIZED (
      SELECT device_id, count(*) AS fixes FROM devices_fix
       WHERE received_at > %s AND received_at <= %s GROUP BY device_id)
    SELECT s.brand_id, s.device_id, s.lat, s.lng, r.fixes
      FROM recent r JOIN devices_devicestate s ON s.device_id = r.device_id
     WHERE s.lat IS NOT NULL
"""
_TRANSITIONS = """
    SELECT t.id, t.brand_id, t.device_id, t.kind, t.geofence_id, g.name, t.occurred_at,
           coalesce(t.lat, s.lat), coalesce(t.lng, s.lng), t.reason
      FROM devices_transition t
      LEFT JOIN geofences_geofence g ON g.id = t.geofence_id
      LEFT JOIN devices_devicestate s ON s.device_id = t.device_id
     WHERE t.id > %s AND (%s::bigint IS NULL OR t.brand_id = %s)
"""
_OFFERS = """
    SELECT a.id, d.brand_id, d.device_id, a.outcome, d.campaign_id, d.campaign_name, a.at,
           s.lat, s.lng, d.content->>'title', d.id
      FROM notifications_attempt a
      JOIN notifications_delivery d ON d.id = a.delivery_id
      LEFT JOIN devices_devicestate s ON s.device_id = d.device_id
     WHERE a.id > %s AND (%s::bigint IS NULL OR d.brand_id = %s)
"""
Happening = dict[str, Any]
Mark = dict[str, int]  # the last id seen of each kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look found, by brand."""

    moved: dict[int, list[tuple[int, float, float]]]  # (device, lat, lng)
    fixes: Counter[int]
    happened: dict[int, list[Happening]]
    span_s: float


@dataclass(slots=True)
class SeenIds:
    """The ids handed out lately: everything at or below `floor` is settled."""

    floor: int
    at: dict[int, datetime] = field(default_factory=dict)

    def fresh(self, rows: Sequence[tuple[Any, ...]], now: datetime) -> list[tuple[Any, ...]]:
        """Those of `rows` (ids first, ascending, all above the floor) not handed out before."""
        new = [row for row in rows if row[0] not in self.at]
        self.at.update((row[0], now) for row in new)
        settled = [each for each, at in self.at.items() if at < now - timedelta(seconds=SETTLED_S)]
        if len(rows) >= MOST_ROWS:
            settled.append(rows[-1][0])
        self.floor = max([self.floor, *settled])
        self.at = {each: at for each, at in self.at.items() if each > self.floor}
        return new


def _transition(row: tuple[Any, ...]) -> Happening:
    number, _, device, kind, geofence, name, at, lat, lng, reason = row
    return {"kind": kind, "id": number, "device": device, "geofence": geofence, "place": name,
            "at": at.isoformat(), "lat": lat, "lng": lng, "reason": reason}  # fmt: skip


def _offer(row: tuple[Any, ...]) -> Happening:
    number, _, device, outcome, campaign, name, at, lat, lng, title, delivery = row
    return {"kind": "offer", "id": number, "device": device, "outcome": outcome,
            "campaign": campaign, "name": name, "at": at.isoformat(), "lat": lat, "lng": lng,
            "title": title, "delivery": delivery}  # fmt: skip


_KINDS = {"transition": (_TRANSITIONS, "t.id", _transition), "offer": (_OFFERS, "a.id", _offer)}
_LAST = {
    "transition": "SELECT coalesce(max(id), 0) FROM devices_transition",
    "offer": "SELECT coalesce(max(id), 0) FROM notifications_attempt",
}


class Tail:
    """Where a process has read up to. Every look takes up where the last one ended."""

    def __init__(self, now: datetime) -> None:
        self._until = now - timedelta(seconds=BEHIND_S)
        self._seen = {kind: SeenIds(number) for kind, number in last_ids().items()}

    def look(self, now: datetime) -> Look:
        """Everything new of all brands."""
        since, self._until = self._until, max(self._until, now - timedelta(seconds=BEHIND_S))
        moved: dict[int, list[tuple[int, float, float]]] = {}
        fixes: Counter[int] = Counter()
        happened: dict[int, list[Happening]] = {}
        with connection.cursor() as cursor:
            cursor.execute(_MOVED, (since, self._until))
            for brand_id, device_id, lat, lng, count in cursor.fetchall():
                moved.setdefault(brand_id, []).append((device_id, lat, lng))
                fixes[brand_id] += count
            for kind, (query, key, told) in _KINDS.items():
                seen = self._seen[kind]
                cursor.execute(
                    f"{query} ORDER BY {key} LIMIT {MOST_ROWS}", (seen.floor, None, None)
                )
                for row in seen.fresh(cursor.fetchall(), now):
                    happened.setdefault(row[1], []).append(told(row))
        span_s = (self._until - since).total_seconds()
        return Look(moved=moved, fixes=fixes, happened=happened, span_s=span_s)


def last_ids() -> Mark:
    """The newest row of each kind."""
    found = {}
    with connection.cursor() as cursor:
        for kind, query in _LAST.items():
            cursor.execute(query)
            found[kind] = int(cursor.fetchone()[0])
    return found


def happened_since(brand_id: int, mark: Mark, *, limit: int) -> list[Happening]:
    """The newest `limit` of each kind after a mark, oldest first: for who was away, or has come."""
    found: list[Happening] = []
    newest = last_ids()
    with connection.cursor() as cursor:
        for kind, (query, key, told) in _KINDS.items():
            # A silent brand beside a busy one must not make us read the whole table.
            after = max(mark.get(kind, 0), newest[kind] - 50_000)
            cursor.execute(
                f"{query} ORDER BY {key} DESC LIMIT %s", (after, brand_id, brand_id, limit)
            )
            found += [told(row) for row in cursor.fetchall()]
    return sorted(found, key=lambda each: (each["at"], each["id"]))


Bounds = tuple[float, float, float, float]  # west, south, east, north


def devices_within(
    brand_id: int, bounds: Bounds, *, since: datetime, limit: int
) -> list[tuple[Any, ...]]:
    """(device, lat, lng) of those heard of since then: what a page begins with."""
    west, south, east, north = bounds
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT device_id, lat, lng FROM devices_devicestate
             WHERE brand_id = %s AND received_at > %s AND lat BETWEEN %s AND %s
               AND lng BETWEEN %s AND %s
             LIMIT %s
            """,
            (brand_id, since, south, north, west, east, limit),
        )
        return list(cursor.fetchall())


def places_within(brand_id: int, bounds: Bounds, *, limit: int) -> list[dict[str, Any]]:
    """GeoJSON features of the geofences in a view, the big ones first, drawn as finely as seen."""
    west, south, east, north = bounds
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT id, name, radius_m, track_visits OR coalesce(armed_until > now(), false),
                   ST_AsGeoJSON(ST_SimplifyPreserveTopology(geometry, %s), 6)::json,
                   (SELECT count(*) FROM devices_presence p
                     WHERE p.geofence_id = g.id AND p.state IN ('inside', 'leaving'))
              FROM geofences_geofence g
             WHERE brand_id = %s AND retired_at IS NULL
               AND geometry && ST_Expand(ST_MakeEnvelope(%s, %s, %s, %s, 4326), %s)
             ORDER BY ST_Area(geometry) DESC LIMIT %s
            """,
            # A circle is stored as its middle: look a little beyond the edge of the view.
            ((east - west) / 2000, brand_id, west, south, east, north, (east - west) / 5, limit),
        )
        return [
            {
                "type": "Feature",
                "id": number,
                "geometry": geometry,
                "properties": {
                    "name": name,
                    "radius_m": radius_m,
                    "armed": armed,
                    "inside": inside,
                },
            }
            for number, name, radius_m, armed, geometry, inside in cursor.fetchall()
        ]


def let_go() -> None:
    """Close the connection of the thread that calls."""
    connection.close()


def minutes_ago(minutes: float) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)

"""Vector tiles of geofences for maps: shapes where they can be seen, counts where not.

PostGIS makes them, so a map of 300,000 geofences costs no more than what is in view. They are for
the eye: a circle is drawn in the plane of the map.
"""

from __future__ import annotations

from math import atan, degrees, pi, sinh
from typing import Any

from django.contrib.gis.geos import Polygon
from django.db import connection
from django.utils.timezone import now

from geofences.models import GeofenceQuerySet

MAX_ZOOM = 16  # the map enlarges tiles of this zoom beyond it
WORLD_M = 40_075_016.68557849  # circumference of the web mercator plane
GRID = 8  # squares of a tile's side; what is too small to see is counted by square
EXACT_ZOOM = 5  # below it the margin of a tile is wider than any circle
MOST_SHAPES = 4_000  # in one tile; the rest of a crowded tile is counted

# %(in_view)s is a query of ours, never text of a user.
_TILE = """
WITH box AS (
  SELECT ST_TileEnvelope(%(z)s, %(x)s, %(y)s) AS plane, %(pixel_m)s::float8 AS pixel_m
), placed AS (
  SELECT g.id, g.name, g.radius_m, g.geometry,
         coalesce(g.track_visits OR g.armed_until > %(now)s, false)
           AND coalesce(g.starts_at <= %(now)s, true)
           AND coalesce(g.ends_at > %(now)s, true) AS armed,
         (ST_XMin(g.geometry) + ST_XMax(g.geometry)) / 2 AS lng,
         greatest(-85, least(85, (ST_YMin(g.geometry) + ST_YMax(g.geometry)) / 2)) AS lat,
         CASE WHEN g.radius_m IS NULL
              THEN greatest(ST_XMax(g.geometry) - ST_XMin(g.geometry),
                            ST_YMax(g.geometry) - ST_YMin(g.geometry)) * 111320
              ELSE 2 * g.radius_m END AS size_m
    FROM geofences_geofence g
   WHERE g.id IN ({in_view})
), sized AS (
  SELECT p.*, size_m / cos(radians(lat)) / box.pixel_m AS pixels FROM placed p, box
), ranked AS (
  SELECT *, pixels >= 6 AND row_number() OVER (ORDER BY pixels DESC, id) <= %(most)s AS seen
    FROM sized
), shapes AS (
  SELECT id, name, armed, radius_m IS NOT NULL AS circle,
         ST_AsMVTGeom(
           CASE WHEN radius_m IS NULL
                THEN ST_Transform(
                  ST_ClipByBox2D(geometry, ST_MakeEnvelope(-180, -85, 180, 85, 4326)), 3857)
                ELSE ST_Buffer(ST_Transform(ST_SetSRID(ST_MakePoint(lng, lat), 4326), 3857),
                               radius_m / cos(radians(lat)), 16) END,
           box.plane, 4096, 128, true) AS geom
    FROM ranked, box WHERE seen
), dots AS (
  SELECT count(*) AS count, bool_or(armed) AS armed,
         min(id) AS id, CASE WHEN count(*) = 1 THEN min(name) END AS name,
         ST_AsMVTGeom(
           ST_Transform(ST_SetSRID(ST_MakePoint(avg(lng), avg(lat)), 4326), 3857),
           (SELECT plane FROM box), 4096, 0, false) AS geom
    FROM (
      SELECT r.*,
             floor((lng + 180) / 360 * %(squares)s) AS column_,
             floor((1 - ln(tan(radians(lat)) + 1 / cos(radians(lat))) / pi()) / 2 * %(squares)s)
               AS row_
        FROM ranked r WHERE NOT seen
    ) counted
   WHERE column_ BETWEEN %(x)s * %(grid)s AND (%(x)s + 1) * %(grid)s - 1
     AND row_ BETWEEN %(y)s * %(grid)s AND (%(y)s + 1) * %(grid)s - 1
   GROUP BY column_, row_
)
SELECT (SELECT coalesce(ST_AsMVT(s, 'shapes', 4096, 'geom', 'id'), '')
          FROM shapes s WHERE geom IS NOT NULL)
    || (SELECT coalesce(ST_AsMVT(d, 'dots', 4096, 'geom', 'id'), '')
          FROM dots d WHERE geom IS NOT NULL)
"""


def tile(geofences: GeofenceQuerySet, *, z: int, x: int, y: int) -> bytes:
    """The tile of those geofences, as MVT; raises ValueError where there is no such tile."""
    side = 2**z
    if not (0 <= z <= MAX_ZOOM and 0 <= x < side and 0 <= y < side):
        raise ValueError(f"no tile {z}/{x}/{y}")
    west, south, east, north = _degrees(z, x, y)
    if z < EXACT_ZOOM:
        box = Polygon.from_bbox((west, south, east, north))
        rows = geofences.filter(geometry__bboverlaps=box)
    else:
        rows = geofences.overlapping(west=west, south=south, east=east, north=north)
    in_view, parameters = rows.order_by().values("id").query.sql_with_params()
    named: dict[str, Any] = {
        "z": z,
        "x": x,
        "y": y,
        "pixel_m": WORLD_M / side / 512,
        "now": now(),
        "most": MOST_SHAPES,
        "grid": GRID,
        "squares": side * GRID,
    }
    for position, value in enumerate(parameters):
        in_view = in_view.replace("%s", f"%(in_view_{position})s", 1)
        named[f"in_view_{position}"] = value
    with connection.cursor() as cursor:
        cursor.execute(_TILE.format(in_view=in_view), named)
        (found,) = cursor.fetchone()
    return bytes(found)


def _degrees(z: int, x: int, y: int) -> tuple[float, float, float, float]:
    """West, south, east and north of a tile and an eighth more around it."""
    side = 2**z
    margin = 0.125

    def lat(row: float) -> float:
        return degrees(atan(sinh(pi * (1 - 2 * row / side))))

    return (
        max(-180.0, (x - margin) / side * 360 - 180),
        lat(y + 1 + margin) if y + 1 < side else -90.0,
        min(180.0, (x + 1 + margin) / side * 360 - 180),
        lat(y - margin) if y > 0 else 90.0,
    )

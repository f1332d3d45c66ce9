"""Shapes, points that are hard for them, and the slow obvious answers. No test in here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray

from geofences import blocks, cells, outlines
from geofences.geometry import Circle, Shape, great_circle_m
from geofences.matching import Columns, Index, Packed, Pieces

Floats = NDArray[np.float64]


def columns_of(
    shapes: Sequence[Shape],
    ids: Sequence[int] | None = None,
    brands: Sequence[int] | None = None,
) -> Columns:
    """What the rows of these shapes would be; ids from 1, all of brand 1 unless given."""
    covers = cells.covers(shapes)
    count = len(shapes)
    geofence_id = np.arange(1, count + 1) if ids is None else np.array(ids, np.int64)
    return Columns(
        geofence_id=geofence_id,
        brand_id=np.ones(count, np.int64) if brands is None else np.array(brands, np.int64),
        version=np.ones(count, np.int64),
        resolution=np.array([cover.resolution for cover in covers], np.uint8),
        cover=blocks.of_covers(covers),
        shape=Packed.of(Pieces.of([outlines.pack(shape) for shape in shapes])),
        settings={"exit_buffer_m": geofence_id.astype(np.float32)},
    )


def index_of(*shapes: Shape) -> Index:
    return Index.build([columns_of(shapes)])


def holds(shape: Shape, lat: Any, lng: Any) -> NDArray[np.bool_]:
    """The exact answer, slowly."""
    lat, lng = np.atleast_1d(lat).astype(float), np.atleast_1d(lng).astype(float)
    if isinstance(shape, Circle):
        away_m = great_circle_m(lat, lng, np.array(shape.lat), np.array(shape.lng))
        return np.asarray(away_m <= shape.radius_m)
    inside = shapely.intersects_xy(shape, lng, lat)
    other = np.where(np.abs(lng) == 180, -lng, lng)  # the antimeridian is one line
    return np.asarray(inside | shapely.intersects_xy(shape, other, lat))


def found(index: Index, lat: Any, lng: Any, brand: int | None = 1) -> set[tuple[int, int]]:
    """Pairs of a fix and a geofence id."""
    lat, lng = np.atleast_1d(lat).astype(float), np.atleast_1d(lng).astype(float)
    seen = index.match(lat=lat, lng=lng, brand=brand)
    ids = index.geofence_id[seen.ordinal]
    return set(zip(seen.fix.tolist(), ids.tolist(), strict=True))


def expected(shapes: Sequence[Shape], lat: Floats, lng: Floats) -> set[tuple[int, int]]:
    return {
        (int(fix), number)
        for number, shape in enumerate(shapes, start=1)
        for fix in np.flatnonzero(holds(shape, lat, lng))
    }


def hard_points(shape: Shape, rng: np.random.Generator, count: int = 60) -> tuple[Floats, Floats]:
    """Around, on and a hair off the edge: lat, lng."""
    if isinstance(shape, Circle):
        return _around_circle(shape, rng, count)
    west, south, east, north = shape.bounds
    pad = 0.1 * max(east - west, north - south)
    x = [rng.uniform(west - pad, east + pad, count)]
    y = [rng.uniform(south - pad, north + pad, count)]
    corners = shapely.get_coordinates(shape)
    start = rng.integers(0, len(corners) - 1, count)
    share = rng.uniform(0, 1, count) * rng.integers(0, 2, count)  # half of them on a corner
    on_edge = corners[start] + share[:, None] * (corners[start + 1] - corners[start])
    nudge = rng.normal(size=(count, 2)) * 10.0 ** rng.integers(-16, -2, (count, 1))
    nudge *= rng.integers(0, 2, (count, 1))  # half of them as close as doubles allow
    x.append(on_edge[:, 0] + nudge[:, 0])
    y.append(on_edge[:, 1] + nudge[:, 1])
    return np.clip(np.concatenate(y), -90, 90), np.clip(np.concatenate(x), -180, 180)


def _around_circle(shape: Circle, rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    bearing = rng.uniform(0, 2 * np.pi, 2 * count)
    near_edge = 1 + rng.normal(size=count) * 10.0 ** rng.integers(-12, -1, count)
    away = np.concatenate((rng.uniform(0, 1.3, count), near_edge)) * shape.radius_m / 6371008.8
    phi = np.radians(shape.lat)
    lat = np.arcsin(np.sin(phi) * np.cos(away) + np.cos(phi) * np.sin(away) * np.cos(bearing))
    east = np.arctan2(
        np.sin(bearing) * np.sin(away) * np.cos(phi), np.cos(away) - np.sin(phi) * np.sin(lat)
    )
    lng = (np.radians(shape.lng) + east + np.pi) % (2 * np.pi) - np.pi
    return np.degrees(lat), np.degrees(lng)


def blob(rng: np.random.Generator, *, lat: float, lng: float, radius_m: float, corners: int) -> Any:
    """A crooked star without holes; for three corners and more it never crosses itself."""
    angle = (np.arange(corners) + rng.uniform(0, 0.8, corners)) * (2 * np.pi / corners)
    away_deg = radius_m * rng.uniform(0.5, 1.0, corners) / 111_195
    y = lat + away_deg * np.sin(angle)
    x = lng + away_deg * np.cos(angle) / np.cos(np.radians(lat))
    return shapely.Polygon(np.column_stack((x, y)))


def features(path: Path) -> list[shapely.Geometry]:
    """The areas of a GeoJSON file, as they stand."""
    collection = json.loads(path.read_text())
    shapes = [shapely.geometry.shape(each["geometry"]) for each in collection["features"]]
    return [shape for shape in shapes if shape.geom_type in {"Polygon", "MultiPolygon"}]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]

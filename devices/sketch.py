"""A small map: places, a trail and where things happened. Pure; as SVG it needs no tiles.

Degrees become metres on a plane around the middle of what is shown, which is true to a percent over
the few kilometres that a visit spans.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from geofences.geometry import EARTH_RADIUS_M

METRES_PER_DEGREE = math.radians(EARTH_RADIUS_M)
WIDTH, HEIGHT, MARGIN = 720, 340, 28
SMALLEST_SPAN_M = 60.0  # a single point still shows the street around it

Ring = Sequence[tuple[float, float]]  # (lng, lat)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A geofence: polygons of rings, or a circle around the only point of its only ring."""

    name: str
    polygons: Sequence[Sequence[Ring]]
    radius_m: float | None = None
    faint: bool = False

    @property
    def rings(self) -> list[Ring]:
        return [ring for polygon in self.polygons for ring in polygon]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Somewhere a device was: a dot of the trail, or one that stands out."""

    lat: float
    lng: float
    label: str
    accuracy_m: float | None = None
    kind: str = "trail"  # trail, entered, dwelled, exited, last


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """From degrees to the picture's pixels."""

    lat: float
    lng: float
    pixels_per_m: float

    def point(self, lng: float, lat: float) -> tuple[float, float]:
        x_m, y_m = _offset_m(lng, lat, self.lng, self.lat)
        return WIDTH / 2 + x_m * self.pixels_per_m, HEIGHT / 2 - y_m * self.pixels_per_m


def sketch(places: Sequence[Place], marks: Sequence[Mark]) -> str:
    """Return the SVG element; an empty text where there is nothing to show."""
    view = _fit(places, marks)
    if view is None:
        return ""
    trail = [view.point(mark.lng, mark.lat) for mark in marks if mark.kind == "trail"]
    parts = [
        *(part for place in places for part in _draw_place(place, view)),
        *([f'<polyline class="trail" points="{_points(trail)}"/>'] if len(trail) > 1 else []),
        *(part for mark in marks for part in _draw_mark(mark, view)),
        *_draw_scale(view),
    ]
    return (
        f'<svg class="nc-sketch" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Map">'
        f"{''.join(parts)}</svg>"
    )


def features(places: Sequence[Place], marks: Sequence[Mark]) -> dict[str, Any]:
    """Return the same as GeoJSON, for a browser that can draw a real map."""
    return {
        "type": "FeatureCollection",
        "features": [
            *(_feature_of_place(place) for place in places),
            *(
                {
                    "type": "Feature",
                    "geometry": {"type": "Point", "coordinates": [mark.lng, mark.lat]},
                    "properties": {
                        "kind": mark.kind,
                        "label": mark.label,
                        "accuracy_m": mark.accuracy_m,
                    },
                }
                for mark in marks
            ),
        ],
    }


def _feature_of_place(place: Place) -> dict[str, Any]:
    geometry: dict[str, Any]
    if place.radius_m is not None:
        geometry = {"type": "Point", "coordinates": list(place.rings[0][0])}
    else:
        geometry = {
            "type": "MultiPolygon",
            "coordinates": [
                [[list(point) for point in ring] for ring in polygon] for polygon in place.polygons
            ],
        }
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {"kind": "place", "label": place.name, "radius_m": place.radius_m},
    }


def _offset_m(lng: float, lat: float, from_lng: float, from_lat: float) -> tuple[float, float]:
    """East and north in metres; the short way around across the antimeridian."""
    east = (lng - from_lng + 540) % 360 - 180
    return (
        east * METRES_PER_DEGREE * math.cos(math.radians(from_lat)),
        (lat - from_lat) * METRES_PER_DEGREE,
    )


def _fit(places: Sequence[Place], marks: Sequence[Mark]) -> _View | None:
    """Show every mark and place; a place that dwarfs the marks shows only its part near them."""
    anchor = next(
        ((mark.lng, mark.lat) for mark in marks),
        next((ring[0] for place in places for ring in place.rings if ring), None),
    )
    if anchor is None:
        return None
    near: list[tuple[float, float]] = []
    for mark in marks:
        x, y = _offset_m(mark.lng, mark.lat, *anchor)
        around_m = 0.0 if mark.kind == "trail" else min(mark.accuracy_m or 0.0, 500.0)
        near += [(x - around_m, y - around_m), (x + around_m, y + around_m)]
    far: list[tuple[float, float]] = []
    for place in places:
        reach_m = place.radius_m or 0.0
        for ring in place.rings:
            for lng, lat in ring:
                x, y = _offset_m(lng, lat, *anchor)
                far += [(x - reach_m, y - reach_m), (x + reach_m, y + reach_m)]
    reach = 3 * max([SMALLEST_SPAN_M * 4, *(max(abs(x), abs(y)) for x, y in near)])
    shown = near + [
        (max(-reach, min(reach, x)), max(-reach, min(reach, y))) if near else (x, y) for x, y in far
    ]
    west, east = min(x for x, _ in shown), max(x for x, _ in shown)
    south, north = min(y for _, y in shown), max(y for _, y in shown)
    span_x, span_y = max(east - west, SMALLEST_SPAN_M), max(north - south, SMALLEST_SPAN_M)
    lat = anchor[1] + (south + north) / 2 / METRES_PER_DEGREE
    narrowing = max(0.01, math.cos(math.radians(anchor[1])))
    return _View(
        lat=lat,
        lng=anchor[0] + (west + east) / 2 / METRES_PER_DEGREE / narrowing,
        pixels_per_m=min((WIDTH - 2 * MARGIN) / span_x, (HEIGHT - 2 * MARGIN) / span_y),
    )


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _draw_place(place: Place, view: _View) -> Iterable[str]:
    title = f"<title>{escape(place.name)}</title>"
    style = "place faint" if place.faint else "place"
    if place.radius_m is not None:
        x, y = view.point(*place.rings[0][0])
        radius = place.radius_m * view.pixels_per_m
        yield f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{title}</circle>'
        return
    path = " ".join(
        f"M{_points(view.point(lng, lat) for lng, lat in ring)}Z".replace(" ", "L")
        for ring in place.rings
    )
    yield f'<path class="{style}" fill-rule="evenodd" d="{path}">{title}</path>'


def _draw_mark(mark: Mark, view: _View) -> Iterable[str]:
    x, y = view.point(mark.lng, mark.lat)
    title = f"<title>{escape(mark.label)}</title>"
    if mark.kind != "trail" and mark.accuracy_m:
        radius = mark.accuracy_m * view.pixels_per_m
        yield f'<circle class="accuracy" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
    radius = 3 if mark.kind == "trail" else 7
    yield f'<circle class="{mark.kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{title}</circle>'


def _draw_scale(view: _View) -> Iterable[str]:
    """A bar of a round length, about a fifth of the picture."""
    wanted_m = WIDTH / 5 / view.pixels_per_m
    size = 10.0 ** math.floor(math.log10(wanted_m))
    length_m = max(step * size for step in (1, 2, 5) if step * size <= wanted_m)
    shown = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    x, y = MARGIN / 2, HEIGHT - MARGIN / 2
    length = length_m * view.pixels_per_m
    yield f'<path class="scale" d="M{x} {y - 5}V{y}H{x + length:.1f}V{y - 5}"/>'
    yield f'<text x="{x + 5}" y="{y - 5}">{shown}</text>'

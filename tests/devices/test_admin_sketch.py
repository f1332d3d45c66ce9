"""The small map: everything in the picture, to scale."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.sketch import HEIGHT, WIDTH, Mark, Place, sketch
from geofences.geometry import EARTH_RADIUS_M
from tests.places import ACROSS_THE_STREET, AT_THE_DOOR, SHOP, SHOP_RADIUS_M

CIRCLE = re.compile(r'<circle class="(\w+)[^"]*" cx="([-\d.]+)" cy="([-\d.]+)" r="([\d.]+)"')
SHOP_PLACE = Place(name="Shop", polygons=[[[(SHOP.lng, SHOP.lat)]]], radius_m=SHOP_RADIUS_M)


def circles(svg: str) -> dict[str, tuple[float, float, float]]:
    return {kind: (float(x), float(y), float(r)) for kind, x, y, r in CIRCLE.findall(svg)}


def mark(place: object, kind: str) -> Mark:
    return Mark(lat=place.lat, lng=place.lng, label=kind, kind=kind)  # type: ignore[attr-defined]


def test_it_draws_nothing_where_there_is_nothing() -> None:
    assert sketch([], []) == ""


def test_it_draws_distances_to_scale() -> None:
    svg = sketch([SHOP_PLACE], [mark(AT_THE_DOOR, "entered"), mark(ACROSS_THE_STREET, "exited")])
    found = circles(svg)
    pixels_per_m = found["place"][2] / SHOP_RADIUS_M
    drawn = np.hypot(*(np.subtract(found["entered"][:2], found["exited"][:2])))
    metres_per_degree = 2 * np.pi * EARTH_RADIUS_M / 360
    north, east = np.subtract(ACROSS_THE_STREET, AT_THE_DOOR) * metres_per_degree
    true = np.hypot(north, east * np.cos(np.radians(SHOP.lat)))
    assert drawn == pytest.approx(true * pixels_per_m, rel=0.01)


def test_it_keeps_north_up_and_east_right() -> None:
    north = Mark(lat=SHOP.lat + 0.001, lng=SHOP.lng, label="", kind="entered")
    east = Mark(lat=SHOP.lat, lng=SHOP.lng + 0.001, label="", kind="exited")
    found = circles(sketch([SHOP_PLACE], [north, east]))
    assert found["entered"][1] < found["place"][1]
    assert found["exited"][0] > found["place"][0]


def test_it_escapes_names() -> None:
    svg = sketch([Place(name="<script>", polygons=[[[(0.0, 0.0)]]], radius_m=5)], [])
    assert "<script>" not in svg


def test_it_shows_the_marks_inside_a_country() -> None:
    country = Place(name="", polygons=[[[(0.0, 40.0), (20.0, 40.0), (20.0, 60.0), (0.0, 60.0)]]])
    here = Mark(lat=50, lng=10, label="", kind="entered")
    there = Mark(lat=50.002, lng=10, label="", kind="exited")
    found = circles(sketch([country], [here, there]))
    assert abs(found["entered"][1] - found["exited"][1]) > 20


@given(
    st.lists(
        st.tuples(
            st.floats(-85, 85),
            st.floats(-180, 180),
            st.sampled_from(["trail", "entered", "dwelled", "exited", "last"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_it_keeps_every_mark_of_a_neighbourhood_in_the_picture(
    spots: list[tuple[float, float, str]],
) -> None:
    lat, lng, _ = spots[0]
    marks = [
        Mark(lat=lat + number * 0.001, lng=lng + number * 0.001, label="", kind=kind)
        for number, (_, _, kind) in enumerate(spots)
    ]
    found = circles(sketch([], marks))
    assert found.keys() == {kind for _, _, kind in spots}
    for kind, (x, y, _) in found.items():
        assert 0 <= x <= WIDTH, kind
        assert 0 <= y <= HEIGHT, kind

"""A geometry becomes one that can be meant, or says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
import shapely.geometry
from hypothesis import given
from hypothesis import strategies as st

from geofences.geometry import (
    GeometryError,
    GeometryReason,
    circle,
    great_circle_m,
    normalise,
    wrapped,
)
from tests.geofences.shapes import lines

SQUARE = shapely.box(24.93, 60.16, 24.95, 60.17)


def refused(geometry: shapely.Geometry) -> GeometryReason:
    with pytest.raises(GeometryError) as caught:
        normalise(geometry)
    return caught.value.reason


def test_it_keeps_every_bit_of_what_is_in_its_place() -> None:
    given = shapely.Polygon([(0.1, 0.2), (0.3, 0.2), (0.3, 0.7), (0.1, 0.2)])

    assert shapely.equals_identical(normalise(given), given)


def test_it_drops_heights() -> None:
    assert not normalise(shapely.force_3d(SQUARE, 12.0)).has_z


def test_it_turns_outer_rings_counter_clockwise() -> None:
    clockwise = shapely.Polygon(list(SQUARE.exterior.coords)[::-1])

    assert normalise(clockwise).exterior.is_ccw


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (shapely.Polygon(), GeometryReason.EMPTY),
        (shapely.Point(1, 2), GeometryReason.NOT_AN_AREA),
        (shapely.LineString([(0, 0), (1, 1)]), GeometryReason.NOT_AN_AREA),
        (shapely.box(0, 0, 1, 90.5), GeometryReason.OUT_OF_BOUNDS),
        (shapely.box(0, 0, 541, 1), GeometryReason.OUT_OF_BOUNDS),
        (shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), GeometryReason.SELF_CROSSING),
    ],
)
def test_it_says_why_a_geometry_cannot_be_meant(
    geometry: shapely.Geometry, reason: GeometryReason
) -> None:
    assert refused(geometry) is reason


def test_it_refuses_what_is_no_number() -> None:
    hole = shapely.from_wkt("POLYGON ((0 0, 1 0, 1 inf, 0 0))")

    assert refused(hole) is GeometryReason.NOT_FINITE


def test_it_suspects_swapped_axes() -> None:
    with pytest.raises(GeometryError, match="swapped"):
        normalise(shapely.box(10, 100, 11, 101))


def test_it_refuses_a_bow_tie_even_with_repair() -> None:
    bow_tie = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])

    with pytest.raises(GeometryError):
        normalise(bow_tie, repair=True)


def test_it_mends_a_spike() -> None:
    spiked = shapely.Polygon([(0, 0), (1, 0), (1, 1), (2, 2), (1, 1), (0, 1)])

    assert normalise(spiked, repair=True).equals(shapely.box(0, 0, 1, 1))


def test_it_mends_parts_that_overlap_a_little() -> None:
    parts = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(0.999, 0, 2, 1)])

    assert normalise(parts, repair=True).equals(shapely.box(0, 0, 2, 1))


@pytest.mark.parametrize("reversed_", [False, True])
def test_it_cuts_at_the_antimeridian(reversed_: bool) -> None:
    corners = [(179.5, 1), (-179.5, 1), (-179.5, 2), (179.5, 2)]
    crossing = shapely.Polygon(corners[::-1] if reversed_ else corners)

    parts = shapely.union_all([shapely.box(179.5, 1, 180, 2), shapely.box(-180, 1, -179.5, 2)])
    assert normalise(crossing).equals(parts)


def test_it_wraps_longitudes_beyond_180() -> None:
    assert normalise(shapely.box(190, 1, 191, 2)).equals(shapely.box(-170, 1, -169, 2))


def test_it_cuts_a_hole_at_the_antimeridian() -> None:
    ring = [(178, 0), (-178, 0), (-178, 4), (178, 4)]
    hole = [(179, 1), (179, 2), (-179, 2), (-179, 1)]

    shape = normalise(shapely.Polygon(ring, [hole]))

    assert shape.area == pytest.approx(4 * 4 - 2)
    assert not shapely.intersects_xy(shape, 179.5, 1.5)


@pytest.mark.parametrize(("direction", "inside", "outside"), [(1, 85, -85), (-1, -85, 85)])
def test_it_takes_the_pole_on_the_left_of_a_ring_around_the_earth(
    direction: int, inside: float, outside: float
) -> None:
    around = [(-120, 60), (0, 60), (120, 60)][::direction]

    shape = normalise(shapely.Polygon(around))

    assert shapely.intersects_xy(shape, [-170, 10, 180], inside).all()
    assert not shapely.intersects_xy(shape, [-170, 10, 180], outside).any()


def test_it_leaves_a_band_around_the_earth() -> None:
    band = shapely.box(-180, 40, 180, 50)

    assert normalise(band).equals(band)


# Swaths of satellites: rings around the earth that cross themselves, or whose pole the suite
# guesses. As a geofence such a ring holds what its direction says (see `normalise`).
GUESSED = {"both-poles", "issues-124", "issues-164", "overlap"}
NOT_AREAS = {"line", "multi-line"}


@pytest.mark.shared_data
def test_it_agrees_with_the_antimeridian_suite(shared_data: Path) -> None:
    compared = 0
    for case in lines(shared_data / "suites" / "antimeridian_fix.jsonl"):
        if "output_flat" not in case or case["name"] in GUESSED | NOT_AREAS:
            continue
        given = shapely.geometry.shape(case["input"])
        wanted = shapely.make_valid(shapely.geometry.shape(case["output_flat"]))
        difference = shapely.symmetric_difference(normalise(given, repair=True), wanted)
        assert difference.area <= 0.001 * wanted.area, case["name"]
        compared += 1
    assert compared >= 20


def test_it_checks_a_circle() -> None:
    checked = circle(lat=60.0, lng=199.0, radius_m=50)

    assert (checked.lat, checked.lng, checked.radius_m) == (60.0, -161.0, 50.0)


@pytest.mark.parametrize(
    ("lat", "lng", "radius_m", "reason"),
    [
        (91, 0, 10, GeometryReason.OUT_OF_BOUNDS),
        (0, 541, 10, GeometryReason.OUT_OF_BOUNDS),
        (0, np.inf, 10, GeometryReason.NOT_FINITE),
        (0, 0, 0, GeometryReason.BAD_RADIUS),
        (0, 0, -1, GeometryReason.BAD_RADIUS),
        (0, 0, 100_001, GeometryReason.BAD_RADIUS),
        (0, 0, np.nan, GeometryReason.NOT_FINITE),
    ],
)
def test_it_refuses_a_circle(
    lat: float, lng: float, radius_m: float, reason: GeometryReason
) -> None:
    with pytest.raises(GeometryError) as caught:
        circle(lat=lat, lng=lng, radius_m=radius_m)
    assert caught.value.reason is reason


@given(st.floats(-1000, 1000))
def test_it_wraps_any_longitude(lng: float) -> None:
    turned = float(wrapped(np.array(lng)))

    assert -180 <= turned <= 180
    assert np.cos(np.radians(turned - lng)) == pytest.approx(1)


def test_it_measures_along_the_great_circle() -> None:
    # A quarter of the mean meridian: pi / 2 * 6,371,008.8 m.
    quarter = great_circle_m(np.zeros(1), np.zeros(1), np.array([90.0]), np.zeros(1))

    assert quarter[0] == pytest.approx(10_007_557.2, abs=0.1)

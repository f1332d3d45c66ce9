"""A cover leaves nothing out and calls nothing interior that is not."""

from __future__ import annotations

from pathlib import Path

import h3.api.basic_int as h3
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geofences import cells, lattice
from geofences.geometry import Shape, circle, normalise
from geofences.icosahedron import Floats
from geofences.reach import Reach, children
from tests.geofences.shapes import blob, features, hard_points, holds


def check(shape: Shape, lat: Floats, lng: Floats) -> cells.Cover:
    """The cover's promise, for cells of its own resolution and for ancestors of finer ones."""
    cover = cells.cover(shape)
    inside = holds(shape, lat, lng)
    own = np.array(
        [h3.latlng_to_cell(y, x, cover.resolution) for y, x in zip(lat, lng, strict=True)]
    )
    finest = [h3.latlng_to_cell(y, x, 15) for y, x in zip(lat, lng, strict=True)]
    ancestors = np.array([h3.cell_to_parent(cell, cover.resolution) for cell in finest])
    for assigned in (own.astype(np.uint64), ancestors.astype(np.uint64)):
        interior = np.isin(assigned, cover.interior)
        boundary = np.isin(assigned, cover.boundary)
        assert inside[interior].all()
        assert not inside[~interior & ~boundary].any()
    assert not np.isin(cover.interior, cover.boundary).any()
    assert (np.diff(cover.interior) > 0).all()
    assert (np.diff(cover.boundary) > 0).all()
    return cover


def size(cover: cells.Cover) -> int:
    return len(cover.interior) + len(cover.boundary)


def test_it_covers_a_shop_with_a_handful_of_cells() -> None:
    rng = np.random.default_rng(1)
    shop = circle(lat=60.17, lng=24.94, radius_m=100)

    cover = check(shop, *hard_points(shop, rng, 500))

    assert 20 <= size(cover) <= 300
    assert len(cover.interior) > 5


def test_it_keeps_holes_out() -> None:
    rng = np.random.default_rng(2)
    ring = shapely.box(2.3, 48.8, 2.4, 48.9).difference(shapely.box(2.32, 48.82, 2.38, 48.88))

    check(normalise(ring), *hard_points(ring, rng, 500))


def test_it_covers_what_is_smaller_than_any_cell() -> None:
    booth = shapely.box(24.94, 60.17, 24.940001, 60.170001)  # some 10 cm

    cover = check(booth, np.array([60.1700005]), np.array([24.9400005]))

    assert cover.resolution == cells.FINEST
    assert 1 <= size(cover) <= 4


def test_it_covers_a_polygon_that_h3_alone_leaves_empty() -> None:
    # The shape of uber/h3#456: too thin to hold the centre of a cell.
    thin = shapely.box(-122.4100, 37.7700, -122.4099, 37.8000)
    assert not h3.polygon_to_cells(h3.LatLngPoly([(y, x) for x, y in thin.exterior.coords]), 9)

    cover = check(thin, *hard_points(thin, np.random.default_rng(3), 500))

    assert size(cover) > 20


@pytest.mark.parametrize("lat", [-90, -89.999, -70, 89.9, 90])
@pytest.mark.parametrize("radius_m", [30, 5_000, 100_000])
def test_it_covers_circles_at_the_poles(lat: float, radius_m: float) -> None:
    shape = circle(lat=lat, lng=17, radius_m=radius_m)

    cover = check(shape, *hard_points(shape, np.random.default_rng(4), 300))

    assert size(cover) <= 400


@pytest.mark.parametrize("lng", [-180, -179.9999, 179.99, 180])
def test_it_covers_circles_across_the_antimeridian(lng: float) -> None:
    shape = circle(lat=-17.8, lng=lng, radius_m=3_000)

    check(shape, *hard_points(shape, np.random.default_rng(5), 300))


@pytest.mark.parametrize(
    "shape",
    [
        shapely.box(-180, -90, 180, 90),
        shapely.box(-180, 60, 180, 90),
        shapely.box(-180, -90, 180, -84.7),
        shapely.box(-180, 10, 180, 10.5),
        normalise(shapely.box(170, -20, 200, 20)),
        normalise(shapely.box(179.99, 65, 180.01, 65.01)),
        shapely.box(-180, 1, -179.99, 1.01),
        shapely.box(30, 89.99, 31, 90),
    ],
)
def test_it_covers_what_touches_the_ends_of_the_map(shape: Shape) -> None:
    rng = np.random.default_rng(6)
    lat, lng = hard_points(shape, rng, 400)
    lat = np.concatenate((lat, [90, 90, -90, 60, 10.25]))
    lng = np.concatenate((lng, [0, 180, 17, 180, -180]))

    assert size(check(shape, lat, lng)) < 1000


def test_it_covers_around_every_pentagon() -> None:
    # Where five faces of the icosahedron meet, the lattice has its kinks.
    rng = np.random.default_rng(7)
    for pentagon in h3.get_pentagons(0):
        lat, lng = h3.cell_to_latlng(pentagon)
        for radius_m in (40, 2_000, 90_000):
            shape = circle(lat=lat + 0.001, lng=lng, radius_m=radius_m)
            check(shape, *hard_points(shape, rng, 60))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    lat=st.floats(-85, 85),
    lng=st.floats(-179, 179),
    radius_m=st.sampled_from([3, 50, 800, 20_000, 400_000]),
    corners=st.integers(3, 60),
)
def test_it_covers_any_polygon(
    seed: int, lat: float, lng: float, radius_m: float, corners: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = blob(rng, lat=lat, lng=lng, radius_m=radius_m, corners=corners)
    shape = shapely.intersection(shapely.make_valid(shape), shapely.box(-180, -90, 180, 90))
    if not isinstance(shape, shapely.Polygon | shapely.MultiPolygon) or shape.area == 0:
        return

    check(normalise(shape), *hard_points(shape, rng, 60))


@pytest.mark.shared_data
def test_it_covers_ice_shelves_and_countries(shared_data: Path) -> None:
    rng = np.random.default_rng(8)
    folder = shared_data / "natural_earth"
    for name in ("ne_10m_antarctic_ice_shelves_polys", "ne_110m_countries"):
        for drawn in features(folder / f"{name}.geojson"):
            shape = normalise(drawn, repair=True)
            assert size(check(shape, *hard_points(shape, rng, 20))) < 3_000


def test_it_covers_many_as_it_covers_each() -> None:
    rng = np.random.default_rng(9)
    shapes = [
        blob(rng, lat=48.8, lng=2.3, radius_m=radius_m, corners=20) for radius_m in (30, 500, 9_000)
    ]
    shapes.append(circle(lat=48.8, lng=2.3, radius_m=300))

    for one, many in zip(map(cells.cover, shapes), cells.covers(shapes), strict=True):
        assert one.resolution == many.resolution
        assert (one.interior == many.interior).all()
        assert (one.boundary == many.boundary).all()


def everywhere(count: int, seed: int) -> tuple[Floats, Floats]:
    x, y, z = np.random.default_rng(seed).normal(size=(3, count))
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def around_pentagons(count: int, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    centers = np.array([h3.cell_to_latlng(cell) for cell in h3.get_pentagons(0)])
    chosen = centers[rng.integers(0, 12, count)]
    off = rng.normal(size=(count, 2)) * 10.0 ** rng.integers(-4, 1, (count, 1))
    return np.clip(chosen[:, 0] + off[:, 0], -90, 90), np.clip(chosen[:, 1] + off[:, 1], -180, 180)


@pytest.mark.parametrize("resolution", [0, 1, 2, 5, 8, 9, 10, 12, 15])
@pytest.mark.parametrize("points", [everywhere, around_pentagons])
def test_it_names_cells_as_h3_does(points: object, resolution: int) -> None:
    assert callable(points)
    lat, lng = points(30_000, seed=resolution)

    ours = lattice.cells_at(lat, lng, resolution)

    theirs = [h3.latlng_to_cell(y, x, resolution) for y, x in zip(lat, lng, strict=True)]
    assert (ours == np.array(theirs, np.uint64)).all()


@pytest.mark.parametrize("lat", [-90, -45, 0, 90])
@pytest.mark.parametrize("lng", [-180, 0, 179.999999, 180])
def test_it_names_cells_at_the_ends_of_the_map(lat: float, lng: float) -> None:
    ours = lattice.cells_at(np.array([lat]), np.array([lng]), 9)

    # On the very line between two faces either may be right.
    near = h3.grid_disk(h3.latlng_to_cell(lat, lng, 9), 1)
    assert int(ours[0]) in near


@pytest.mark.parametrize("resolution", [0, 1, 3, 6, 10])
@pytest.mark.parametrize("points", [everywhere, around_pentagons])
def test_it_knows_how_far_a_cell_reaches(points: object, resolution: int) -> None:
    assert callable(points)
    lat, lng = points(5_000, seed=resolution)
    finest = lattice.cells_at(lat, lng, 15)
    parents = np.array([h3.cell_to_parent(int(cell), resolution) for cell in finest], np.uint64)

    reach = Reach.of(parents)
    outlines = shapely.polygons(reach.outlines())

    held = [shapely.intersects_xy(outlines, lng + turn, lat) for turn in (-360, 0, 360)]
    assert np.any(held, axis=0).all()


@pytest.mark.parametrize("resolution", [0, 4, 9])
def test_it_has_the_children_that_h3_has(resolution: int) -> None:
    parents = [h3.get_pentagons(resolution)[0], h3.latlng_to_cell(48.8, 2.3, resolution)]

    ours, parent = children(np.array(parents, np.uint64))

    theirs = [h3.cell_to_children(cell) for cell in parents]
    assert [sorted(ours[parent == row].tolist()) for row in range(2)] == [sorted(c) for c in theirs]

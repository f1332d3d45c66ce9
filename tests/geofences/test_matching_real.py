"""Every area of the real data sets, against points around, on and a hair off its edge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import shapely

from geofences.geometry import Shape, normalise
from geofences.icosahedron import Floats
from geofences.matching import Index
from tests.geofences.shapes import columns_of, features, found, hard_points

pytestmark = pytest.mark.shared_data

POINTS = 15  # random ones and edge-hugging ones of each shape; all meet all shapes


def by_geos(shapes: Sequence[shapely.Geometry], lat: Floats, lng: Floats) -> set[tuple[int, int]]:
    """Fix and number of each shape that holds it; the antimeridian is one line."""
    tree = shapely.STRtree(shapes)
    pairs = tree.query(shapely.points(lng, lat), predicate="intersects")
    seam = np.flatnonzero(np.abs(lng) == 180)
    other = tree.query(shapely.points(-lng[seam], lat[seam]), predicate="intersects")
    every = np.concatenate((pairs, [seam[other[0]], other[1]]), axis=1)
    return {(int(fix), int(number) + 1) for fix, number in every.T}


def check(shapes: Sequence[Shape], seed: int) -> int:
    rng = np.random.default_rng(seed)
    points = [hard_points(shape, rng, POINTS) for shape in shapes]
    lat, lng = (np.concatenate(axis) for axis in zip(*points, strict=True))

    index = Index.build([columns_of(shapes)])

    wanted = by_geos(shapes, lat, lng)
    assert found(index, lat, lng) == wanted
    return len(wanted)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("natural_earth/ne_10m_antarctic_ice_shelves_polys", 100),
        ("natural_earth/ne_10m_minor_islands", 2_000),
        ("natural_earth/ne_110m_countries", 177),
        ("natural_earth/ne_50m_lakes", 270),
        ("natural_earth/ne_50m_urban_areas", 2_000),
        ("zcta/zcta_ct", 250),
        ("zcta/zcta_dc", 40),
        ("zcta/zcta_hi", 90),
        ("zcta/zcta_ri", 70),
        ("austin/parks", 280),
        ("austin/neighborhoods", 70),
    ],
)
def test_it_agrees_with_geos_on_real_areas(shared_data: Path, name: str, count: int) -> None:
    areas = [normalise(area, repair=True) for area in features(shared_data / f"{name}.geojson")]
    assert len(areas) >= count

    assert check(areas, seed=count) > count

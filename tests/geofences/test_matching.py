"""The index answers exactly what the geometry says, and stays itself while others change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import shapely.geometry
from hypothesis import given, settings
from hypothesis import strategies as st

from geofences import outlines
from geofences.geometry import Circle, Shape, circle, great_circle_m, normalise
from geofences.icosahedron import Floats
from geofences.matching import Columns, Index
from tests.geofences.shapes import (
    blob,
    columns_of,
    expected,
    found,
    hard_points,
    holds,
    index_of,
    lines,
)

SQUARE = shapely.box(24.93, 60.16, 24.95, 60.17)
PARIS = {"lat": 48.86, "lng": 2.35}


def agrees(shapes: list[Shape], lat: Floats, lng: Floats) -> None:
    """Batch and single answers are those of the exact test."""
    index = index_of(*shapes)
    wanted = expected(shapes, lat, lng)
    assert found(index, lat, lng) == wanted
    one_by_one = {
        (fix, int(index.geofence_id[ordinal]))
        for fix, (y, x) in enumerate(zip(lat.tolist(), lng.tolist(), strict=True))
        for ordinal in index.match(lat=np.array([y]), lng=np.array([x]), brand=1).ordinal
    }
    assert one_by_one == wanted


def crowd(rng: np.random.Generator, count: int) -> list[Shape]:
    """Blobs and circles of 20 to 800 m on top of each other in Paris."""
    shapes: list[Shape] = []
    for number in range(count):
        lat, lng = rng.uniform(48.8, 48.9), rng.uniform(2.2, 2.4)
        radius_m = float(rng.uniform(20, 800))
        if number % 3:
            corners = int(rng.integers(3, 40))
            shapes.append(
                normalise(blob(rng, lat=lat, lng=lng, radius_m=radius_m, corners=corners))
            )
        else:
            shapes.append(circle(lat=lat, lng=lng, radius_m=radius_m))
    return shapes


def in_paris(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    return rng.uniform(48.8, 48.9, count), rng.uniform(2.2, 2.4, count)


@pytest.mark.parametrize(
    ("lat", "lng", "inside"),
    [
        (60.165, 24.94, True),
        (60.175, 24.94, False),
        (60.16, 24.94, True),  # on an edge
        (60.17, 24.95, True),  # on a corner
        (np.nextafter(60.17, 90), 24.94, False),  # as near as doubles come
        (np.nextafter(60.17, 0), 24.94, True),
    ],
)
def test_it_takes_the_edge_for_inside(lat: float, lng: float, inside: bool) -> None:
    assert (found(index_of(SQUARE), lat, lng) == {(0, 1)}) is inside


def test_it_takes_the_edge_of_a_hole_for_inside() -> None:
    ring = SQUARE.difference(shapely.box(24.935, 60.163, 24.945, 60.167))

    assert found(index_of(ring), [60.163, 60.165, 60.165], [24.94, 24.935, 24.94]) == {
        (0, 1),
        (1, 1),
    }


def test_it_answers_circles_to_the_millimetre() -> None:
    shop = circle(lat=60.17, lng=24.94, radius_m=100)
    lat = 60.17 + np.degrees((100 + np.array([-0.001, 0.001])) / 6_371_008.8)

    assert found(index_of(shop), lat, [24.94, 24.94]) == {(0, 1)}


def test_it_answers_nothing_when_nothing_is_armed() -> None:
    index = Index.build([columns_of([])])

    assert len(index) == 0
    assert found(index, [60.0], [24.0]) == set()
    assert index.ordinals(np.array([1])).tolist() == [-1]
    assert len(index.nearby(lat=60.0, lng=24.0, brand=1, limit=5).ordinal) == 0


def test_it_answers_an_empty_batch() -> None:
    assert found(index_of(SQUARE), [], []) == set()


def test_it_orders_by_fix_then_geofence_id() -> None:
    shapes = [shapely.box(24, 60, 25, 61)] * 3
    index = Index.build([columns_of(shapes, ids=[30, 10, 20])])
    index = index.updated(removed=[], added=columns_of(shapes[:1], ids=[15]))

    seen = index.match(lat=np.full(2, 60.5), lng=np.full(2, 24.5), brand=1)

    assert seen.fix.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert index.geofence_id[seen.ordinal].tolist() == [10, 15, 20, 30] * 2


def test_it_never_answers_another_brands_geofences() -> None:
    rng = np.random.default_rng(1)
    shapes = crowd(rng, 60)
    brands = rng.choice([3, 5, 7_000_000_000], 60)
    index = Index.build([columns_of(shapes, brands=brands.tolist())])
    lat, lng = in_paris(rng, 800)
    asked = rng.choice([3, 4, 5, 7_000_000_000], 800)
    every = expected(shapes, lat, lng)

    seen = index.match(lat=lat, lng=lng, brand=asked)

    answered = set(zip(seen.fix.tolist(), index.geofence_id[seen.ordinal].tolist(), strict=True))
    assert answered == {(fix, number) for fix, number in every if brands[number - 1] == asked[fix]}
    assert found(index, lat, lng, brand=5) == {
        (fix, number) for fix, number in every if brands[number - 1] == 5
    }
    assert found(index, lat, lng, brand=None) == every
    assert found(index, lat, lng, brand=4) == set()


@pytest.mark.parametrize("size", [1, 7, 16, 17, 8192, 8193, 20_000])
def test_it_answers_batches_of_any_size_alike(size: int) -> None:
    rng = np.random.default_rng(2)
    shapes = crowd(rng, 40)
    lat, lng = in_paris(rng, size)

    assert found(index_of(*shapes), lat, lng) == expected(shapes, lat, lng)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    lat=st.floats(-85, 85),
    lng=st.floats(-180, 180),
    radius_m=st.sampled_from([0.01, 3, 50, 800, 20_000, 300_000]),
    corners=st.integers(3, 400),
)
def test_it_agrees_with_geos_on_any_polygon(
    seed: int, lat: float, lng: float, radius_m: float, corners: int
) -> None:
    rng = np.random.default_rng(seed)
    drawn = blob(rng, lat=lat, lng=lng, radius_m=radius_m, corners=corners)

    shape = normalise(drawn)

    agrees([shape], *hard_points(shape, rng))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    lat=st.floats(-90, 90),
    lng=st.floats(-180, 180),
    radius_m=st.floats(0.01, 100_000),
)
def test_it_agrees_with_haversine_on_any_circle(
    seed: int, lat: float, lng: float, radius_m: float
) -> None:
    shape = circle(lat=lat, lng=lng, radius_m=radius_m)

    agrees([shape], *hard_points(shape, np.random.default_rng(seed)))


def test_it_agrees_on_stars_with_holes_and_parts() -> None:
    rng = np.random.default_rng(3)
    shapes: list[Shape] = []
    for number in range(10):
        outer = blob(rng, **PARIS, radius_m=900, corners=200)
        hole = blob(rng, **PARIS, radius_m=300, corners=30)
        far = blob(rng, lat=48.87, lng=2.37, radius_m=20 + 10 * number, corners=5)
        shapes.append(
            normalise(shapely.union(outer.difference(hole), far.difference(outer)), repair=True)
        )
    points = [hard_points(shape, rng, 40) for shape in shapes]

    agrees(shapes, *(np.concatenate(axis) for axis in zip(*points, strict=True)))


def test_it_agrees_on_a_coast_with_very_many_corners() -> None:
    rng = np.random.default_rng(4)
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    away = 0.4 + 0.1 * np.sin(37 * angle) + rng.uniform(0, 0.0001, len(angle))
    coast = shapely.Polygon(np.column_stack((3 + away * np.cos(angle), 47 + away * np.sin(angle))))
    lat, lng = hard_points(coast, rng, 300)
    index = index_of(coast)

    assert found(index, lat, lng) == expected([coast], lat, lng)
    assert found(index, lat, lng) == expected([coast], lat, lng)  # now prepared


def test_it_agrees_on_grid_aligned_rectangles() -> None:
    rng = np.random.default_rng(5)
    corner = np.round(rng.uniform((2.2, 48.8), (2.4, 48.9), (40, 2)), 3)
    size = np.round(rng.uniform(0.001, 0.01, (40, 2)), 3)
    shapes: list[Shape] = [
        shapely.box(*low, *high) for low, high in zip(corner, corner + size, strict=True)
    ]
    lat, lng = np.meshgrid(np.arange(48.8, 48.9, 0.002), np.arange(2.2, 2.4, 0.004))

    agrees(shapes, np.round(lat.ravel(), 3), np.round(lng.ravel(), 3))


@pytest.mark.parametrize("lng", [-180.0, 180.0, 540.0])
def test_it_sees_the_antimeridian_from_both_sides(lng: float) -> None:
    east = shapely.box(-180, 1, -179.9, 2)
    west = shapely.box(179.9, 1, 180, 2)

    assert found(index_of(east, west), 1.5, lng) == {(0, 1), (0, 2)}


def test_it_wraps_fixes_beyond_180() -> None:
    assert found(index_of(shapely.box(-170, 1, -169, 2)), 1.5, 190.5) == {(0, 1)}


@pytest.mark.shared_data
def test_it_passes_turfs_point_in_polygon_suite(shared_data: Path) -> None:
    cases = lines(shared_data / "suites" / "turf_point_in_polygon.jsonl")
    assert len(cases) == 89
    for case in cases:
        # The suite's plane reaches beyond the earth; halving is exact in doubles.
        polygon = shapely.transform(shapely.geometry.shape(case["polygon"]), lambda xy: xy / 2)
        lng, lat = np.array(case["point"]["coordinates"][:2], float) / 2
        polygon = normalise(polygon, repair=True)  # one case nests two outer rings
        on_edge = shapely.intersects_xy(polygon.boundary, lng, lat)
        # Our rule: an edge belongs to its polygon. The suite can be asked to ignore edges.
        wanted = case["expected"] or bool(on_edge)
        if not case["options"].get("ignoreBoundary"):
            assert wanted == case["expected"]

        assert (found(index_of(polygon), lat, lng) == {(0, 1)}) is wanted, case


def of_traccar(text: str) -> Shape:
    """Traccar writes latitude first and does not close rings."""
    name, _, rest = text.partition("(")
    numbers = [tuple(map(float, pair.split())) for pair in rest.strip("() ").split(",") if pair]
    if name.strip() == "CIRCLE":
        lat, lng = numbers[0]
        return circle(lat=lat, lng=lng, radius_m=numbers[1][0])
    return normalise(shapely.Polygon([(lng, lat) for lat, lng in numbers]))


@pytest.mark.shared_data
def test_it_passes_traccars_geofence_suite(shared_data: Path) -> None:
    asked = 0
    for case in lines(shared_data / "suites" / "traccar_geofence.jsonl"):
        if case["op"] != "containsPoint" or case["wkt_lat_lng_order"].startswith("LINESTRING"):
            continue
        shape = of_traccar(case["wkt_lat_lng_order"].replace("((", "(").replace("))", ")"))
        lat, lng = case["args_lat_lng"]

        assert (found(index_of(shape), lat, lng) == {(0, 1)}) is case["expected"], case
        asked += 1
    assert asked == 10


def alike(one: Index, other: Index, lat: Floats, lng: Floats) -> bool:
    return found(one, lat, lng) == found(other, lat, lng)


def test_it_takes_updates_without_touching_the_old_index() -> None:
    rng = np.random.default_rng(6)
    shapes = crowd(rng, 50)
    lat, lng = in_paris(rng, 2_000)
    before = index_of(*shapes)
    moved = circle(**PARIS, radius_m=700)

    after = before.updated(removed=[1, 2, 999], added=columns_of([moved, moved], ids=[3, 80]))

    assert len(before) == 50
    assert found(before, lat, lng) == expected(shapes, lat, lng)
    assert len(after) == 49
    kept = {pair for pair in expected(shapes, lat, lng) if pair[1] not in {1, 2, 3}}
    inside = np.flatnonzero(holds(moved, lat, lng)).tolist()
    wanted = kept | {(fix, number) for fix in inside for number in (3, 80)}
    assert found(after, lat, lng) == wanted
    assert after.ordinals(np.array([1, 2, 999])).tolist() == [-1, -1, -1]
    ordinals = after.ordinals(np.array([3, 80, 4]))
    assert after.geofence_id[ordinals].tolist() == [3, 80, 4]
    assert after.settings["exit_buffer_m"][ordinals].tolist() == [3, 80, 4]


@settings(max_examples=12)
@given(st.data())
def test_it_is_after_any_updates_what_a_cold_start_is(data: Any) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    lat, lng = in_paris(rng, 500)
    armed = dict(enumerate(crowd(rng, 12), start=1))
    index = index_of(*armed.values())
    for _ in range(data.draw(st.integers(1, 4))):
        removed = data.draw(st.lists(st.integers(1, 20), max_size=4))
        ids = data.draw(st.lists(st.integers(1, 20), max_size=4, unique=True))
        added = crowd(rng, len(ids))
        armed = {number: shape for number, shape in armed.items() if number not in removed}
        armed |= dict(zip(ids, added, strict=True))
        index = index.updated(removed=removed, added=columns_of(added, ids=ids))
        if data.draw(st.booleans()):
            index = index.compacted()
            assert index.overlay == 0

    cold = Index.build([columns_of(list(armed.values()), ids=list(armed))])
    assert len(index) == len(armed) == len(cold)
    assert found(index, lat, lng) == found(cold, lat, lng)
    numbers = np.array(sorted(armed), np.int64)
    here, there = index.ordinals(numbers), cold.ordinals(numbers)
    assert (here >= 0).all()
    assert (index.settings["exit_buffer_m"][here] == cold.settings["exit_buffer_m"][there]).all()
    near, cold_near = (each.nearby(**PARIS, brand=1, limit=7) for each in (index, cold))
    assert index.geofence_id[near.ordinal].tolist() == cold.geofence_id[cold_near.ordinal].tolist()
    assert near.refresh_radius_m == pytest.approx(cold_near.refresh_radius_m)


def test_it_is_by_the_portion_what_it_is_at_once() -> None:
    rng = np.random.default_rng(9)
    shapes = crowd(rng, 30)
    lat, lng = in_paris(rng, 500)
    columns = columns_of(shapes, ids=rng.permutation(30).tolist(), brands=[1, 2] * 15)

    portions = [columns.rows(rows) for rows in np.split(np.arange(30), [0, 11, 12])]
    index, whole = Index.build(portions), Index.build([columns])

    assert found(index, lat, lng, brand=None) == found(whole, lat, lng, brand=None)
    assert found(index, lat, lng) == found(whole, lat, lng)
    assert (index.settings["exit_buffer_m"] == whole.settings["exit_buffer_m"]).all()
    assert index.geofence_id.tolist() == list(range(30))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), size=st.integers(0, 40))
def test_it_answers_few_as_it_answers_many(seed: int, size: int) -> None:
    """In a crowd, of two brands, with an update beside; one by one below some size."""
    rng = np.random.default_rng(seed)
    index = Index.build([columns_of(crowd(rng, 60), brands=[1, 2] * 30)])
    index = index.updated(removed=[3], added=columns_of(crowd(rng, 2), ids=[9, 99]))
    lat, lng = in_paris(rng, 200)
    lng[:5] = [180, -180, 181, 360 + 2.3, -358]
    brand = rng.choice([1, 2, 3], 200)

    few = index.match(lat=lat[:size], lng=lng[:size], brand=brand[:size])
    many = index.match(lat=lat, lng=lng, brand=brand)

    asked = many.fix < size
    assert few.fix.tolist() == many.fix[asked].tolist()
    assert few.ordinal.tolist() == many.ordinal[asked].tolist()


def test_it_takes_a_first_geofence_into_an_empty_index() -> None:
    index = Index.build([columns_of([])]).updated(removed=[], added=columns_of([SQUARE]))

    assert found(index, 60.165, 24.94) == {(0, 1)}
    assert found(index.compacted(), 60.165, 24.94) == {(0, 1)}


def test_it_gives_every_shape_back_to_the_last_bit() -> None:
    rng = np.random.default_rng(7)
    shapes = crowd(rng, 12)
    shapes.append(normalise(shapely.union(SQUARE, shapely.box(24.96, 60.16, 24.97, 60.17))))
    shapes.append(SQUARE.difference(shapely.box(24.935, 60.163, 24.945, 60.167)))

    for shape in shapes:
        again = outlines.unpack(outlines.pack(shape))
        if isinstance(shape, Circle):
            assert again == shape
        else:
            assert shapely.equals_identical(again, shape)


def test_it_keeps_large_outlines_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    shapes = crowd(rng, 30)
    lat, lng = in_paris(rng, 500)
    in_memory = index_of(*shapes)
    monkeypatch.setattr(outlines, "_SPOOL_BYTES", 0)

    mapped = index_of(*shapes)

    assert mapped.bytes_in_memory < in_memory.bytes_in_memory
    assert alike(mapped, in_memory, lat, lng)
    assert alike(mapped.compacted(), in_memory, lat, lng)


def edge_distance_m(shape: Shape, lat: float, lng: float) -> float:
    """To the nearest of very many points on the edge, by great circle."""
    if isinstance(shape, Circle):
        away = great_circle_m(
            np.array(lat), np.array(lng), np.array(shape.lat), np.array(shape.lng)
        )
        return abs(float(shape.radius_m - away))
    dense = shapely.get_coordinates(shapely.segmentize(shape, 1e-6 * 5))
    away = great_circle_m(dense[:, 1], dense[:, 0], np.array(lat), np.array(lng))
    return float(away.min())


def test_it_measures_the_distance_to_the_edge() -> None:
    rng = np.random.default_rng(9)
    shapes = crowd(rng, 12)
    shapes.append(SQUARE.difference(shapely.box(24.935, 60.163, 24.945, 60.167)))
    index = index_of(*shapes)
    for ordinal, shape in enumerate(shapes):
        lat, lng = hard_points(shape, rng, 4)
        measured = index.distance_m(ordinal=np.full(len(lat), ordinal, np.int32), lat=lat, lng=lng)
        wanted = [edge_distance_m(shape, y, x) for y, x in zip(lat, lng, strict=True)]
        assert np.abs(measured) == pytest.approx(wanted, abs=1.0)
        assert ((measured >= 0) == holds(shape, lat, lng)).all()


def test_it_does_not_measure_to_the_cut_at_the_antimeridian() -> None:
    index = index_of(normalise(shapely.box(179.9, -0.1, 180.1, 0.1)))

    distance_m = index.distance_m(
        ordinal=np.zeros(2, np.int32), lat=np.zeros(2), lng=np.array([179.9999, -179.9999])
    )

    assert distance_m == pytest.approx([0.1 * 111_195] * 2, rel=0.01)


def test_it_finds_the_nearest_geofences() -> None:
    rng = np.random.default_rng(10)
    shapes = crowd(rng, 200)
    wide = shapely.box(3.5, 47, 6, 49)
    brands = [1] * 150 + [2] * 50 + [1]
    index = Index.build([columns_of([*shapes, wide], brands=brands)])
    own = np.flatnonzero(np.array(brands) == 1).astype(np.int32)
    for lat, lng in zip(*in_paris(rng, 10), strict=True):
        away = index.distance_m(ordinal=own, lat=np.full(len(own), lat), lng=np.full(len(own), lng))
        best = own[np.argsort(-away)]

        near = index.nearby(lat=lat, lng=lng, brand=1, limit=20)

        assert near.ordinal.tolist() == best[:20].tolist()
        assert near.distance_m == pytest.approx(np.sort(away)[::-1][:20])
        assert near.refresh_radius_m == pytest.approx(max(0, -np.sort(away)[::-1][20]))


def test_it_finds_all_when_there_are_few() -> None:
    index = index_of(SQUARE, circle(lat=60.5, lng=25, radius_m=50))

    near = index.nearby(lat=60.165, lng=24.94, brand=1, limit=20)

    assert near.ordinal.tolist() == [0, 1]
    assert near.refresh_radius_m == 50_000
    assert len(index.nearby(lat=60.165, lng=24.94, brand=2, limit=20).ordinal) == 0


def test_it_costs_less_than_a_kilobyte_a_geofence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "_SPOOL_BYTES", 0)
    rng = np.random.default_rng(11)
    shapes: list[Shape] = [
        normalise(
            blob(
                rng,
                lat=rng.uniform(43, 49),
                lng=rng.uniform(-1, 7),
                radius_m=float(rng.uniform(50, 800)),
                corners=int(rng.integers(6, 200)),
            ),
            repair=True,
        )
        for _ in range(120)
    ]

    assert index_of(*shapes).bytes_in_memory / 120 < 1_024


def test_it_adds_and_picks_columns() -> None:
    columns = columns_of([SQUARE, circle(lat=1, lng=1, radius_m=9)], ids=[4, 2])

    both: Columns = columns.rows(np.array([1])).plus(columns.rows(np.array([0])))

    assert both.geofence_id.tolist() == [2, 4]
    assert list(both.shape) == list(columns.shape)[::-1]
    assert both.settings["exit_buffer_m"].tolist() == [2, 4]

"""P1 and the index's share of P8: the matching kernel beside its peers, in process, on one core.

    python -m benchmarks.matching [--quick] [--only 10000-city …]

Every peer gets the same polygons and fixes, from coordinates in to pairs out, and does no more than
that: none of them follows brands, settings or updates. Rates are a second of one core's time: a
process's own clock, but for PostgreSQL, whose time is on the wall. The first run makes the covers
of up to a million geofences, some minutes on two cores, and keeps them in an ignored folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import psycopg
import shapely
from numpy.typing import NDArray

from benchmarks import armed, koncorde, world
from benchmarks.report import Row, publish
from geofences.matching import Index

Floats = NDArray[np.float64]
BATCHES = (1, 10, 100, 1_000, 100_000)
QUICK_KONCORDE = 1_000  # geofences
KUZZLE_PER_CPU = 1_875  # stateless requests a second, kuzzle.io on its geofencing backend
GOAL_PER_S, GOAL_SINGLE_US, GOAL_GROWTH = 1_000_000, 25, 1.5
GOAL_LOAD_S, GOAL_BYTES, GOAL_PUBLISH_S = 5.0, 1_024, 1.0


def _row(row: str, case: str, value: float, unit: str, peer: str = "", beside: Any = None) -> Row:
    ratio = value / beside if beside and np.isfinite(beside) else None
    beside = beside if ratio else None
    return {
        "row": row,
        "case": case,
        "value": value,
        "unit": unit,
        "peer": peer,
        "peer_value": beside,
        "ratio": ratio,
    }


def _seconds(
    work: Callable[[], object],
    *,
    at_least_s: float,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """The shortest of several runs; on this process's own clock, which others cannot slow."""
    work()
    best, spent = np.inf, 0.0
    while spent < at_least_s:
        begun = clock()
        work()
        took = clock() - begun
        best, spent = min(best, took), spent + took
    return float(best)


def run(quick: bool, only: Sequence[str] = ()) -> list[Row]:
    """Every case or some, each beside its peers; then growth, and loading and updating."""
    cases = [(1_000, "country"), (10_000, "country"), (10_000, "city")]
    if not quick:
        cases += [(100_000, "country"), (300_000, "country"), (1_000_000, "country")]
    cases = [(count, home) for count, home in cases if not only or f"{count}-{home}" in only]
    rows: list[Row] = []
    rates: dict[int, dict[int, float]] = {}
    for count, home in cases:
        columns = armed.columns(count, home)
        begun = time.perf_counter()
        index = Index.build([columns])
        loaded_s = time.perf_counter() - begun
        case = f"{count:,} in one city" if home == "city" else f"{count:,} over a country"
        ours = _ours(rows, index, case, home, quick=quick)
        if home == "country":
            rates[count] = ours
        rows += _peers(index, count, home, case, ours[BATCHES[-1]], quick=quick)
        if count == cases[-1][0] if quick else count == 300_000:
            rows += _index_rows(index, columns, case, loaded_s)
    if len(rates) > 1:
        few, many = min(rates), max(rates)
        rows += _growth(f"{many:,} : {few:,}", rates[many], rates[few])
    if 1_000_000 in rates:
        index, case = Index.build([armed.columns(1_000, "district")]), "1,000 as dense as a million"
        rows += _growth(
            f"a million : {case}",
            rates[1_000_000],
            _ours(rows, index, case, "district", quick=quick),
        )
    if "kuzzle" in only or not (quick or only):
        rows.append(_kuzzle(300_000))
    return rows


def _ours(rows: list[Row], index: Index, case: str, home: str, *, quick: bool) -> dict[int, float]:
    """Our rows; answers fixes a second by size of a batch.

    Batches of other fixes in turn, as many as the largest has: what the last one brought near is
    of no use to the next.
    """
    least_s = 0.15 if quick else 1.5
    lat, lng = world.places(BATCHES[-1], home=home, seed=5)
    rates = {}
    for size in BATCHES:
        fixes = len(lat) if size > 1 else len(lat) // 10  # which take a second as it is
        parts = [slice(start, start + size) for start in range(0, fixes, size)]

        def in_turn(parts: list[slice] = parts) -> None:
            for part in parts:
                index.match(lat=lat[part], lng=lng[part], brand=1)

        rates[size] = fixes / _seconds(in_turn, at_least_s=least_s)
        goal = ("goal", GOAL_PER_S) if size >= 1_000 else ("", None)
        rows.append(_row("P1", f"{case}: batches of {size:,}", rates[size], "fixes/s", *goal))
    single_us = 1e6 / rates[1]
    rows.append(_row("P1", f"{case}: a single fix", single_us, "µs", "goal", GOAL_SINGLE_US))
    return rates


def _growth(case: str, many: dict[int, float], few: dict[int, float]) -> list[Row]:
    """What a fix costs more among many geofences, by size of a batch."""
    return [
        _row("P1", f"cost a fix, {case}, batches of {size:,}", few[size] / many[size], "×", "goal",
             GOAL_GROWTH)
        for size in BATCHES
    ]  # fmt: skip


def _peers(
    index: Index, count: int, home: str, case: str, ours: float, *, quick: bool
) -> list[Row]:
    shapes = armed.shapes(count, home)
    sample = 10_000 if quick else BATCHES[-1]
    lat, lng = world.places(sample, home=home, seed=5)
    tree = shapely.STRtree(shapes)

    def by_tree() -> NDArray[Any]:
        found: NDArray[Any] = tree.query(shapely.points(lng, lat), predicate="intersects")
        return found

    def by_tree_of_fixes() -> object:
        return shapely.STRtree(shapely.points(lng, lat)).query(shapes, predicate="intersects")

    def by_boxes() -> object:
        fix, geofence = tree.query(shapely.points(lng, lat))
        inside = shapely.intersects_xy(shapes[geofence], lng[fix], lat[fix])
        return fix[inside], geofence[inside]

    seen = index.match(lat=lat, lng=lng, brand=1)
    mine = set(zip(seen.fix.tolist(), seen.ordinal.tolist(), strict=True))
    wrong = len(mine ^ set(map(tuple, by_tree().T.tolist())))
    rows = [
        _row("P1", f"{case}: hits a fix", len(mine) / sample, "geofences"),
        _row("P1", f"{case}: answers that differ from GEOS", wrong, "of " + f"{len(mine):,}"),
    ]

    def beside(peer: str, rate: float | str) -> None:
        if isinstance(rate, str):  # named all the same
            peer, rate = f"{peer}, {rate}", np.nan
        rows.append(_row("P1", f"{case}: largest batch", ours, "fixes/s", peer, rate))

    least_s = 0.15 if quick else 0.5
    beside("shapely STRtree of geofences", sample / _seconds(by_tree, at_least_s=least_s))
    shapely.prepare(shapes)
    rate = sample / _seconds(by_tree_of_fixes, at_least_s=least_s)
    beside("shapely STRtree of the fixes, geofences prepared", rate)
    rate = sample / _seconds(by_boxes, at_least_s=least_s)
    beside("shapely STRtree of boxes, then intersects_xy, prepared", rate)
    areas = geopandas.GeoDataFrame(geometry=shapes)

    def by_join() -> object:
        fixes = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(lng, lat))
        return geopandas.sjoin(fixes, areas, predicate="intersects")

    beside("geopandas.sjoin", sample / _seconds(by_join, at_least_s=least_s))
    few = slice(0, 2_000 if quick else 10_000)
    beside("PostGIS ST_Covers", _postgis(shapes, lat[few], lng[few]))
    beside("Koncorde", _koncorde(shapes, lat, lng, quick=quick))
    return rows


def _koncorde(shapes: NDArray[Any], lat: Floats, lng: Floats, *, quick: bool) -> float | str:
    if quick and len(shapes) != QUICK_KONCORDE:  # it takes seconds to load them
        return "make bench only"
    why = koncorde.installed(install=not quick)
    if why:
        return f"missing: {why}"
    if len(shapes) > 300_000:
        return "left out: 11 KB a geofence"
    try:
        return koncorde.measure(shapes, lat, lng, seconds=1.0 if quick else 5.0)["rate"]
    except subprocess.CalledProcessError as failed:
        said = failed.stderr.strip().splitlines() or [f"exit {failed.returncode}"]
        return f"missing: it failed ({said[0]})"


def _postgis(shapes: NDArray[Any], lat: Floats, lng: Floats) -> float | str:
    """Fixes a second of an indexed join, one core, nothing stored."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        return "missing: no DATABASE_URL"
    with psycopg.connect(url.replace("postgis://", "postgresql://")) as connection:
        cursor = connection.cursor()
        cursor.execute("SET max_parallel_workers_per_gather = 0")
        cursor.execute("CREATE TEMP TABLE areas (area geometry) ON COMMIT DROP")
        cursor.execute("CREATE TEMP TABLE fixes (at geometry) ON COMMIT DROP")
        with cursor.copy("COPY areas FROM STDIN") as rows:
            for shape in shapes:
                rows.write_row((shapely.to_wkb(shape, hex=True),))
        with cursor.copy("COPY fixes FROM STDIN") as rows:
            for y, x in zip(lat, lng, strict=True):
                rows.write_row((shapely.to_wkb(shapely.Point(x, y), hex=True),))
        cursor.execute("CREATE INDEX ON areas USING gist (area)")
        cursor.execute("ANALYZE areas")
        cursor.execute("ANALYZE fixes")
        join = "SELECT count(*) FROM fixes JOIN areas ON ST_Covers(areas.area, fixes.at)"
        took_s = _seconds(
            lambda: cursor.execute(join).fetchall(), at_least_s=0.5, clock=time.perf_counter
        )
        return len(lat) / took_s


def _index_rows(index: Index, columns: Any, case: str, loaded_s: float) -> list[Row]:
    """What a process spends on the index itself; reading the rows is measured on the road."""
    one = columns.rows(np.array([0]))
    publish_s = _seconds(lambda: index.updated(removed=[2], added=one), at_least_s=0.5)
    return [
        _row("P8", f"{case}: index from columns", loaded_s, "s", "goal", GOAL_LOAD_S),
        _row("P8", f"{case}: memory a geofence", index.bytes_in_memory / len(index), "bytes",
             "goal", GOAL_BYTES),
        _row("P8", f"{case}: one publish into the index", publish_s, "s", "goal", GOAL_PUBLISH_S),
    ]  # fmt: skip


def _kuzzle(count: int) -> Row:
    """Kuzzle's published case: six-cornered polygons, random points, one request each.

    Timed once over all, after a few others: no point is asked twice.
    """
    index = Index.build([armed.columns(count, "country", (6, 6))])
    lat, lng = world.places(101_000, home="country", seed=6)
    places = list(zip(lat.tolist(), lng.tolist(), strict=True))

    def one_by_one(some: list[tuple[float, float]]) -> float:
        begun = time.process_time()
        for y, x in some:
            index.match(lat=np.array([y]), lng=np.array([x]), brand=1)
        return len(some) / (time.process_time() - begun)

    one_by_one(places[:1_000])
    rate = one_by_one(places[1_000:])
    case = f"{count:,} polygons of six corners, one fix at a time, no network"
    return _row("P1", case, rate, "fixes/s", "Kuzzle per vCPU, as published", KUZZLE_PER_CPU)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], help="such as 10000-city, kuzzle")
    chosen = parser.parse_args()
    rows = run(chosen.quick, chosen.only)
    publish(rows, where=Path(".nearcast") / "bench-matching.json")


if __name__ == "__main__":
    main()

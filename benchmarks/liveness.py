"""P8: how soon a new or moved geofence is live in every process, and what a cold process pays.

Single fixes keep coming by the clock meanwhile: the slowest answer is the longest pause.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import shapely

from benchmarks import populate, road, stage
from benchmarks.populate import Phone
from benchmarks.report import Row, row

HOME, DEVICES = "country", 10_000
TRAFFIC_PER_S = 500
GOAL_LIVE_S, GOAL_LOAD_S, GOAL_BYTES = 1.0, 5.0, 1_024
FAR_S = 20.0
NEW_LAT, NEW_LNG, MOVED_LNG = 20.0, 20.0, 21.0  # where the benchmarks' world has nothing
_COLD = """
import json, os, time
import django
django.setup()
from benchmarks.stage import memory_kb
from geofences import armed
before, begun = memory_kb(os.getpid()), time.perf_counter()
index = armed.load().index
print(json.dumps({"s": time.perf_counter() - begun, "bytes": index.bytes_in_memory / len(index),
  "resident": (memory_kb(os.getpid()) - before) * 1024 / len(index)}))
"""


def run(quick: bool) -> list[Row]:
    """Publish, edit, pause, cold load."""
    count, times = (10_000, 1) if quick else (300_000, 5)
    stage.make_database()
    populate.geofences(count, HOME)
    phones = populate.devices(DEVICES, HOME)
    strangers = iter(phones)
    with (
        stage.web(workers=1) as (one, _),
        stage.web(workers=1) as (other, _),
        ThreadPoolExecutor(1) as threads,
    ):
        seconds = 3.0 + 2 * times
        traffic = threads.submit(
            road.open_loop, one, phones[DEVICES // 2 :], rate=TRAFFIC_PER_S, seconds=seconds
        )
        time.sleep(2)
        published, edited = [], []
        for number in range(times):
            published.append(_publish(f"new {number}", NEW_LNG, number, (one, other), strangers))
            edited.append(_publish(f"new {number}", MOVED_LNG, number, (one, other), strangers))
        seen = traffic.result()
    cold = _cold()
    case = f"{count:,} armed"
    rows = [
        row(
            "P8",
            f"{case}: publish to live in two processes",
            max(published),
            "s",
            "goal",
            GOAL_LIVE_S,
        ),
        row("P8", f"{case}: edit to live in two processes", max(edited), "s", "goal", GOAL_LIVE_S),
        row("P8", f"{case}: slowest answer meanwhile, {TRAFFIC_PER_S}/s", seen["max_ms"], "ms"),
        row("P8", f"{case}: p99 meanwhile", seen["p99_ms"], "ms"),
        row("P8", f"{case}: a cold process loads in", cold["s"], "s", "goal", GOAL_LOAD_S),
        row("P8", f"{case}: memory a geofence", cold["bytes"], "bytes", "goal", GOAL_BYTES),
        row("P8", f"{case}: the same, as the process grew", cold["resident"], "bytes"),
    ]
    if seen["answered"] < seen["sent"]:
        rows.append(row("P8", f"{case}: not answered", seen["sent"] - seen["answered"], "answers"))
    return rows


def _publish(
    name: str, lng: float, number: int, hosts: tuple[str, ...], strangers: Iterator[Phone]
) -> float:
    """Write a geofence (again); seconds from the commit until each process reports an entry."""
    from django.contrib.gis.geos import GEOSGeometry

    from geofences.models import Geofence
    from geofences.writing import save

    brand, lat = populate.brand(), NEW_LAT + number * 0.1
    square = shapely.box(lng - 0.001, lat - 0.001, lng + 0.001, lat + 0.001)
    place = Geofence.objects.filter(brand=brand, name=name).first()
    place = place or Geofence(brand=brand, name=name, track_visits=True)
    place.geometry = GEOSGeometry(memoryview(square.wkb), srid=4326)
    save([place])
    begun = time.perf_counter()
    for host in hosts:
        while not _enters(host, next(strangers), lat, lng, place.pk):
            if time.perf_counter() - begun > FAR_S:
                return math.inf
            time.sleep(0.01)
    return time.perf_counter() - begun


def _enters(host: str, phone: Phone, lat: float, lng: float, geofence_id: int) -> bool:
    """Whether a fix there, of a phone never heard of, is taken for an entry."""
    body = json.dumps({"lat": lat, "lng": lng, "recorded_at": time.time_ns() // 1_000_000})
    request = urllib.request.Request(
        f"http://{host}/v1/locations",
        data=body.encode(),
        headers={"Authorization": f"Bearer {phone.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - as above
        pass
    with stage.connect() as connection:
        found = connection.execute(
            "SELECT 1 FROM devices_transition WHERE device_id = %s AND geofence_id = %s",
            (phone.device_id, geofence_id),
        ).fetchone()
    return found is not None


def _cold() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _COLD], capture_output=True, text=True, check=True, cwd=stage.ROOT
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told

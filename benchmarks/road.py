"""P2 to P5, P8, P9: the whole road over real HTTP, as shipped, beside Tile38 on the same world.

wrk and the project's own open-loop client are processes outside the server's; PostgreSQL, the
server and the load share the machine.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import stage, tile38, world

Row = dict[str, Any]
DEVICES = 100_000
WRK = """
local ffi = require("ffi")
ffi.cdef[[typedef struct {{ long s; long us; }} timeval; int gettimeofday(timeval *, void *);]]
local now = ffi.new("timeval")
local tokens, lats, lngs, n = {{}}, {{}}, {{}}, 0
local each = {each}
function init(args)
  for line in io.lines("{phones}") do
    local token, lat, lng = line:match("(%S+) (%S+) (%S+)")
    n = n + 1
    tokens[n], lats[n], lngs[n] = token, tonumber(lat), tonumber(lng)
  end
  math.randomseed(os.time())
  at = math.random(n)
end
function request()
  at = at % n + 1
  ffi.C.gettimeofday(now, nil)
  local ms = tonumber(now.s) * 1000 + math.floor(tonumber(now.us) / 1000)
  local fixes = {{}}
  for i = 1, each do
    lats[at] = lats[at] + (math.random() - 0.5) * 0.004
    lngs[at] = lngs[at] + (math.random() - 0.5) * 0.004
    fixes[i] = string.format(
      '{{"lat":%.6f,"lng":%.6f,"recorded_at":%.0f,"accuracy_m":8}}',
      lats[at], lngs[at], ms - (each - i) * 10)
  end
  local body = each == 1 and fixes[1] or '{{"locations":[' .. table.concat(fixes, ",") .. "]}}"
  return wrk.format("POST", "/v1/locations", {{
    ["Authorization"] = "Bearer " .. tokens[at], ["Content-Type"] = "application/json"}}, body)
end
"""


def _wrk(
    host: str, phones: Path, *, each: int, seconds: float, connections: int
) -> dict[str, float]:
    """Requests a second and how many were not 2xx."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK.format(each=each, phones=phones))
        script.flush()
        printed = subprocess.run(
            [
                *("wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "20s"),
                *("-s", script.name, f"http://{host}/"),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    assert found, printed
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    return {"rate": float(found[1]), "bad": int(bad[1]) if bad else 0}


def _open_loop(host: str, phones: list[Any], *, rate: int, seconds: float) -> dict[str, Any]:
    name, port = host.split(":")
    orders = {
        "host": name,
        "port": int(port),
        "rate": rate,
        "seconds": seconds,
        "connections": 256,
        "phones": phones,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.openloop"],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        check=True,
        cwd=stage.ROOT,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def seed_devices(count: int, home: str) -> list[tuple[str, float, float]]:
    """Devices of one brand, spread over the world, as (token, lat, lng)."""
    from brands.models import Brand
    from devices.auth import issue

    brand, _ = Brand.objects.get_or_create(name="Bench", slug="bench")
    with stage.connect() as connection:
        connection.execute("TRUNCATE devices_device, devices_devicestate CASCADE")
        connection.execute(
            "INSERT INTO devices_device (id, brand_id, installation_id, platform, locale, timezone,"
            " app_version, attributes, attribute_facts, consent_location, consent_marketing,"
            " consent_version, created_at, updated_at)"
            " SELECT i, %s, 'bench-' || i, 'android', 'en', 'UTC', '1', '{}', '{}', true, true,"
            " '1', now(), now() FROM generate_series(1, %s) i",
            (brand.pk, count),
        )
        connection.execute(
            "INSERT INTO devices_devicestate (device_id, version, brand_id, serial,"
            " consent_location, presences)"
            " SELECT i, 0, %s, 1, true, 0 FROM generate_series(1, %s) i",
            (brand.pk, count),
        )
        connection.execute("VACUUM ANALYZE devices_devicestate")
    lat, lng = world.places(count, home=home, seed=2)
    return [
        (issue(number, brand.pk, 1), float(where[0]), float(where[1]))
        for number, where in enumerate(zip(lat, lng, strict=True), start=1)
    ]


def seed_geofences(count: int, home: str) -> list[dict[str, Any]]:
    """Geofences that track visits, through the project's own writer; their GeoJSON."""
    from django.contrib.gis.geos import GEOSGeometry

    from brands.models import Brand
    from geofences.models import Geofence
    from geofences.writing import save

    brand, _ = Brand.objects.get_or_create(name="Bench", slug="bench")
    with stage.connect() as connection:
        connection.execute("TRUNCATE geofences_geofence CASCADE")
        connection.execute("TRUNCATE devices_presence, devices_transition")
    shapes = world.polygons(count, home=home, seed=1)
    for start in range(0, count, 5_000):
        save(
            [
                Geofence(
                    brand=brand,
                    name=f"g{start + place}",
                    geometry=GEOSGeometry(memoryview(shape.wkb), srid=4326),
                    track_visits=True,
                )
                for place, shape in enumerate(shapes[start : start + 5_000])
            ]
        )
    return [shape.__geo_interface__ for shape in shapes]


def _moves(phones: list[tuple[str, float, float]]) -> Iterator[tuple[str, float, float]]:
    """The same phones, a few hundred metres on at each turn."""
    dice = np.random.default_rng(3)
    where = np.array([(lat, lng) for _, lat, lng in phones])
    while True:
        where += dice.uniform(-0.002, 0.002, where.shape)
        for number, (lat, lng) in enumerate(where.tolist()):
            yield f"d{number}", lat, lng


def _row(row: str, case: str, value: float, unit: str, peer: str = "", beside: Any = None) -> Row:
    ratio = value / beside if isinstance(beside, int | float) and beside else None
    return {
        "row": row,
        "case": case,
        "value": value,
        "unit": unit,
        "peer": peer,
        "peer_value": beside,
        "ratio": ratio,
    }


CASES = {
    "10k over a country": (10_000, "country"),
    "10k in one city": (10_000, "city"),
    "300k over a country": (300_000, "country"),
}


def run(quick: bool) -> list[Row]:
    """P2 and P3 in each case, each beside Tile38."""
    seconds = 5.0 if quick else 15.0
    cases = list(CASES)[:1] if quick else list(CASES)
    stage.make_database()
    rows: list[Row] = []
    for case in cases:
        count, home = CASES[case]
        shapes = seed_geofences(count, home)
        phones = seed_devices(DEVICES, home)
        rows += _case(case, phones, seconds)
        rows += _beside_tile38(case, shapes, phones, seconds, rows)
    return rows


def _case(case: str, phones: list[tuple[str, float, float]], seconds: float) -> list[Row]:
    rows: list[Row] = []
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.writelines(f"{token} {lat:.6f} {lng:.6f}\n" for token, lat, lng in phones)
        listed.flush()
        path = Path(listed.name)
        with stage.web() as (host, _):
            _wrk(host, path, each=1, seconds=3, connections=64)  # warm
            one = _wrk(host, path, each=1, seconds=seconds, connections=256)
            rows.append(
                _row("P2", f"{case}: one fix a POST", one["rate"], "fixes/s", "goal", 10_000)
            )
            half = _open_loop(host, phones, rate=max(500, int(one["rate"] / 2)), seconds=seconds)
            rows.append(_row("P2", f"{case}: p99 at half load", half["p99_ms"], "ms", "goal", 50))
            many = _wrk(host, path, each=100, seconds=seconds, connections=32)
            rows.append(
                _row("P3", f"{case}: 100 a POST", many["rate"] * 100, "fixes/s", "goal", 100_000)
            )
            rows += [
                _row("P2", f"{case}: answers not 2xx", each["bad"], "answers")
                for each in (one, many)
                if each["bad"]
            ]
            rows.append(_gateway(case, host, CASES[case][1], len(phones), seconds))
    return rows


def _gateway(case: str, host: str, home: str, devices: int, seconds: float) -> Row:
    """10,000 fixes a call, every fix of another device."""
    from brands.models import AppKey, Brand, KeyKind

    _, secret = AppKey.issue(
        brand=Brand.objects.get(slug="bench"), kind=KeyKind.SERVER, name="bench"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        south, west, north, east = world.HOMES[home]
        box = {"south": south, "height": north - south, "west": west, "width": east - west}
        script.write(_GATEWAY.format(devices=devices, secret=secret, **box))
        script.flush()
        printed = subprocess.run(
            [
                *("wrk", "-t1", "-c4", f"-d{seconds:.0f}s", "--timeout", "30s"),
                *("-s", script.name, f"http://{host}/"),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    assert found, printed
    assert "Non-2xx" not in printed, printed
    return _row(
        "P3",
        f"{case}: gateway, 10,000 devices a call",
        float(found[1]) * 10_000,
        "fixes/s",
        "goal",
        60_000,
    )


_GATEWAY = """
local ffi = require("ffi")
ffi.cdef[[typedef struct {{ long s; long us; }} timeval; int gettimeofday(timeval *, void *);]]
local now, at = ffi.new("timeval"), 0
local lats, lngs = {{}}, {{}}
for i = 1, {devices} do
  lats[i], lngs[i] = {south} + math.random() * {height}, {west} + math.random() * {width}
end
function request()
  ffi.C.gettimeofday(now, nil)
  local ms = tonumber(now.s) * 1000 + math.floor(tonumber(now.us) / 1000)
  local lines = {{}}
  for i = 1, 10000 do
    at = at % {devices} + 1
    lines[i] = string.format(
      '{{"device_id":%d,"lat":%.5f,"lng":%.5f,"recorded_at":%.0f}}',
      at, lats[at], lngs[at], ms)
    lats[at] = lats[at] + (math.random() - 0.5) * 0.004
    lngs[at] = lngs[at] + (math.random() - 0.5) * 0.004
  end
  return wrk.format("POST", "/v1/gateway/locations", {{
    ["Authorization"] = "Bearer {secret}", ["Content-Type"] = "application/x-ndjson"}},
    table.concat(lines, "\\n"))
end
"""


def _beside_tile38(
    case: str,
    shapes: list[dict[str, Any]],
    phones: list[tuple[str, float, float]],
    seconds: float,
    ours: list[Row],
) -> list[Row]:
    note = "Tile38 (no auth, no history, no visits, file flushed each second)"
    if tile38.find() is None:
        return [_row("P3", case, float("nan"), "fixes/s", "Tile38: missing (TILE38_SERVER)")]
    with tile38.server(shapes) as (port, loaded_s, kb):
        piped = tile38.pipelined(port, _moves(phones), seconds)
        web = tile38.over_http(port, _moves(phones), seconds)
    mine = {row["case"]: row["value"] for row in ours}
    return [
        _row("P3", f"{case}: 100 a POST", mine[f"{case}: 100 a POST"], "fixes/s", note, piped),
        _row(
            "P2",
            f"{case}: one fix a POST",
            mine[f"{case}: one fix a POST"],
            "fixes/s",
            "Tile38 over HTTP, 64 connections",
            web,
        ),
        _row("P8", f"{case}: Tile38 loads in", loaded_s, "s"),
        _row("P8", f"{case}: Tile38 memory a geofence", kb, "KB"),
    ]


if __name__ == "__main__":
    begun = time.monotonic()
    for each in run("--quick" in sys.argv):
        print(json.dumps(each))
    print(f"{time.monotonic() - begun:.0f} s")

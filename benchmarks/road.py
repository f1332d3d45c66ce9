"""P2 and P3: the road over real HTTP, as shipped, beside Tile38 on the same world and movements.

wrk and the project's own open-loop client are processes outside the server's; PostgreSQL, the
server and the load share the machine.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import populate, stage, tile38, wrk
from benchmarks.populate import Phone
from benchmarks.report import Row, row

DEVICES = 100_000
CASES = {
    "10k over a country": (10_000, "country"),
    "10k in one city": (10_000, "city"),
    "300k over a country": (300_000, "country"),
}
GOAL_SINGLE, GOAL_BULK, GOAL_GATEWAY = 10_000, 100_000, 60_000
GOAL_P99_MS = 50  # at half of GOAL_SINGLE, or of what was reached where that is less
ONE_BY_ONE, BULK = 512, 32  # connections
# A connection has one request under way: with too few, a late answer keeps others from being sent.
PHONES_AT_ONCE = 1_024
GATEWAY = "gateway, 10,000 devices a call"


def run(quick: bool) -> list[Row]:
    """P2 and P3 in each case, each beside Tile38."""
    seconds = 2.0 if quick else 12.0
    stage.make_database()
    rows: list[Row] = []
    for case in list(CASES)[:1] if quick else CASES:
        count, home = CASES[case]
        shapes = populate.geofences(count, home)
        phones = populate.devices(DEVICES // 5 if quick else DEVICES, home)
        ours = _ours(case, phones, seconds)
        rows += ours + _beside_tile38(case, shapes, phones, seconds, ours)
    return rows


def _ours(case: str, phones: Sequence[Phone], seconds: float) -> list[Row]:
    with wrk.listed(phones) as crowd, stage.web() as (host, _):
        secret = populate.server_key()
        one = singles(host, crowd, seconds, secret=secret)
        rate = max(500, int(min(one["rate"], GOAL_SINGLE) / 2))
        # Before the millions in bulk: what they leave to be vacuumed takes a core for a while.
        half = open_loop(host, phones, rate=rate, seconds=seconds)
        rates = with_bulk(one, host, crowd, seconds, secret=secret)
    late = half["p99_ms"]
    rows = [
        row("P2", f"{case}: one fix a POST", rates.one, "fixes/s", "goal", GOAL_SINGLE),
        row("P2", f"{case}: p99 at {rate:,} a second", late, "ms", "goal", GOAL_P99_MS),
        row("P3", f"{case}: 100 a POST", rates.many, "fixes/s", "goal", GOAL_BULK),
        row("P3", f"{case}: {GATEWAY}", rates.gateway, "fixes/s", "goal", GOAL_GATEWAY),
    ]
    if rates.refused:
        rows.append(row("P2", f"{case}: answers not 2xx", rates.refused, "answers"))
    return rows


class Rates(NamedTuple):
    """Fixes a second, and how many answers were not 2xx."""

    one: float
    many: float
    gateway: float
    refused: float


def singles(host: str, crowd: Path, seconds: float, *, secret: str) -> wrk.Seen:
    """One fix a POST, as after a while: all phones have been heard of, statistics are up to date.

    `secret` is a server key.
    """
    _hear_of_all(host, crowd, secret)
    populate.settle("devices_devicestate", "devices_presence", "devices_transition")
    seen = wrk.phones(host, crowd, each=1, seconds=seconds, connections=ONE_BY_ONE)
    stage.wait_until_idle()
    return seen


def with_bulk(
    one: wrk.Seen,
    host: str,
    crowd: Path,
    seconds: float,
    *,
    secret: str,
    calls: int = wrk.CALLS_AT_ONCE,
) -> Rates:
    """The singles' rate with those of 100 a POST and 10,000 devices a gateway call.

    Gateway calls at once should be of different devices, or they wait for each other's rows.
    """
    many = wrk.phones(host, crowd, each=100, seconds=seconds, connections=BULK)
    stage.wait_until_idle()
    gateway = wrk.gateway(host, crowd, secret=secret, each=10_000, seconds=seconds, calls=calls)
    stage.wait_until_idle()
    return Rates(
        one["rate"],
        many["rate"] * 100,
        gateway["rate"] * 10_000,
        one["bad"] + many["bad"] + gateway["bad"],
    )


def _hear_of_all(host: str, crowd: Path, secret: str) -> None:
    """A first fix of every phone of a crowd's file, through the gateway."""
    lines = crowd.read_text().splitlines()
    for start in range(0, len(lines), 10_000):
        body = "".join(
            '{{"device_id":{0},"lat":{2},"lng":{3},"recorded_at":{now}}}\n'.format(
                *line.split(), now=time.time_ns() // 1_000_000
            )
            for line in lines[start : start + 10_000]
        )
        request = urllib.request.Request(
            f"http://{host}/v1/gateway/locations",
            data=body.encode(),
            headers={
                "Authorization": f"Bearer {secret}",
                "Content-Type": "application/x-ndjson",
            },
        )
        with urllib.request.urlopen(request, timeout=60):  # noqa: S310 - ours
            pass


def open_loop(host: str, phones: Sequence[Phone], *, rate: int, seconds: float) -> dict[str, Any]:
    """What the open-loop client saw at this rate of single fixes."""
    orders = {
        "host": host,
        "rate": rate,
        "seconds": seconds,
        "connections": PHONES_AT_ONCE,
        "phones": phones,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.openloop"],
        input=json.dumps(orders),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=stage.ROOT,
        start_new_session=True,  # Linux shares processors among sessions: it waits for no server
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def moves(phones: Sequence[Phone]) -> Iterator[tuple[str, float, float]]:
    """The same phones, a few hundred metres on at each turn."""
    dice = np.random.default_rng(3)
    where = np.array([(phone.lat, phone.lng) for phone in phones])
    while True:
        where += dice.uniform(-0.002, 0.002, where.shape)
        for number, (lat, lng) in enumerate(where.tolist()):
            yield f"d{number}", lat, lng


def _beside_tile38(
    case: str,
    shapes: list[dict[str, Any]],
    phones: Sequence[Phone],
    seconds: float,
    ours: Sequence[Row],
) -> list[Row]:
    if tile38.find() is None:
        return [row("P3", case, math.nan, "fixes/s", "Tile38: missing (TILE38_SERVER)")]
    with tile38.server(shapes) as (port, loaded_s, kb):
        piped = tile38.pipelined(port, moves(phones), seconds)
        with wrk.listed(phones) as crowd:
            web = tile38.over_http(port, crowd, seconds)
    mine = {each["case"]: each["value"] for each in ours}
    one, many = f"{case}: one fix a POST", f"{case}: 100 a POST"
    less = "no auth, no history, no visits, file flushed each second"
    return [
        row("P2", one, mine[one], "fixes/s", f"Tile38 over HTTP ({less})", web),
        row("P3", many, mine[many], "fixes/s", f"Tile38 pipelined ({less})", piped),
        row("P8", f"{case}: Tile38 loads them in", loaded_s, "s"),
        row("P8", f"{case}: Tile38's memory a geofence", kb, "KB"),
    ]

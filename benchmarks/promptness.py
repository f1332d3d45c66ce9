"""P5: from a fix's appointed time to its push at the emulator, at 5,000 fixes a second.

The whole road in its own processes: web, evaluate, deliver, emulator. Fixes come through the
gateway, a hundred devices a call, at their appointed times whatever the server does; two of a
hundred walk into a geofence that a campaign waits for.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.request
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import shapely
import uvloop

from benchmarks import armed, populate, stage
from benchmarks.openloop import Book, connect, first_in_line
from benchmarks.push import emulator
from benchmarks.report import Row, row

GEOFENCES, HOME = 10_000, "country"
DEVICES, RATE, A_CALL = 50_000, 5_000, 100
ONE_ENTERS_IN = 50
GOAL_P50_MS, GOAL_P99_MS = 60, 250
AWAY_DEGREES = 0.012  # over 800 m from every middle's edge, and near enough to walk in at once
SETTLE_S = 10.0
CONNECTIONS = 64
REQUEST = (
    b"POST /v1/gateway/locations HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n"
    b"Content-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n%b"
)
WHEN = b'"when"'  # in the place of a fix's time, which is known when it is sent
FIX = b'{"device_id":%d,"lat":%.6f,"lng":%.6f,"recorded_at":%b}'


def run(quick: bool) -> list[Row]:
    """The median and the slowest hundredth."""
    seconds = 3 if quick else 20
    stage.make_database()
    populate.geofences(GEOFENCES, HOME, tracked=False)
    populate.devices(DEVICES, HOME)
    _campaign()
    secret = populate.server_key()
    with emulator(keep=RATE * seconds) as (url, google):
        told = {"FCM_EMULATOR_URL": url}
        with (
            stage.web(environment=told) as (host, _),
            stage.workers("evaluate", environment=told),
            stage.workers("deliver", environment=told),
        ):
            # Warm: connections, rules, templates.
            _arrived(url, uvloop.run(_send(host, secret, _calls(1))))
            calls = _calls(RATE // A_CALL * seconds, after=1)
            with first_in_line(os.getpid(), google):
                entered = uvloop.run(_send(host, secret, calls))
            pushed = _arrived(url, entered)
    late_ms = np.array([(pushed[who] - at) * 1_000 for who, at in entered.items() if who in pushed])
    case = f"fix to push at {RATE:,} fixes/s, {100 // ONE_ENTERS_IN} % enter"
    rows = [
        row("P5", f"{case}: p50", float(np.quantile(late_ms, 0.5)), "ms", "goal", GOAL_P50_MS),
        row("P5", f"{case}: p99", float(np.quantile(late_ms, 0.99)), "ms", "goal", GOAL_P99_MS),
    ]
    if missing := len(entered) - len(late_ms):
        rows.append(row("P5", f"{case}: not pushed within {SETTLE_S:.0f} s", missing, "pushes"))
    return rows


def _campaign() -> None:
    """One live campaign for whoever enters; nothing holds it back at any hour."""
    from campaigns import publishing

    brand = populate.brand()
    brand.quiet_hours, brand.caps = {}, []
    brand.save()
    raw = {
        "trigger": {"on": "entered", "tags": [populate.TAG]},
        "content": {"title": "Welcome", "body": "A coffee at {{ place.name }}?"},
    }
    campaign = publishing.create(brand=brand, name="Coffee", raw=raw, actor=None)
    publishing.publish(campaign, actor=None, now=datetime.now(UTC))


class Call(NamedTuple):
    """One request of the gateway, all but when its fixes were; and which of its devices enter."""

    body: bytes
    entering: list[int]


def _calls(count: int, *, after: int = 0) -> list[Call]:
    """A device enters once in all. Made ahead: sending must cost the machine next to nothing."""
    middles = shapely.get_coordinates(shapely.centroid(armed.shapes(GEOFENCES, HOME))).tolist()
    calls = []
    for call in range(after, after + count):
        lines, entering = [], []
        for place in range(A_CALL):
            number = call * A_CALL + place
            enters = number % ONE_ENTERS_IN == number // DEVICES % ONE_ENTERS_IN
            device = number % DEVICES
            lng, lat = middles[device % GEOFENCES]
            lat += 0 if enters else AWAY_DEGREES
            lines.append(FIX % (device + 1, lat, lng, WHEN))
            entering += [device + 1] if enters else []
        calls.append(Call(b"\n".join(lines), entering))
    return calls


async def _send(host: str, secret: str, calls: Sequence[Call]) -> dict[str, float]:
    """Each call at its time; when each device that entered was due, on the system's clock."""
    book = Book()
    lines = [await connect(host, book) for _ in range(CONNECTIONS)]
    due: dict[str, float] = {}
    begun, ahead_s = time.time() + 0.1, time.time() - time.perf_counter()
    for number, call in enumerate(calls):
        at = begun + number * A_CALL / RATE
        await asyncio.sleep(at - time.time())
        body = call.body.replace(WHEN, b"%d" % (at * 1000))
        line = lines[number % CONNECTIONS]
        line.send(REQUEST % (secret.encode(), len(body), body), at=at - ahead_s)
        due.update((f"token{device}", at) for device in call.entering)
    await book.wait_for(len(calls))
    if set(book.statuses) != {"200"}:
        raise RuntimeError(f"the gateway's answers: {book.statuses}")
    return due


def _arrived(url: str, wanted: Iterable[str]) -> dict[str, float]:
    """When each token's first push came to the emulator, once all wanted are there."""
    until = time.monotonic() + SETTLE_S
    while True:
        with urllib.request.urlopen(f"{url}/messages", timeout=10) as answer:  # noqa: S310 - ours
            seen: list[dict[str, Any]] = json.load(answer)["results"]
        first = {
            each["token"]: datetime.fromisoformat(each["received_at"]).timestamp()
            for each in seen  # newest first: the first push of a token stays
        }
        if first.keys() >= set(wanted) or time.monotonic() > until:
            return first
        time.sleep(0.2)

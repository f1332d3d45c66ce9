"""P4: 2,000 open sockets of phones, their acknowledged fixes and their memory, beside Tile38.

Both sides are asked by the same client, message by message; Tile38 over its raw protocol.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks import populate, stage, tile38
from benchmarks.populate import Phone
from benchmarks.report import Row, row

SOCKETS, PEER_CONNECTIONS = 2_000, 256
GOAL_PER_S, GOAL_KB = 12_000, 40
GEOFENCES, HOME = 10_000, "country"
BUNDLE = 10


def run(quick: bool) -> list[Row]:
    """Fixes a second and memory a socket."""
    seconds = 1.5 if quick else 12.0
    stage.make_database()
    shapes = populate.geofences(GEOFENCES, HOME)
    phones = populate.devices(SOCKETS, HOME)
    rows: list[Row] = []
    case = f"{SOCKETS:,} sockets"
    with stage.web() as (host, workers):
        before_kb = stage.memory_kb(*workers)
        with crowd(host, "stream", phones, seconds) as client:
            socket_kb = (stage.memory_kb(*workers) - before_kb) / SOCKETS
            alone = client()
        with crowd(host, "stream", phones, seconds, fixes=BUNDLE) as client:
            bundled = client()
    rows += [
        row("P4", f"{case}: one fix a frame", alone["rate"], "fixes/s", "goal", GOAL_PER_S),
        row("P4", f"{case}: {BUNDLE} a frame", bundled["rate"], "fixes/s", "goal", GOAL_PER_S),
        row("P4", f"{case}: memory a socket", socket_kb, "KB", "goal", GOAL_KB),
    ]
    if refused := alone["refused"] + bundled["refused"]:
        rows.append(row("P4", f"{case}: frames not acknowledged in full", refused, "frames"))
    return [*rows, _beside_tile38(shapes, phones, seconds, alone["rate"])]


def _beside_tile38(
    shapes: list[dict[str, Any]], phones: Sequence[Phone], seconds: float, ours: float
) -> Row:
    case = f"{SOCKETS:,} sockets: one fix a frame"
    if tile38.find() is None:
        return row("P4", case, math.nan, "fixes/s", "Tile38: missing (TILE38_SERVER)")
    with (
        tile38.server(shapes) as (port, _, _),
        crowd(f"127.0.0.1:{port}", "raw", phones[:PEER_CONNECTIONS], seconds) as client,
    ):
        theirs = client()["rate"]
    note = f"Tile38, raw, {PEER_CONNECTIONS} connections (no auth, no history, flushed each second)"
    return row("P4", case, ours, "fixes/s", note, theirs)


@contextmanager
def crowd(
    host: str, kind: str, phones: Sequence[Phone], seconds: float, *, fixes: int = 1
) -> Iterator[Any]:
    """All connections open; call what it yields to let them talk, and to hear the count."""
    name, port = host.split(":")
    orders = {
        "host": name,
        "port": int(port),
        "kind": kind,
        "seconds": seconds,
        "fixes": fixes,
        "phones": phones,
    }
    client = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.lockstep"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=stage.ROOT,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    stdin, stdout = client.stdin, client.stdout

    def talk() -> dict[str, float]:
        stdin.write("go\n")
        stdin.flush()
        counted: dict[str, float] = json.loads(stdout.readline())
        return counted

    try:
        stdin.write(json.dumps(orders) + "\n")
        stdin.flush()
        if stdout.readline().strip() != "open":
            raise RuntimeError("the connections were not opened")
        yield talk
    finally:
        client.kill()
        client.wait()

"""Tile38 beside us: the same geofences as fence channels, the same movements as SETs.

It does less per fix: no authentication, no history, no visits, no dwell, and it flushes its file
once a second instead of before the answer. Found by TILE38_SERVER or on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import wrk
from benchmarks.stage import free_port, memory_kb

PIPELINE = 1_000


def find() -> str | None:
    """The server's path, or None where there is none."""
    return os.environ.get("TILE38_SERVER") or shutil.which("tile38-server")


def command(*words: str) -> bytes:
    """One command in RESP."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        raw = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


class Client:
    """A connection that pipelines."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb")

    def send(self, commands: Sequence[bytes]) -> None:
        """Send all, then read one reply line each (SET and SETCHAN answer in one line)."""
        self._socket.sendall(b"".join(commands))
        for _ in commands:
            reply = self._replies.readline()
            if reply.startswith(b"-"):
                raise RuntimeError(reply.decode())

    def close(self) -> None:
        self._socket.close()


@contextmanager
def server(geofences: Iterable[dict[str, Any]]) -> Iterator[tuple[int, float, float]]:
    """A Tile38 that watches these GeoJSON geometries: its port, seconds to load, KB a geofence."""
    path = find()
    assert path is not None
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [path, "-h", "127.0.0.1", "-p", str(port), "-d", folder, "-q"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(port)
            before_kb, begun, count = memory_kb(process.pid), time.perf_counter(), 0
            client, batch = Client(port), []
            for count, geometry in enumerate(geofences, start=1):
                batch.append(
                    command(
                        *("SETCHAN", f"g{count}", "WITHIN", "fleet", "FENCE"),
                        *("DETECT", "enter,exit", "OBJECT", json.dumps(geometry)),
                    )
                )
                if len(batch) == PIPELINE:
                    client.send(batch)
                    batch = []
            client.send(batch)
            client.close()
            took_s = time.perf_counter() - begun
            yield port, took_s, (memory_kb(process.pid) - before_kb) / max(count, 1)
        finally:
            process.terminate()
            process.wait(20)


def _wait(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            Client(port).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("tile38-server does not answer")


def pipelined(port: int, moves: Iterator[tuple[str, float, float]], seconds: float) -> float:
    """Fixes a second over one connection, by the thousand."""
    client, sent, begun = Client(port), 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        batch = [
            command("SET", "fleet", who, "POINT", f"{lat:.6f}", f"{lng:.6f}")
            for who, lat, lng in (next(moves) for _ in range(PIPELINE))
        ]
        client.send(batch)
        sent += PIPELINE
    rate = sent / (time.perf_counter() - begun)
    client.close()
    return rate


_WALK = """
function request()
  at = at % n + 1
  walk(at)
  return wrk.format("GET",
    string.format("/SET+fleet+d%d+POINT+%.6f+%.6f", at, lats[at], lngs[at]))
end
"""


def over_http(port: int, crowd: Path, seconds: float) -> float:
    """Fixes a second through its HTTP door, 64 connections: the same walks as ours."""
    script = wrk.crowd(crowd) + _WALK
    return wrk.run(f"127.0.0.1:{port}", script, seconds, 64)["rate"]

"""An open-loop HTTP client: requests leave at their appointed time, whatever the server does.

Latency counts from the appointed time, so a server that stalls cannot hide it (no coordinated
omission). A process of its own: `python -m benchmarks.openloop` reads its orders from stdin, as
JSON, and prints what it saw.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvloop

REQUEST = (
    b"POST /v1/locations HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
)
SETTLE_S = 5.0
WRITTEN_IN_S = 20e-6  # a request, amply: they are ready when the first one leaves


class Line(asyncio.Protocol):
    """One connection: requests in flight in order, answers matched by order."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._due: deque[float] = deque()
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, request: bytes, *, at: float) -> None:
        """Send what was due `at` this instant of `time.perf_counter`."""
        self._book.late_s.append(time.perf_counter() - at)
        self._due.append(at)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        while data:
            size, status = self._book.known.get(data) or _read(data)
            if not size:
                break
            if size == len(data):
                self._book.known[data] = size, status
            self._book.note(status, time.perf_counter() - self._due.popleft())
            data = data[size:]
        self._rest = data


def _read(data: bytes) -> tuple[int, str]:
    """How long the first answer is, 0 where it is not all there, and its status."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0, ""
    head = data[:end].lower()
    at = head.find(b"content-length:")
    size = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
    return (size, head[9:12].decode()) if size <= len(data) else (0, "")


class Book:
    """What was sent and what came back."""

    def __init__(self) -> None:
        self.late_s: list[float] = []  # behind the appointed time when it left: our own doing
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        # Answers of one second are mostly the same bytes: their sizes and statuses.
        self.known: dict[bytes, tuple[int, str]] = {}

    def note(self, status: str, latency_s: float) -> None:
        self.latencies.append(latency_s)
        self.statuses[status] += 1

    async def wait_for(self, answers: int) -> None:
        """Until all have come, or nothing more is to be hoped for."""
        settled = time.perf_counter() + SETTLE_S
        while len(self.latencies) < answers and time.perf_counter() < settled:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def connect(host: str, book: Book) -> Line:
    """A connection to `name:port`."""
    name, port = host.split(":")
    loop = asyncio.get_running_loop()
    _, line = await loop.create_connection(lambda: Line(book), name, int(port))
    return line


@contextmanager
def first_in_line(*processes: int) -> Iterator[None]:
    """Let what stands for other machines run when it wants to, where the system allows that.

    On one machine with the server, a client that waits for a processor reports its own wait as the
    server's.
    """
    _give_way(processes, -10)
    try:
        yield
    finally:
        _give_way(processes, 0)


def _give_way(processes: Iterable[int], nice: int) -> None:
    for process in processes:
        with suppress(OSError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)


def _requests(phones: Sequence[Any], count: int, *, rate: int, start_ms: int) -> Iterator[bytes]:
    """Written before the first one leaves, with the time at which each will."""
    dice = random.Random(1)
    for number in range(count):
        _, token, lat, lng = phones[number % len(phones)]
        fix = b'{"lat":%.6f,"lng":%.6f,"recorded_at":%d,"accuracy_m":8}' % (
            lat + dice.uniform(-0.003, 0.003),
            lng + dice.uniform(-0.003, 0.003),
            start_ms + number * 1000 // rate,
        )
        yield REQUEST % (token.encode(), len(fix), fix)


async def drive(
    *, host: str, rate: int, seconds: float, connections: int, phones: list[Any]
) -> dict[str, Any]:
    """Send `rate` single fixes a second; each phone walks on a little at each turn."""
    book, total = Book(), int(rate * seconds)
    lines = [await connect(host, book) for _ in range(connections)]
    start_ms = time.time_ns() // 1_000_000 + int(total * WRITTEN_IN_S * 1000)
    requests = list(_requests(phones, total, rate=rate, start_ms=start_ms))
    await asyncio.sleep(max(0.0, start_ms / 1000 - time.time()))
    begun, sent = time.perf_counter(), 0
    while sent < total:
        due = min(total, int((time.perf_counter() - begun) * rate) + 1)
        while sent < due:
            lines[sent % connections].send(requests[sent], at=begun + sent / rate)
            sent += 1
        await asyncio.sleep(0.001)
    await book.wait_for(total)
    ranked, late = sorted(book.latencies), sorted(book.late_s)
    return {
        "sent": total,
        "answered": len(ranked),
        "statuses": book.statuses,
        "p50_ms": 1000 * ranked[len(ranked) // 2],
        "p99_ms": 1000 * ranked[int(len(ranked) * 0.99)],
        "max_ms": 1000 * ranked[-1],
        "sent_late_p99_ms": 1000 * late[int(len(late) * 0.99)],
    }


if __name__ == "__main__":
    gc.disable()
    with first_in_line(os.getpid()):
        print(json.dumps(uvloop.run(drive(**json.load(sys.stdin)))))

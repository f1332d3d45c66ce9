"""An open-loop HTTP client: requests leave at their appointed time, whatever the server does.

Latency counts from the appointed time, so a server that stalls cannot hide it (no coordinated
omission). A process of its own: `python -m benchmarks.openloop` reads its orders from stdin, as
JSON, and prints what it saw.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections import deque
from typing import Any

import uvloop

REQUEST = (
    b"POST /v1/locations HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
)
SETTLE_S = 5.0


class Line(asyncio.Protocol):
    """One connection: requests in flight in order, answers matched by order."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self.sent: deque[float] = deque()
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            head = data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(data) < end + 4 + length:
                break
            self._book.note(head[9:12], time.perf_counter() - self.sent.popleft())
            data = data[end + 4 + length :]
        self._rest = data


class Book:
    """What came back."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.statuses: dict[str, int] = {}

    def note(self, status: bytes, latency_s: float) -> None:
        self.latencies.append(latency_s)
        key = status.decode()
        self.statuses[key] = self.statuses.get(key, 0) + 1


async def drive(
    *, host: str, port: int, rate: int, seconds: float, connections: int, phones: list[Any]
) -> dict[str, Any]:
    """Send `rate` single fixes a second; each phone walks on a little at each turn."""
    loop = asyncio.get_running_loop()
    book = Book()
    lines: list[Line] = []
    for _ in range(connections):
        _, line = await loop.create_connection(lambda: Line(book), host, port)
        lines.append(line)
    total, begun, dice = int(rate * seconds), time.perf_counter() + 0.1, random.Random(1)
    sent = 0
    while sent < total:
        due = min(total, int((time.perf_counter() - begun) * rate) + 1)
        while sent < due:
            _, token, lat, lng = phones[sent % len(phones)]
            fix = b'{"lat":%.6f,"lng":%.6f,"recorded_at":%d,"accuracy_m":8}' % (
                lat + dice.uniform(-0.003, 0.003),
                lng + dice.uniform(-0.003, 0.003),
                time.time_ns() // 1_000_000,
            )
            line = lines[sent % connections]
            line.sent.append(begun + sent / rate)
            line.transport.write(REQUEST % (token.encode(), len(fix), fix))
            sent += 1
        await asyncio.sleep(0.001)
    settled = time.perf_counter() + SETTLE_S
    while len(book.latencies) < total and time.perf_counter() < settled:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    ranked = sorted(book.latencies)
    return {
        "sent": total,
        "answered": len(ranked),
        "statuses": book.statuses,
        "p50_ms": 1000 * ranked[len(ranked) // 2],
        "p99_ms": 1000 * ranked[int(len(ranked) * 0.99)],
        "max_ms": 1000 * ranked[-1],
    }


if __name__ == "__main__":
    gc.disable()
    print(json.dumps(uvloop.run(drive(**json.load(sys.stdin)))))

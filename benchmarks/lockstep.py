"""A crowd of open connections: each sends one message, waits for its answer, sends the next.

Speaks Nearcast's WebSocket stream and Tile38's raw protocol with the same loop, so that neither
has the cheaper client. A process of its own: `python -m benchmarks.lockstep` reads its orders from
stdin, as JSON, says "open" on stdout once all connections stand, begins when told to go on stdin,
and prints what it counted.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from base64 import b64encode
from functools import partial
from typing import Any

import uvloop

AT_ONCE = 50  # handshakes under way
TEXT, PING, PONG = 0x81, 0x89, 0x8A
_HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\nAuthorization: Bearer %b\r\n\r\n"
)


class Tally:
    """What all connections have counted; nobody sends once it is over."""

    def __init__(self, fixes: int) -> None:
        self.fixes, self.answered, self.refused, self.is_over = fixes, 0, 0, False


class Line(asyncio.Protocol):
    """One connection of one phone that walks up to some 200 m between messages."""

    def __init__(self, tally: Tally, number: int, phone: list[Any]) -> None:
        self.tally, self.number = tally, number
        _, self.token, self.lat, self.lng = phone
        self.rest = b""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(error or ConnectionError("closed"))

    def walk(self) -> tuple[float, float]:
        self.lat += random.uniform(-0.002, 0.002)
        self.lng += random.uniform(-0.002, 0.002)
        return self.lat, self.lng

    def ask(self) -> None:
        """Send the next message."""
        raise NotImplementedError

    def answered(self, good: bool) -> None:
        if self.tally.is_over:
            return
        self.tally.answered += good
        self.tally.refused += not good
        self.ask()


class StreamLine(Line):
    """Nearcast's socket; frames are masked with a key of zeros, which changes nothing."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        key = b64encode(os.urandom(16))
        transport.write(_HANDSHAKE % (key, self.token.encode()))

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        if not self.ready.done():
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.rest = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self.ready.set_exception(ConnectionError(data[:80].decode()))
                return
            self.ready.set_result(None)
            data = data[end + 4 :]
        while len(data) >= 2:
            length, start = data[1] & 0x7F, 2
            if length == 126:
                length, start = int.from_bytes(data[2:4], "big"), 4
            if len(data) < start + length:
                break
            payload = data[start : start + length]
            if data[0] == PING:
                self.send(PONG, payload)
            elif payload.startswith(b'{"type":"ack"'):
                self.answered(b'"accepted":%d,' % self.tally.fixes in payload)
            elif payload.startswith(b'{"type":"error"'):
                self.answered(False)
            data = data[start + length :]
        self.rest = data

    def send(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        head = (
            bytes((kind, 0x80 | size))
            if size < 126
            else b"%c\xfe%b"
            % (
                kind,
                size.to_bytes(2, "big"),
            )
        )
        self.transport.write(head + b"\0\0\0\0" + payload)

    def ask(self) -> None:
        now_ms, count = time.time_ns() // 1_000_000, self.tally.fixes
        fixes = [
            b'{"lat":%.6f,"lng":%.6f,"recorded_at":%d,"accuracy_m":8}'
            % (*self.walk(), now_ms - (count - number) * 10)
            for number in range(1, count + 1)
        ]
        self.send(TEXT, b'{"type":"locations","seq":1,"locations":[%b]}' % b",".join(fixes))


class RespLine(Line):
    """Tile38's raw protocol, unpipelined."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.ready.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.answered(data[:1] == b"+")

    def ask(self) -> None:
        who = b"d%d" % self.number
        lat, lng = (b"%.6f" % value for value in self.walk())
        self.transport.write(
            b"*6\r\n$3\r\nSET\r\n$5\r\nfleet\r\n$%d\r\n%b\r\n$5\r\nPOINT\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
            % (len(who), who, len(lat), lat, len(lng), lng)
        )


async def drive(
    *, host: str, port: int, kind: str, seconds: float, fixes: int, phones: list[Any]
) -> None:
    """Open a connection for each phone, say so, wait for the word, count for so long."""
    loop = asyncio.get_running_loop()
    tally, lines = Tally(fixes), []
    make = StreamLine if kind == "stream" else RespLine
    for start in range(0, len(phones), AT_ONCE):
        opened = await asyncio.gather(
            *(
                loop.create_connection(partial(make, tally, number, phone), host, port)
                for number, phone in enumerate(phones[start : start + AT_ONCE], start)
            )
        )
        lines += [line for _, line in opened]
        await asyncio.gather(*(line.ready for _, line in opened))
    print("open", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for line in lines:
        line.ask()
    await asyncio.sleep(min(2.0, seconds / 2))  # under way before the count begins
    before, begun = tally.answered, time.perf_counter()
    await asyncio.sleep(seconds)
    counted = tally.answered - before
    rate = counted * fixes / (time.perf_counter() - begun)
    tally.is_over = True
    print(json.dumps({"rate": rate, "refused": tally.refused}), flush=True)


if __name__ == "__main__":
    gc.disable()
    orders = json.loads(sys.stdin.readline())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(drive(**orders))

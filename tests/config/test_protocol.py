"""HTTP/1.1 as it is served: the short way to a door, the long way, and what neither waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from config.protocol import MAX_HEAD_BYTES, Protocol, Sockets
from devices.doors.answers import ALL_ACCEPTED
from devices.doors.door import INLINE_BYTES, Headers
from devices.doors.http import Reply
from devices.doors.sockets import _refuse

BODY = b'{"lat": 1}'
Parts = tuple[bytes, bytes]  # head lines and body of an answer
Open = Callable[[], Awaitable["Line"]]


class Door:
    """Takes everything; who waits is answered when the test says so, or at once."""

    def __init__(self) -> None:
        self.taken: list[tuple[Headers, bytes]] = []
        self.owed: list[Reply] = []
        self.is_slow = False
        self.was_taken = asyncio.Event()

    def take(self, headers: Headers, body: bytes, reply: Reply) -> None:
        self.taken.append((headers, body))
        self.was_taken.set()
        if self.is_slow:
            self.owed.append(reply)
        else:
            reply(ALL_ACCEPTED[len(self.taken)])


class Server:
    """The protocol in front of one door and of an application that says what it was asked."""

    def __init__(self) -> None:
        self.door = Door()
        self.doors_of_devices = {b"/v1/locations": self.door}
        self.long_way: list[bytes] = []
        config = Config(
            self,
            http=Protocol,
            ws=Sockets,
            interface="asgi3",
            proxy_headers=False,
            log_level="error",
        )
        config.load()
        self.config, self.state = config, ServerState()
        self.state.default_headers = [(b"date", b"today")]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await _refuse(scope, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        self.long_way.append(body)
        said = f"{scope['method']} {scope['path']}".encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", str(len(said)).encode())],
            }
        )
        await send({"type": "http.response.body", "body": said})

    def protocol(self) -> Protocol:
        return Protocol(self.config, self.state, {})

    @property
    def connections(self) -> set[Protocol]:
        return cast(set[Protocol], self.state.connections)


class Line:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear(self) -> Parts:
        """One answer, by its length."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return head, await self.reader.readexactly(length)

    async def ask(self, data: bytes) -> Parts:
        self.say(data)
        return await self.hear()

    async def read_by(self, server: Server, count: int) -> None:
        """Until the only connection has read so many bytes more of one request."""
        (protocol,) = server.connections
        await until(lambda: protocol._head_bytes >= count)

    async def rest(self) -> bytes:
        """Whatever comes until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 10)


def post(body: bytes = BODY, *lines: bytes, path: bytes = b"/v1/locations") -> bytes:
    head = (b"POST %b HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % len(body), *lines)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Open]:
    listening = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0)
    opened: list[Line] = []

    async def connect() -> Line:
        host, port = listening.sockets[0].getsockname()
        opened.append(Line(*await asyncio.open_connection(host, port)))
        return opened[-1]

    yield connect
    for line in opened:
        line.writer.close()
    listening.close()


async def test_it_hands_a_whole_request_to_its_door(server: Server, connect: Open) -> None:
    line = await connect()
    head, body = await line.ask(
        post(BODY, b"Authorization: Bearer x", b"Content-Type: application/json")
    )
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\ndate: today\r\n" in head
    assert b"content-type: application/json" in head
    assert body == b'{"accepted":1,"rejected":[]}'
    ((headers, taken),) = server.door.taken
    assert (headers.authorization, headers.content_type) == (b"Bearer x", b"application/json")
    assert taken == BODY
    assert server.long_way == []
    assert (await line.ask(post()))[1] == b'{"accepted":2,"rejected":[]}', "on the same connection"


@pytest.mark.parametrize("cut", range(1, len(post()), 7))
async def test_it_takes_the_long_way_with_what_comes_in_pieces(
    server: Server, connect: Open, cut: int
) -> None:
    """Wherever the second piece begins after the head; within it, the door sees the whole."""
    whole = post()
    line = await connect()
    line.say(whole[:cut])
    await line.read_by(server, cut)
    _, body = await line.ask(whole[cut:])
    if cut < whole.index(b"\r\n\r\n") + 4:
        assert [taken for _, taken in server.door.taken] == [BODY]
    else:
        assert (server.door.taken, server.long_way) == ([], [BODY])
        assert body == b"POST /v1/locations"


@pytest.mark.parametrize(
    "request_",
    [
        post(b""),
        post(b"x" * (INLINE_BYTES + 1)),
        post(BODY, b"Content-Encoding: gzip"),
        post(path=b"/v1/locations?a=b"),
        post(path=b"/v1/devices"),
        post(path=b"/v1/%6cocations"),
        post().replace(b"POST", b"PUT"),
        post().replace(b"HTTP/1.1", b"HTTP/1.0"),
        post()
        .replace(b"Content-Length: 10", b"Transfer-Encoding: chunked")
        .replace(BODY, b"a\r\n" + BODY + b"\r\n0\r\n\r\n"),
        b"GET /v1/locations HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda request: str(request[:40]),
)
async def test_it_takes_the_long_way_with_whatever_is_otherwise(
    server: Server, connect: Open, request_: bytes
) -> None:
    line = await connect()
    head, _ = await line.ask(request_)
    assert head.startswith(b"HTTP/1.1 200")
    assert server.door.taken == []
    assert server.long_way[0] in {b"", BODY, b"x" * (INLINE_BYTES + 1)}


@pytest.mark.parametrize("to", [b"websocket", b"h2c"])
async def test_it_answers_a_post_that_offers_another_protocol(
    server: Server, connect: Open, to: bytes
) -> None:
    """As Java's client does with its first request: it may go on in HTTP/1.1."""
    line = await connect()
    offer = post(BODY, b"Connection: Upgrade", b"Upgrade: " + to)
    assert (await line.ask(offer))[1] == b'{"accepted":1,"rejected":[]}'
    line.say(offer[:-4])
    await line.read_by(server, len(offer) - 4)
    assert (await line.ask(offer[-4:] + post()))[1] == b"POST /v1/locations"
    assert (await line.hear())[1] == b"POST /v1/locations"
    assert [taken for _, taken in server.door.taken] == [BODY]
    assert server.long_way == [BODY, BODY]


async def test_it_asks_for_the_body_that_a_client_holds_back(server: Server, connect: Open) -> None:
    line = await connect()
    line.say(post(BODY, b"Expect: 100-continue").removesuffix(BODY))
    assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await line.ask(BODY)
    assert server.long_way == [BODY]


async def test_it_answers_in_the_order_of_the_requests(server: Server, connect: Open) -> None:
    server.door.is_slow = True
    line = await connect()
    other = b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n"
    line.say(post() + other + post(b'{"lat": 2}'))
    await asyncio.wait_for(server.door.was_taken.wait(), 10)
    assert server.long_way == [], "nothing before the first is answered"
    server.door.owed[0](ALL_ACCEPTED[7])
    assert (await line.hear())[1] == b'{"accepted":7,"rejected":[]}'
    assert (await line.hear())[1] == b"GET /other"
    assert (await line.hear())[1] == b"POST /v1/locations"
    assert server.long_way == [b"", b'{"lat": 2}']
    server.door.is_slow = False
    assert (await line.ask(post()))[1] == b'{"accepted":2,"rejected":[]}', "and goes on"


async def test_it_closes_after_the_answer_where_the_client_says_so(
    server: Server, connect: Open
) -> None:
    line = await connect()
    head, _ = await line.ask(post(BODY, b"Connection: close"))
    assert b"\r\nconnection: close\r\n" in head
    assert await line.rest() == b""
    assert len(server.door.taken) == 1


async def test_it_answers_what_it_owes_when_the_server_ends(server: Server, connect: Open) -> None:
    server.door.is_slow = True
    line, idle = await connect(), await connect()
    line.say(post())
    await asyncio.wait_for(server.door.was_taken.wait(), 10)
    await until(lambda: len(server.connections) == 2)
    for protocol in list(server.connections):
        protocol.shutdown()
    assert await idle.rest() == b""
    server.door.owed[0](ALL_ACCEPTED[1])
    head, body = await line.hear()
    assert b"\r\nconnection: close\r\n" in head
    assert body == b'{"accepted":1,"rejected":[]}'
    assert await line.rest() == b""


async def test_it_bears_a_client_that_is_gone_before_its_answer(
    server: Server, connect: Open
) -> None:
    server.door.is_slow = True
    line = await connect()
    line.say(post())
    await asyncio.wait_for(server.door.was_taken.wait(), 10)
    line.writer.transport.abort()
    await until(lambda: not server.connections)
    server.door.owed[0](ALL_ACCEPTED[1])
    server.door.is_slow = False
    assert (await (await connect()).ask(post()))[1] == b'{"accepted":2,"rejected":[]}'


async def test_it_waits_for_whoever_does_not_listen(server: Server, connect: Open) -> None:
    """Answers that nobody reads must not pile up: uvicorn's way waits until they are taken."""
    line = await connect()
    await line.ask(post())
    (protocol,) = server.connections
    protocol.flow.pause_writing()
    line.say(post())
    await until(lambda: bool(server.long_way))
    assert len(server.door.taken) == 1
    protocol.flow.resume_writing()
    assert (await line.hear())[1] == b"POST /v1/locations"


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"POST\r\n\r\n", b"G\xff /x HTTP/1.1\r\n\r\n"],
)
async def test_it_refuses_what_is_no_http(server: Server, connect: Open, garbage: bytes) -> None:
    line = await connect()
    said = await line.ask(garbage)
    assert said[0].startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert said[1] == b'{"code":"not_http","message":"This is no HTTP/1.1 request.","fields":{}}'
    assert await line.rest() == b""
    assert not server.long_way
    assert not server.door.taken


async def test_it_calls_a_fault_of_ours_by_its_name(
    server: Server,
    connect: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(server.door, "take", broken)
    head, _ = await (await connect()).ask(post())
    assert head.startswith(b"HTTP/1.1 500 ")
    assert "a fault" in caplog.text


@pytest.mark.parametrize("length", [b"-1", b"1, 2", b"0x5", b"1\r\nContent-Length: 2"])
async def test_it_refuses_a_length_that_is_none(
    server: Server, connect: Open, length: bytes
) -> None:
    line = await connect()
    head, _ = await line.ask(post().replace(b"Content-Length: 10", b"Content-Length: " + length))
    assert head.startswith(b"HTTP/1.1 400 ")
    assert not server.long_way
    assert not server.door.taken


async def test_it_refuses_a_head_without_end(connect: Open) -> None:
    line = await connect()
    line.say(b"GET / HTTP/1.1\r\n")
    for number in range(MAX_HEAD_BYTES // 1000 + 1):
        line.say(b"X-%d: " % number + b"x" * 1000 + b"\r\n")
    head, body = await line.hear()
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b'"too_large"' in body


async def test_it_lets_a_large_body_pass(server: Server, connect: Open) -> None:
    body = b"x" * (4 * MAX_HEAD_BYTES)
    line = await connect()
    await line.ask(post(body))
    assert server.long_way == [body]


async def test_it_closes_a_connection_that_stays_silent(
    server: Server, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Protocol, "quiet_s", 0.2)
    silent, used = await connect(), await connect()
    await used.ask(post())
    assert await silent.rest() == b""
    assert await used.rest() == b""
    assert not server.connections


async def test_it_answers_a_head_that_never_ends_with_408(
    connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Protocol, "quiet_s", 0.2)
    line = await connect()
    line.say(b"POST /v1/locations HTTP/1.1\r\nHost: x\r\n")
    head, body = await line.hear()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b'"timeout"' in body
    assert await line.rest() == b""


async def test_it_never_hurries_a_door(
    server: Server, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Protocol, "quiet_s", 0.05)
    looked: list[bool] = []
    look = Protocol._look

    def counted(self: Protocol) -> None:
        looked.append(True)
        look(self)

    monkeypatch.setattr(Protocol, "_look", counted)
    server.door.is_slow = True
    line = await connect()
    line.say(post())
    await until(lambda: len(looked) >= 3)
    server.door.owed[0](ALL_ACCEPTED[1])
    assert (await line.hear())[1] == b'{"accepted":1,"rejected":[]}'


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.005)


async def test_a_socket_refused_in_words_is_no_error(
    connect: Open, caplog: pytest.LogCaptureFixture
) -> None:
    line = await connect()
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    head, body = await line.ask(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n" + upgrade + key)
    assert head.startswith(b"HTTP/1.1 401")
    assert b'"code"' in body
    assert await line.rest() == b""
    assert not caplog.records

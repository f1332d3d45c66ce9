"""The HTTP/2 client against a server that misbehaves on demand."""

from __future__ import annotations

import asyncio
import fcntl
import termios
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from notifications import http2
from notifications.http2 import Http2Client, Http2Error, Reply, Unprocessed


class Server:
    """Collects whole requests and lets a test answer them as it likes."""

    def __init__(self, settings: dict[SettingCodes, int]) -> None:
        self.settings = settings
        self.requests: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.connections = 0
        self.open = self.peak = 0
        self.cancelled: list[int] = []
        self.writer: asyncio.StreamWriter | None = None
        self.h2 = H2Connection()
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.tasks.append(task)
        self.connections += 1
        self.writer = writer
        self.h2 = h2 = H2Connection(H2Configuration(client_side=False))
        h2.local_settings = Settings(client=False, initial_values=self.settings)
        h2.initiate_connection()
        bodies: dict[int, bytes] = {}
        self.flush()
        while data := await reader.read(65_536):
            for event in h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    bodies[event.stream_id] = b""
                    self.open += 1
                    self.peak = max(self.peak, self.open)
                elif isinstance(event, DataReceived):
                    bodies[event.stream_id] += event.data
                    h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    self.requests.put_nowait((event.stream_id, bodies[event.stream_id]))
                elif isinstance(event, StreamReset):
                    self.cancelled.append(event.stream_id)
            self.flush()
        writer.close()

    def answer(self, stream_id: int, body: bytes = b"{}") -> None:
        self.open -= 1
        self.h2.send_headers(stream_id, [(":status", "200"), ("x-kind", "test")])
        self.h2.send_data(stream_id, body, end_stream=True)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        self.open -= 1
        self.h2.reset_stream(stream_id, code)

    def goaway(self, last_stream_id: int) -> None:
        """Say GOAWAY without ending our own side, as a server does that drains."""
        self.flush()
        assert self.writer
        self.writer.write(GoAwayFrame(last_stream_id=last_stream_id).serialize())

    def flush(self) -> None:
        assert self.writer
        self.writer.write(self.h2.data_to_send())

    def hang_up(self) -> None:
        assert self.writer
        self.writer.close()


@asynccontextmanager
async def talking(
    settings: dict[SettingCodes, int] | None = None,
) -> AsyncIterator[tuple[Server, Callable[..., asyncio.Future[Reply]]]]:
    """A server, and a way to post to it."""
    server = Server(settings or {})
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = Http2Client(f"http://127.0.0.1:{port}")

    def post(body: bytes = b"hello", timeout_s: float = 60) -> asyncio.Future[Reply]:
        return asyncio.ensure_future(
            client.post("/path", [("content-length", str(len(body)))], body, timeout_s=timeout_s)
        )

    try:
        yield server, post
    finally:
        await client.close()
        await asyncio.gather(*server.tasks)
        listening.close()
        await listening.wait_closed()


async def test_it_brings_back_status_headers_and_body() -> None:
    async with talking() as (server, post):
        reply = post(b"hello")
        stream_id, body = await server.requests.get()
        server.answer(stream_id, b'{"name": "1"}')
        server.flush()

        assert body == b"hello"
        assert await reply == Reply(status=200, headers={"x-kind": "test"}, body=b'{"name": "1"}')


async def test_it_has_many_requests_in_the_air_on_one_connection() -> None:
    async with talking() as (server, post):
        replies = [post(str(number).encode()) for number in range(50)]
        for stream_id, body in [await server.requests.get() for _ in replies]:
            server.answer(stream_id, body)
        server.flush()

        assert [(await reply).body for reply in replies] == [
            str(number).encode() for number in range(50)
        ]
        assert server.connections == 1


@pytest.mark.parametrize(("unsent_for_s", "leaves"), [(0.0, True), (60.0, False)])
async def test_it_sends_the_first_while_more_are_made_unless_that_is_soon_over(
    monkeypatch: pytest.MonkeyPatch, unsent_for_s: float, leaves: bool
) -> None:
    monkeypatch.setattr(http2, "UNSENT_FOR_S", unsent_for_s)
    async with talking() as (server, post):
        first = post()
        server.answer((await server.requests.get())[0])
        server.flush()
        await first
        more = [post(), post()]
        arrived = await asyncio.ensure_future(bytes_arrived(server))  # in the same turn of the loop
        for _ in more:
            server.answer((await server.requests.get())[0])
        server.flush()
        await asyncio.gather(*more)

    assert bool(arrived) == leaves


async def bytes_arrived(server: Server) -> int:
    """How many the server has not read yet."""
    assert server.writer
    unread = array("i", [0])
    fcntl.ioctl(server.writer.get_extra_info("socket").fileno(), termios.FIONREAD, unread)
    return unread[0]


async def test_it_never_opens_more_streams_than_the_peer_allows() -> None:
    async with talking({SettingCodes.MAX_CONCURRENT_STREAMS: 3}) as (server, post):
        first = post()
        server.answer((await server.requests.get())[0])  # the settings have arrived with this one
        server.flush()
        await first
        server.peak = 0
        replies = [post() for _ in range(20)]
        for _ in replies:
            server.answer((await server.requests.get())[0])
            server.flush()

        assert {(await reply).status for reply in replies} == {200}
        assert server.peak <= 3


async def test_it_sends_a_body_larger_than_the_peers_window() -> None:
    async with talking({SettingCodes.INITIAL_WINDOW_SIZE: 1_000}) as (server, post):
        first = post()
        server.answer((await server.requests.get())[0])
        server.flush()
        await first
        body = bytes(range(256)) * 1_000
        reply = post(body)
        stream_id, received = await server.requests.get()
        server.answer(stream_id)
        server.flush()

        assert received == body
        assert (await reply).status == 200


async def test_it_takes_the_answers_that_follow_a_goaway_and_asks_on_a_new_connection() -> None:
    async with talking() as (server, post):
        before = post()
        stream_id, _ = await server.requests.get()
        server.goaway(stream_id)
        server.answer(stream_id, b"late")
        server.flush()

        assert (await before).body == b"late"
        after = post()
        server.answer((await server.requests.get())[0], b"new")
        server.flush()
        assert (await after).body == b"new"
        assert server.connections == 2


async def test_it_says_that_a_request_beyond_a_goaway_was_not_processed() -> None:
    async with talking() as (server, post):
        reply = post()
        await server.requests.get()
        server.goaway(0)

        with pytest.raises(Unprocessed):
            await reply


@pytest.mark.parametrize(
    ("code", "unprocessed"), [(ErrorCodes.REFUSED_STREAM, True), (ErrorCodes.INTERNAL_ERROR, False)]
)
async def test_it_tells_a_refused_stream_from_a_broken_one(
    code: ErrorCodes, unprocessed: bool
) -> None:
    async with talking() as (server, post):
        reply = post()
        server.reset((await server.requests.get())[0], code)
        server.flush()

        with pytest.raises(Http2Error) as raised:
            await reply
        assert isinstance(raised.value, Unprocessed) is unprocessed


async def test_it_fails_what_was_in_the_air_when_the_connection_is_lost_and_comes_back() -> None:
    async with talking() as (server, post):
        lost = post()
        await server.requests.get()
        server.hang_up()
        with pytest.raises(Http2Error):
            await lost

        again = post()
        server.answer((await server.requests.get())[0])
        server.flush()

        assert (await again).status == 200


async def test_it_leaves_a_silent_connection_after_a_timeout() -> None:
    async with talking() as (server, post):
        first = post()
        server.answer((await server.requests.get())[0])
        server.flush()
        await first
        with pytest.raises(TimeoutError):
            await post(timeout_s=0.1)

        again = post()
        await server.requests.get()  # the one given up
        server.answer((await server.requests.get())[0])
        server.flush()

        assert (await again).status == 200
        assert server.connections == 2


async def test_it_gives_up_one_stream_and_keeps_the_connection_when_the_peer_is_alive() -> None:
    async with talking() as (server, post):
        slow = post()
        slow_id, _ = await server.requests.get()
        quick = post()
        server.answer((await server.requests.get())[0])
        server.flush()
        await quick
        slow.cancel()  # as a timeout does, at a time that is known

        again = post()
        server.answer((await server.requests.get())[0])
        server.flush()

        assert (await again).status == 200
        assert server.connections == 1
        assert server.cancelled == [slow_id]


async def test_it_refuses_a_peer_that_does_not_speak_http2() -> None:
    async def shout(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(shout, "127.0.0.1", 0)
    client = Http2Client(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")

    with pytest.raises(Http2Error):
        await client.post("/", [], b"", timeout_s=5)

    await client.close()
    listening.close()


async def test_it_says_when_nobody_listens() -> None:
    client = Http2Client("http://127.0.0.1:9")

    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await client.post("/", [], b"", timeout_s=5)

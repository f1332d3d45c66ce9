"""Many requests at once over one HTTP/2 connection to one host. Knows nothing of pushes.

firebase-admin's own client (httpx over httpcore) costs 2 to 5 ms of processor time a request when
many are in the air; this does the same in a tenth, because it only ever speaks to one host. It
speaks HTTP/2 with prior knowledge over plain TCP (the emulator) and by ALPN over TLS (Firebase).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import (
    ConnectionInputs,
    ConnectionState,
    H2Connection,
    H2ConnectionStateMachine,
)
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import NoAvailableStreamIDError, ProtocolError

Headers = list[tuple[str, str]]

# A reply of FCM is under 1 KB. A peer that sends more than this is not FCM.
MAX_REPLY_BYTES = 1024 * 1024
UNSENT_FOR_S = 0.002  # several requests, and less than anybody notices


class Http2Error(Exception):
    """The exchange failed below HTTP: whether the peer acted on the request is not known."""


class Unprocessed(Http2Error):  # noqa: N818 - it says what is known
    """The peer says that it did not act on the request; sending it again repeats nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back. Header names are lower case; the last of several values counts."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class _Stream:
    """One request in the air."""

    done: asyncio.Future[Reply]
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


class Http2Client:
    """Keeps one connection to an origin and makes a new one when that one ends."""

    def __init__(self, origin: str, *, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(origin)
        secure = parts.scheme == "https"
        self.scheme = parts.scheme
        self.authority = parts.netloc
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._tls = (tls or ssl.create_default_context()) if secure else None
        if self._tls:
            self._tls.set_alpn_protocols(["h2"])
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def post(self, path: str, headers: Headers, body: bytes, *, timeout_s: float) -> Reply:
        """Send one request and return the reply.

        Raises OSError where there is no connection, TimeoutError, or Http2Error.
        """
        async with asyncio.timeout(timeout_s):
            connection = await self._connected()
            pseudo = [
                (":method", "POST"),
                (":scheme", self.scheme),
                (":authority", self.authority),
                (":path", path),
            ]
            return await connection.exchange([*pseudo, *headers], body)

    async def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    async def _connected(self) -> _Connection:
        async with (
            self._connecting
        ):  # a thousand waiting pushes make one connection, not a thousand
            if self._connection is None or not self._connection.usable:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection,
            self._host,
            self._port,
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        return connection


class _Patient(H2ConnectionStateMachine):
    """h2's rules, but GOAWAY ends only the asking: what was asked is still answered.

    So RFC 9113, 6.8. Google's servers say GOAWAY to every long connection; plain h2 then drops
    the replies that follow, and a hundred pushes that were taken would be sent again.
    """

    _transitions = H2ConnectionStateMachine._transitions | {
        (ConnectionState.CLIENT_OPEN, ConnectionInputs.RECV_GOAWAY): (
            None,
            ConnectionState.CLIENT_OPEN,
        )
    }


class _Connection(asyncio.Protocol):
    """One HTTP/2 connection: frames out, events in, a future for every stream."""

    def __init__(self) -> None:
        self._h2 = H2Connection(
            # The headers are ours and well-formed: checking each again costs a third of a request.
            H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )
        self._h2.state_machine = _Patient()
        self._streams: dict[int, _Stream] = {}
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._flushing, self._unsent_since = False, 0.0
        self._heard_at = self._loop.time()
        self._changed = asyncio.Event()
        self.usable = True

    async def exchange(self, headers: Headers, body: bytes) -> Reply:
        """Send a request, wait for its reply; give up its stream when the caller gives up."""
        await self._room_for_a_stream()
        started_at = self._loop.time()
        try:
            stream_id = self._h2.get_next_available_stream_id()
        except (NoAvailableStreamIDError, ProtocolError) as error:
            self.usable = False
            raise Unprocessed("the connection takes no more requests") from error
        stream = self._streams[stream_id] = _Stream(self._loop.create_future())
        self._h2.send_headers(stream_id, headers)
        try:
            await self._send(stream_id, stream, body)
            return await stream.done
        except asyncio.CancelledError:
            self._abandon(stream_id, started_at)
            raise
        finally:
            self._streams.pop(stream_id, None)
            self._changed.set()
            if not self.usable and not self._streams:
                self.close()

    async def _room_for_a_stream(self) -> None:
        """Wait for the peer's limit: beyond it FCM answers with GOAWAY, not with patience."""
        while self.usable and len(self._streams) >= self._h2.remote_settings.max_concurrent_streams:
            await self._change()
        if not self.usable:
            raise Unprocessed("the connection ended")

    async def _send(self, stream_id: int, stream: _Stream, body: bytes) -> None:
        """Send a body as fast as the peer's windows allow."""
        sent = 0
        while not stream.done.done():
            window = self._h2.local_flow_control_window(stream_id)
            room = min(window, self._h2.max_outbound_frame_size)
            last = len(body) - sent <= room
            if room > 0 or last:
                part = body[sent : sent + room]
                self._h2.send_data(stream_id, part, end_stream=last)
                sent += len(part)
                self._flush_soon()
            if last:
                return
            if room <= 0:
                await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _abandon(self, stream_id: int, started_at: float) -> None:
        del self._streams[stream_id]
        if self._heard_at < started_at:
            # Not one byte since we asked: the path is dead though the socket says otherwise.
            self._end(Http2Error("the peer fell silent"))
        elif self._transport and not self._transport.is_closing():
            self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
            self._flush_soon()

    def _flush_soon(self) -> None:
        """Write once for all the requests of this turn of the loop, unless that becomes a long one.

        One segment, not fifty; but who makes fifty messages does not keep the first from leaving.
        """
        now = time.perf_counter()
        if not self._flushing:
            self._flushing, self._unsent_since = True, now
            self._loop.call_soon(self._flush)
        elif now - self._unsent_since > UNSENT_FOR_S:
            self._unsent_since = now
            self._write()

    def _flush(self) -> None:
        self._flushing = False
        self._write()

    def _write(self) -> None:
        outgoing = self._h2.data_to_send()
        if outgoing and self._transport:
            self._transport.write(outgoing)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not its subclasses
        self._h2.initiate_connection()
        # Replies are small and read at once: let the peer never wait for our window.
        self._h2.increment_flow_control_window(MAX_REPLY_BYTES)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        self._flush()  # h2 forgets unsent frames when a GOAWAY comes in
        try:
            self._take(self._h2.receive_data(data))
        except ProtocolError as error:
            self._end(Http2Error(f"not HTTP/2: {error}"))
            return
        self._flush()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(Http2Error(f"the connection was lost: {exc or 'closed by the peer'}"))

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case ResponseReceived(stream_id=int(stream_id), headers=headers):
                    if stream := self._streams.get(stream_id):
                        named = {str(name): str(value) for name, value in headers or ()}
                        stream.status = int(named.pop(":status"))
                        stream.headers = named
                case DataReceived(stream_id=int(stream_id)):
                    self._take_data(event, stream_id)
                case StreamEnded(stream_id=int(stream_id)):
                    if (stream := self._streams.get(stream_id)) and not stream.done.done():
                        stream.done.set_result(
                            Reply(
                                status=stream.status,
                                headers=stream.headers,
                                body=bytes(stream.body),
                            )
                        )
                case StreamReset(stream_id=int(stream_id), error_code=code):
                    refused = code == ErrorCodes.REFUSED_STREAM
                    error = Unprocessed if refused else Http2Error
                    self._fail(stream_id, error(f"reset: {code}"))
                case ConnectionTerminated(last_stream_id=last, error_code=code):
                    self._retire(last or 0, f"GOAWAY {code}")

    def _take_data(self, event: DataReceived, stream_id: int) -> None:
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.body += event.data or b""
        if len(stream.body) > MAX_REPLY_BYTES:
            self._fail(stream_id, Http2Error("the reply is too long"))

    def _retire(self, last_stream_id: int, why: str) -> None:
        """Stop asking on this connection; what the peer took on may still be answered."""
        self.usable = False
        for stream_id in [sid for sid in self._streams if sid > last_stream_id]:
            self._fail(stream_id, Unprocessed(why))
        if not self._streams:
            self.close()

    def _fail(self, stream_id: int, error: Http2Error) -> None:
        stream = self._streams.get(stream_id)
        if stream and not stream.done.done():
            stream.done.set_exception(error)

    def _end(self, error: Http2Error) -> None:
        self.close()
        for stream_id in list(self._streams):
            self._fail(stream_id, error)
        self._changed.set()

    def close(self) -> None:
        self.usable = False
        if self._transport:
            self._transport.close()

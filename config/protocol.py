"""HTTP/1.1 as the web processes speak it: uvicorn's, with a short way from a phone to its door.

A phone's request that came whole, in one read, is handed to its door as it is: no task, no scope,
no messages. Whatever is otherwise, in pieces, large, packed or for somebody else, goes uvicorn's
way to the same doors. It adds the limits on heads that uvicorn leaves to a proxy.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from devices.doors.answers import FAILED, HEAD_TOO_LARGE, NOT_HTTP, TOO_SLOW, Answer
from devices.doors.door import INLINE_BYTES, Headers, headers_of
from devices.doors.http import DeviceDoor

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024  # beside what one read brings
QUIET_S = 75.0  # proxies reuse a connection for a minute: be the second to close it


class Sockets(WebSocketsSansIOProtocol):
    """uvicorn's, that knows a handshake that was refused in words for one that was answered.

    It logged an error for each: any stranger could fill the log.
    """

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True


class Protocol(HttpToolsProtocol):
    """One connection."""

    quiet_s = QUIET_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._doors: dict[bytes, DeviceDoor] = cast(Any, self.app).doors_of_devices
        self._held: tuple[DeviceDoor, Headers] | None = None  # a head whose body may be here too
        self._body = b""
        self._in_head = True
        self._head_bytes = 0
        self._quiet_since = self.loop.time()
        self._timer = self.loop.call_later(self.quiet_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._timer.cancel()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._decline(data[offer.args[0] :])
        except HttpParserError as error:
            self._refuse(_fault(error.__context__))
        else:
            if self._held is not None:
                self._go_the_long_way()
            elif self._in_head and self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HEAD_TOO_LARGE)

    def _should_upgrade(self) -> bool:
        """A socket begins with GET: uvicorn would leave anything else without an answer."""
        return super()._should_upgrade() and self.parser.get_method() == b"GET"

    def _decline(self, rest: bytes) -> None:
        """Read a request again without its offer of another protocol, for which no body is read.

        Java's client offers HTTP/2 so, with its first request, and may be answered in HTTP/1.1.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse(NOT_HTTP)
            return
        head = [b"%b %b HTTP/%b\r\n" % (method, self.url, version)]
        head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    # What the parser finds

    def on_headers_complete(self) -> None:
        if self._is_declined():
            return
        self._in_head = False
        door = self._doors.get(self.url)
        if door is not None and self._is_free():
            headers = headers_of(self.headers)
            if 0 < headers.content_length <= INLINE_BYTES and not headers.content_encoding:
                self._held = door, headers
                return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._held is not None:
            self._body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_declined():
            return
        self._in_head, self._head_bytes = True, 0
        if self._held is None:
            super().on_message_complete()
            return
        door, headers = self._held
        body, self._held, self._body = self._body, None, b""
        exchange = Exchange(self, is_last=not self.parser.should_keep_alive())
        self.cycle = cast(Any, exchange)
        door.take(headers, body, exchange.answer)

    def _is_declined(self) -> bool:
        return self.parser.should_upgrade() and not self._should_upgrade()

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _is_free(self) -> bool:
        """Whether the request is a plain POST, and nobody is being answered or slow to listen."""
        return (
            not self._is_answering()
            and not self.flow.write_paused
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
        )

    def _go_the_long_way(self) -> None:
        """The rest of the body is still to come."""
        body, self._held, self._body = self._body, None, b""
        super().on_headers_complete()
        if body:
            super().on_body(body)

    # What goes out

    def on_response_complete(self) -> None:
        """As uvicorn's, but for its timer: ours runs on."""
        self.server_state.total_requests += 1
        self._quiet_since = self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _refuse(self, answer: Answer) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.encoded(answer, is_last=True))
            self.transport.close()

    def encoded(self, answer: Answer, *, is_last: bool) -> bytes:
        lines = [answer.head]
        lines += [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        lines += [b"connection: close\r\n\r\n" if is_last else b"\r\n", answer.body["body"]]
        return b"".join(lines)

    # Who stays silent

    def _look(self) -> None:
        """End a connection that brings no whole head; bodies have the doors' patience."""
        left_s = self.quiet_s
        if not self._is_answering():
            left_s += self._quiet_since - self.loop.time()
        if left_s > 0:
            self._timer = self.loop.call_later(left_s, self._look)
        elif self._head_bytes:
            self._refuse(TOO_SLOW)
        else:
            self.transport.close()


def _fault(raised: BaseException | None) -> Answer:
    """What to answer where a request could not be read; `raised` by whom the parser called."""
    if raised is None or isinstance(raised, (HttpParserError, UnicodeDecodeError)):
        return NOT_HTTP  # the last two: a path that is none
    logger.error("a request could not be handed on", exc_info=raised)
    return FAILED


class Exchange:
    """A request in a door's hands: what uvicorn asks of the cycle it would have made of it."""

    __slots__ = ("_is_last", "_protocol", "disconnected", "message_event", "response_complete")

    def __init__(self, protocol: Protocol, *, is_last: bool) -> None:
        self._protocol = protocol
        self._is_last = is_last
        self.disconnected = self.response_complete = False
        self.message_event = _NOBODY

    def _set_keep_alive(self, value: bool) -> None:
        self._is_last = not value

    keep_alive = property(fset=_set_keep_alive)  # uvicorn unsets it when the server ends

    def answer(self, answer: Answer) -> None:
        self.response_complete = True
        protocol = self._protocol
        if not protocol.transport.is_closing():
            protocol.transport.write(protocol.encoded(answer, is_last=self._is_last))
            if self._is_last:
                protocol.transport.close()
        protocol.on_response_complete()


class _Nobody:
    """Stands for the event of a body that somebody waits for."""

    def set(self) -> None:
        """Nobody waits: the body is here."""


_NOBODY = _Nobody()

"""One phone's connection to the public doors, over HTTP or a socket: a client, never the server.

It tells three kinds of failure apart, because each asks for something else: refused, busy, lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import httpx
import msgspec
import websockets

ACK_WITHIN_S = 60.0

Offer = dict[str, Any]


class Verdicts(msgspec.Struct):
    """The answer to a batch of fixes."""

    accepted: int = 0
    rejected: list[dict[str, Any]] = []


class RefusedError(Exception):
    """The server will not take this; sending it again would not help."""


class BusyError(Exception):
    """The server asks to come back later."""

    def __init__(self, after_s: float) -> None:
        super().__init__(after_s)
        self.after_s = after_s


class LostError(Exception):
    """No answer came: nobody knows whether the batch was taken."""


class Line(Protocol):
    """One phone's connection."""

    async def send(self, fixes: Sequence[Mapping[str, Any]]) -> Verdicts:
        """The server's verdicts once durable. Raises RefusedError, BusyError or LostError."""

    async def close(self) -> None: ...


def _judged(response: httpx.Response) -> httpx.Response:
    """The response if it is a success, else the exception that says what to do."""
    if response.status_code in {429, 503}:
        raise BusyError(float(response.headers.get("Retry-After", 1)))
    if response.status_code >= 500:
        raise LostError(f"HTTP {response.status_code}")
    if response.status_code >= 400:
        code = "error"
        with contextlib.suppress(ValueError, AttributeError):
            code = response.json().get("code", code)
        raise RefusedError(f"HTTP {response.status_code} {code}")
    return response


async def ask(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response:
    """A successful response. Raises RefusedError, BusyError or LostError."""
    try:
        return _judged(await client.request(method, path, **options))
    except httpx.TransportError as failure:
        raise LostError(type(failure).__name__) from failure


class HttpLine:
    """A phone that posts."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def send(self, fixes: Sequence[Mapping[str, Any]]) -> Verdicts:
        body = msgspec.json.encode(fixes[0] if len(fixes) == 1 else {"locations": fixes})
        response = await ask(
            self._client, "POST", "/v1/locations", content=body, headers=self._headers
        )
        return msgspec.json.decode(response.content, type=Verdicts)

    async def close(self) -> None:
        """Nothing of its own to close."""


class SocketLine:
    """A phone that keeps a socket open, hears its offers and says what came of them.

    `offered` answers the feedback events for an offer; `complain` hears of errors that no batch
    waits for.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        offered: Callable[[Offer], Sequence[str]],
        complain: Callable[[str], None],
    ) -> None:
        self._url, self._token, self._offered, self._complain = url, token, offered, complain
        self._socket: websockets.ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Verdicts]] = {}

    async def send(self, fixes: Sequence[Mapping[str, Any]]) -> Verdicts:
        socket = await self._connected()
        number = next(self._numbers)
        answer: asyncio.Future[Verdicts] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        frame = {"type": "locations", "seq": number, "locations": fixes}
        try:
            await socket.send(msgspec.json.encode(frame).decode())
            async with asyncio.timeout(ACK_WITHIN_S):
                return await answer
        except (OSError, TimeoutError, websockets.ConnectionClosed) as failure:
            await self.close()
            raise LostError(type(failure).__name__) from failure
        finally:
            self._waiting.pop(number, None)

    async def _connected(self) -> websockets.ClientConnection:
        if self._socket is None:
            try:
                self._socket = await websockets.connect(
                    self._url,
                    additional_headers={"Authorization": f"Bearer {self._token}"},
                    compression=None,
                )
            except websockets.InvalidStatus as refusal:
                status = refusal.response.status_code
                if status in {429, 503}:
                    raise BusyError(float(refusal.response.headers.get("Retry-After", 1))) from None
                if status >= 500:
                    raise LostError(f"HTTP {status}") from refusal
                raise RefusedError(f"HTTP {status}") from refusal
            except (OSError, TimeoutError, websockets.WebSocketException) as failure:
                raise LostError(type(failure).__name__) from failure
            self._reader = asyncio.create_task(self._read(self._socket))
        return self._socket

    async def _read(self, socket: websockets.ClientConnection) -> None:
        """Take frames until the socket ends; then nobody is answered any more."""
        try:
            async for raw in socket:
                await self._take(socket, msgspec.json.decode(raw))
        except websockets.ConnectionClosed:
            pass
        finally:
            if self._socket is socket:
                self._socket = None
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(LostError("closed"))

    async def _take(self, socket: websockets.ClientConnection, frame: dict[str, Any]) -> None:
        answer = self._waiting.get(frame.get("seq") or 0)
        waited_for = answer is not None and not answer.done()
        if frame["type"] == "ack" and answer is not None and waited_for:
            answer.set_result(msgspec.convert(frame, Verdicts))
        elif frame["type"] == "error":
            after_s = frame.get("retry_after_s")
            what = f"frame {frame.get('code')}"
            error = RefusedError(what) if after_s is None else BusyError(float(after_s))
            if answer is not None and waited_for:
                answer.set_exception(error)
            else:
                self._complain(what)
        elif frame["type"] == "offer":
            for event in self._offered(frame):
                said = {"type": "feedback", "delivery_id": frame["delivery_id"], "event": event}
                await socket.send(msgspec.json.encode(said).decode())

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        reader, self._reader = self._reader, None
        if socket is not None:
            await socket.close()
        if reader is not None:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

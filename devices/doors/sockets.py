"""`WS /v1/stream`: fixes, events and feedback in, answered by `seq`; offers out. Plain ASGI.

One task per socket reads, and answers when what it read is durable: a phone that sends faster
waits, nothing piles up here. Offers come from rows, never from a channel: what is missed while a
phone is away is there when it returns.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from urllib.parse import parse_qs

import msgspec
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection

from devices.auth import DeviceIdentity, TokenMemory
from devices.doors.answers import NO_TOKEN
from devices.doors.decoding import Refused, Rejection
from devices.doors.door import INLINE_BYTES, Receive, Scope, Send
from devices.doors.http import EventsDoor, LocationsDoor
from devices.doors.limits import RateLimit
from devices.gathering import Overloaded

logger = logging.getLogger(__name__)

SUBPROTOCOL = "bearer."
REVOKED, TOO_BIG, REPLACED, RESTARTING = 4401, 1009, 4409, 1012
SOCKETS_PER_DEVICE = 3  # a phone that reconnects leaves half-open ones behind
FRAMES_OWED = 256  # to a client that does not read; beyond it the rows have to do
IDLE_S = 55.0  # below the minute after which mobile networks forget a silent connection
MAX_SEQ_BYTES = 64
GOODBYE_S = 2.0
PING, PONG = '{"type":"ping"}', '{"type":"pong"}'
_encode = msgspec.json.Encoder().encode


class OfferLike(Protocol):
    """What a socket must know of an offer; the whole of it is encoded as the frame."""

    delivery_id: int


CurrentOffers = Callable[[Sequence[int]], Mapping[int, Sequence[OfferLike]]]
"""Per device the offers it has not yet received. Asks the database."""

RecordFeedback = Callable[[int, bytes], tuple[int, list[Rejection]]]
"""Takes what a device says of its deliveries (JSON): how many it accepted, why not the others."""


_ABSENT = msgspec.Raw()


class Frame(msgspec.Struct):
    """A client's frame, its items still unread."""

    type: str
    seq: msgspec.Raw = msgspec.Raw(b"null")
    locations: msgspec.Raw = _ABSENT
    events: msgspec.Raw = _ABSENT
    feedback: msgspec.Raw = _ABSENT


_frame = msgspec.json.Decoder(Frame)


class Socket:
    """One open connection of a device."""

    __slots__ = (
        *("_draining", "_owed", "_send", "brand_id", "device_id", "farewell", "heard_at"),
        *("is_open", "serial", "since", "task", "told"),
    )

    def __init__(self, identity: DeviceIdentity, send: Send, *, since: int) -> None:
        self.device_id, self.brand_id, self.serial = identity
        self._send = send
        self.task = asyncio.current_task()
        self.is_open = False
        self.farewell: tuple[int, str] | None = None  # why we end it: close code and reason
        self.heard_at = time.monotonic()
        self.since = since  # deliveries up to here were seen on an earlier connection
        self.told: set[int] = set()  # deliveries sent on this one
        self._owed: list[str] = []
        self._draining: asyncio.Task[None] | None = None

    async def accept(self, subprotocol: str | None) -> None:
        """Open for frames; what was owed meanwhile goes out."""
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        self.is_open = True
        self._begin_draining()

    async def say(self, text: str) -> None:
        """Send one frame; waits where the client does not read."""
        await self._send({"type": "websocket.send", "text": text})

    def owe(self, text: str) -> bool:
        """Send a frame without waiting; False where too many are owed already."""
        if len(self._owed) >= FRAMES_OWED:
            return False
        self._owed.append(text)
        self._begin_draining()
        return True

    def _begin_draining(self) -> None:
        if self._owed and self.is_open and self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._owed and self.is_open:
                await self.say(self._owed.pop(0))
        except Exception:  # noqa: BLE001 - whatever the server raises for a broken connection
            self.is_open = False  # its own task learns that by itself
        finally:
            self._draining = None

    def dismiss(self, code: int, reason: str) -> None:
        """End the connection from outside: its own task is woken to say goodbye.

        A close sent from here would wait for the client's next frame: the task is reading.
        """
        if self.farewell is None and self.task is not None:
            self.farewell = (code, reason)
            self.task.cancel()

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, in the connection's own task; whatever is still owed is dropped."""
        if self.is_open:
            self.is_open = False
            await self._send({"type": "websocket.close", "code": code, "reason": reason})


class StreamDoor:
    """All sockets of a process."""

    def __init__(
        self,
        *,
        locations: LocationsDoor,
        events: EventsDoor,
        tokens: TokenMemory,
        rate: RateLimit,
        threads: ThreadPoolExecutor,
        current_offers: CurrentOffers,
        record_feedback: RecordFeedback,
        refusals: Counter[tuple[str, str]],
    ) -> None:
        self._doors = {"locations": locations, "events": events}
        self._tokens, self._rate, self._threads = tokens, rate, threads
        self._current_offers, self._record_feedback = current_offers, record_feedback
        self._refusals = refusals
        self._sockets: dict[int, list[Socket]] = {}
        self._asked: set[int] = set()
        self._ask = asyncio.Event()
        self._looks: list[asyncio.Future[None]] = []  # who waits for the next look
        self._closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        authorization, subprotocol = _credentials(scope)
        identity = self._tokens.identify(authorization)
        if identity is None or self._closing:
            await _refuse(scope, send)
            return
        socket = Socket(identity, send, since=_since(scope))
        self._add(socket)
        try:
            await self._look_at(socket)
            await socket.accept(subprotocol)
            await self._converse(socket, identity, receive)
        except asyncio.CancelledError:
            if socket.farewell is None or socket.task is None:
                raise
            socket.task.uncancel()
            if socket.is_open:
                await socket.close(*socket.farewell)
            else:
                await _refuse(scope, send)
        finally:
            socket.is_open = False
            self._remove(socket)

    async def _converse(self, socket: Socket, identity: DeviceIdentity, receive: Receive) -> None:
        while socket.is_open:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            frame = message.get("text") or message.get("bytes") or b""
            socket.heard_at = time.monotonic()
            if _size_of(frame) > settings.MAX_FRAME_BYTES:
                await socket.close(TOO_BIG, "frame too large")
                return
            reply = await self._answer(identity, frame)
            if reply is None:
                await socket.close(REVOKED, "token revoked")
                return
            if socket.is_open:
                await socket.say(reply)

    async def _answer(self, identity: DeviceIdentity, data: str | bytes) -> str | None:
        """The frame that answers a frame; None where the device is no longer known."""
        wait_s = self._rate.wait_s(identity.device_id)
        try:
            frame = _frame.decode(data)
            seq = bytes(frame.seq).decode()  # nobody has read it yet: it may be no UTF-8
        except (ValueError, RecursionError):
            return self._refuse("null", "not_json", "A frame is a JSON object with a type.")
        if len(seq) > MAX_SEQ_BYTES:
            return self._refuse("null", "invalid", f"seq is at most {MAX_SEQ_BYTES} characters.")
        if wait_s:
            return self._rate_limited(seq, wait_s)
        try:
            return await self._take(identity, frame, seq, data)
        except Refused as refusal:
            return self._refuse(seq, refusal.code, refusal.message, fields=refusal.fields)
        except (Overloaded, DatabaseError):
            return self._refuse(
                seq, "overloaded", "Nothing was taken; send it again shortly.", retry_after_s=1
            )
        except Exception:
            logger.exception("a frame of device %d failed", identity.device_id)
            return self._refuse(seq, "error", "The server failed; nothing was taken.")

    async def _take(
        self, identity: DeviceIdentity, frame: Frame, seq: str, data: str | bytes
    ) -> str | None:
        if frame.type == "ping":
            return PONG
        if frame.type == "feedback":
            said = bytes(frame.feedback) or bytes(msgspec.Raw(data))
            accepted, rejected = await self._on_thread(
                self._record_feedback, identity.device_id, said
            )
            return _ack(seq, accepted, rejected)
        door = self._doors.get(frame.type)
        if door is None:
            return self._refuse(seq, "unknown_type", "locations, events, feedback or ping.")
        body = bytes(frame.locations if frame.type == "locations" else frame.events)
        if not body:
            return self._refuse(seq, "invalid", "See fields.", fields={frame.type: ["Required."]})
        if len(body) > INLINE_BYTES:
            prepared = await self._on_thread(door.prepare, identity, body, False)
        else:
            prepared = door.prepare(identity, body, lines=False)
        wait_s = door.charge(identity, len(prepared.rows)) if prepared.rows else 0.0
        if wait_s:
            return self._rate_limited(seq, wait_s)
        outcome = await door.hand_on(prepared)
        return None if outcome is None else _ack(seq, *outcome)

    def _refuse(self, seq: str, code: str, message: str, **more: Any) -> str:
        """The frame that says that nothing of another one was taken."""
        self._refusals["frame", code] += 1
        said = _encode({"code": code, "message": message, **more}).decode()
        return f'{{"type":"error","seq":{seq},{said[1:]}'

    def _rate_limited(self, seq: str, wait_s: float) -> str:
        whole_ms = math.ceil(wait_s * 1000)  # never "wait for nothing"
        return self._refuse(
            seq, "rate_limited", "Too many frames of this device.", retry_after_s=whole_ms / 1000
        )

    async def _on_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _add(self, socket: Socket) -> None:
        held = self._sockets.setdefault(socket.device_id, [])
        held.append(socket)
        for older in held[:-SOCKETS_PER_DEVICE]:
            older.dismiss(REPLACED, "replaced by a newer connection")

    def _remove(self, socket: Socket) -> None:
        held = self._sockets.get(socket.device_id, [])
        if socket in held:
            held.remove(socket)
        if not held:
            self._sockets.pop(socket.device_id, None)

    def __len__(self) -> int:
        """How many sockets are open."""
        return sum(map(len, self._sockets.values()))

    def revoked(self, device_id: int, serial: int) -> None:
        """Close the device's sockets but for those of this serial (0: of none)."""
        for socket in self._sockets.get(device_id, ()):
            if socket.serial != serial:
                socket.dismiss(REVOKED, "token revoked")

    def offers_changed(self, payload: str) -> None:
        """Look at the rows of those named (comma-separated device ids) who are connected."""
        self._look_soon(int(part) for part in payload.split(",") if part)

    def look_again(self) -> None:
        """Look at the rows of everyone connected."""
        self._look_soon(self._sockets)

    async def close_all(self) -> None:
        """No new sockets, and a goodbye to those there are: clients reconnect elsewhere."""
        self._closing = True
        tasks = set()
        for held in self._sockets.values():
            for socket in held:
                socket.dismiss(RESTARTING, "server restarts")
                if socket.task is not None:
                    tasks.add(socket.task)
        if tasks:
            await asyncio.wait(tasks, timeout=GOODBYE_S)

    async def watch(self) -> None:
        """Look at rows whenever asked to, many devices at once; runs until cancelled."""
        await asyncio.gather(self._keep_looking(), self._keep_pinging())

    def _look_soon(self, device_ids: Iterable[int]) -> None:
        self._asked.update(each for each in device_ids if each in self._sockets)
        if self._asked:
            self._ask.set()

    async def _look_at(self, socket: Socket) -> None:
        """Look at a new socket's rows; it is dismissed where its token no longer stands."""
        look = asyncio.get_running_loop().create_future()
        self._looks.append(look)
        self._asked.add(socket.device_id)
        self._ask.set()
        await look

    async def _keep_looking(self) -> None:
        while True:
            await self._ask.wait()
            self._ask.clear()
            asked, self._asked = list(self._asked), set()
            looks, self._looks = self._looks, []
            try:
                stand, offers = await self._on_thread(self._read, asked)
            except DatabaseError as error:
                # Sockets stay open: the next look is seconds away.
                logger.warning("could not look at offers: %s", error)
            else:
                for device_id in asked:
                    self._check(device_id, stand.get(device_id))
                    self._tell(device_id, offers.get(device_id, ()))
            for look in looks:
                if not look.done():
                    look.set_result(None)

    def _read(
        self, device_ids: list[int]
    ) -> tuple[dict[int, tuple[int, int]], Mapping[int, Sequence[OfferLike]]]:
        """Each device's brand and serial, and its offers; on a thread."""
        close_old_connections()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT device_id, brand_id, serial FROM devices_devicestate"
                " WHERE device_id = ANY(%s)",
                (device_ids,),
            )
            stand = {device_id: (brand, serial) for device_id, brand, serial in cursor.fetchall()}
        return stand, self._current_offers(device_ids)

    def _check(self, device_id: int, stands: tuple[int, int] | None) -> None:
        for socket in self._sockets.get(device_id, ()):
            if (socket.brand_id, socket.serial) != stands:
                socket.dismiss(REVOKED, "token revoked")

    def _tell(self, device_id: int, offers: Sequence[OfferLike]) -> None:
        for socket in self._sockets.get(device_id, ()):
            socket.told.intersection_update(offer.delivery_id for offer in offers)
            for offer in offers:
                if offer.delivery_id in socket.told or offer.delivery_id <= socket.since:
                    continue
                if not socket.owe(_encode(offer).decode()):
                    break
                socket.told.add(offer.delivery_id)

    async def _keep_pinging(self) -> None:
        """Silence is broken before mobile networks forget it; a dead peer shows itself so."""
        while True:
            await asyncio.sleep(IDLE_S / 10)
            silent_since = time.monotonic() - IDLE_S
            for held in self._sockets.values():
                for socket in held:
                    if socket.heard_at < silent_since:
                        socket.heard_at = time.monotonic()
                        socket.owe(PING)


def _credentials(scope: Scope) -> tuple[bytes, str | None]:
    """The authorization, and the subprotocol to answer where it came as one (browsers)."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            return bytes(value), None
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(SUBPROTOCOL):
            return b"Bearer " + offered[len(SUBPROTOCOL) :].encode(), offered
    return b"", None


def _since(scope: Scope) -> int:
    """`?since=`: the newest delivery the client knows of."""
    given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("since", ["0"])[0]
    return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0


async def _refuse(scope: Scope, send: Send) -> None:
    """401 where the server can answer a handshake in words, else a plain refusal (403)."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await send({**NO_TOKEN.start, "type": "websocket.http.response.start"})
        await send({**NO_TOKEN.body, "type": "websocket.http.response.body"})
    else:
        await send({"type": "websocket.close", "code": REVOKED})


def _size_of(frame: str | bytes) -> int:
    """In bytes, as it came."""
    return len(frame if isinstance(frame, bytes) or frame.isascii() else frame.encode())


def _ack(seq: str, accepted: int, rejected: list[Rejection]) -> str:
    listed = _encode(rejected).decode() if rejected else "[]"
    return f'{{"type":"ack","seq":{seq},"accepted":{accepted},"rejected":{listed}}}'

"""What every fast HTTP door does: admit, read, decode, hand on, answer. Plain ASGI.

Django's request stack costs ten times as much per request. A door decides nothing and touches no
database on the event loop; which bodies it takes from whom is its subclass's.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from django.db import InterfaceError, OperationalError

from brands.keys import KeyIdentity
from devices.auth import DeviceIdentity
from devices.doors.answers import (
    ALL_ACCEPTED,
    FAILED,
    NOT_POST,
    OVERLOADED,
    REVOKED,
    TOO_SLOW,
    Answer,
    answer,
    answer_refusal,
    too_many,
)
from devices.doors.decoding import ItemReader, Refused, Rejection, inflated, too_large
from devices.doors.limits import Patience
from devices.fixes import MESSAGES, RejectCode
from devices.gathering import GroupCommit, Overloaded

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Identity = TypeVar("Identity", DeviceIdentity, KeyIdentity)
Result = TypeVar("Result")
Outcome = tuple[int, list[Rejection]] | None
"""How many items were accepted, and the others; None where their sender is no longer known."""

INLINE_BYTES = 16 * 1024  # bodies up to here are decoded on the event loop, larger ones beside it
_CODES = list(RejectCode)
_ACCEPTED = -1
UNKNOWN = _CODES.index(RejectCode.UNKNOWN_DEVICE)
_JSON_TYPES = {b"", b"application/json"}
_LINES_TYPES = {b"application/x-ndjson", b"application/ndjson", b"application/jsonl"}
_encode = msgspec.json.Encoder().encode


class Prepared(NamedTuple):
    """Rows ready to submit, where each stood in the body, and what was rejected already."""

    rows: list[Any]
    places: list[int] | None
    rejected: list[Rejection]


class Shared(NamedTuple):
    """What all doors of a process have in common."""

    max_body_bytes: int
    patience: Patience
    threads: ThreadPoolExecutor  # for large bodies and for what asks the database
    tally: Counter[tuple[str, str]]  # items by kind and verdict, for whoever keeps figures
    refusals: Counter[tuple[str, str]]  # requests of which nothing was taken, by kind and code


class Headers(NamedTuple):
    """The few headers a door reads."""

    authorization: bytes
    content_type: bytes
    content_encoding: bytes
    content_length: int


def headers_of(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """From the lower-case names and the values of a request."""
    authorization = content_type = encoding = b""
    length = 0
    for name, value in headers:
        if name == b"authorization":
            authorization = value
        elif name == b"content-type":
            content_type = value
        elif name == b"content-encoding":
            encoding = value
        elif name == b"content-length" and value.isdigit() and len(value) < 20:
            length = int(value)
    return Headers(authorization, content_type, encoding, length)


class Door(ABC):
    """One path: an ASGI application that takes one kind of item."""

    kind = "fix"
    messages = MESSAGES

    def __init__(self, gatherer: GroupCommit, shared: Shared) -> None:
        self._gatherer = gatherer
        self._shared = shared
        self._max_body_bytes = shared.max_body_bytes

    @abstractmethod
    async def reply(self, scope: Scope, receive: Receive) -> Answer | None:
        """What to say of a request; None where the client is gone. What it raises is `fault`'s."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self.reply(scope, receive)
        except Exception as error:  # noqa: BLE001 - answered, and logged where nobody foresaw it
            reply = self.fault(error)
        if reply is not None:
            self.note(reply)
            await send(reply.start)
            await send(reply.body)

    def note(self, reply: Answer) -> None:
        """Count an answer that refuses a request as a whole."""
        if reply.code:
            self._shared.refusals[self.kind, reply.code] += 1

    def fault(self, error: BaseException) -> Answer:
        """What a client hears of what was raised; what nobody foresaw is logged."""
        if isinstance(error, Refused):
            return answer_refusal(error)
        if isinstance(error, TimeoutError):
            return TOO_SLOW
        if not isinstance(error, (Overloaded, OperationalError, InterfaceError)):
            logger.error("a request with a %s failed", self.kind, exc_info=error)
            return FAILED
        return OVERLOADED

    async def on_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """For what takes its time, or asks the database."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._shared.threads, function, *arguments)

    async def read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The body, or None where the client went away; TimeoutError where it dawdles."""
        if headers.content_length > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        waiting = self._shared.patience.begin()
        try:
            message = await receive()
            body: bytes = message.get("body", b"")
            if message.get("more_body"):
                parts, size = [body], len(body)
                while message.get("more_body"):
                    message = await receive()
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self._max_body_bytes:
                        raise too_large(self._max_body_bytes)
                    parts.append(part)
                body = b"".join(parts)
        except asyncio.CancelledError:
            if self._shared.patience.gave_up(waiting):
                raise TimeoutError from None
            raise
        finally:
            self._shared.patience.end(waiting)
        if message["type"] == "http.disconnect":
            return None
        if len(body) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        return body

    def unpacked(self, body: bytes) -> bytes:
        """A gzip body as it was before it was packed."""
        return inflated(body, max_bytes=self._max_body_bytes)

    async def hand_on(self, prepared: Prepared) -> Outcome:
        """How many were accepted, once durable, and what was not; None where nobody is known."""
        rows = prepared.rows
        return self.outcome(prepared, await self._gatherer.submit(rows) if rows else [])

    def outcome(self, prepared: Prepared, verdicts: list[int]) -> Outcome:
        """How many were accepted and what was not; None where nobody is known."""
        _, places, rejected = prepared
        accepted = verdicts.count(_ACCEPTED)
        if accepted < len(verdicts):
            if self.is_revoked(verdicts):
                return None
            rejected += [
                Rejection(
                    place if places is None else places[place],
                    _CODES[verdict].value,
                    self.messages[_CODES[verdict]],
                )
                for place, verdict in enumerate(verdicts)
                if verdict != _ACCEPTED
            ]
        tally = self._shared.tally
        tally[self.kind, "accepted"] += accepted
        if rejected:
            for rejection in rejected:
                tally[self.kind, rejection.code] += 1
            rejected.sort(key=_by_index)
        return accepted, rejected

    def is_revoked(self, verdicts: list[int]) -> bool:  # noqa: ARG002 - devices only
        """Whether the verdicts say that the sender itself is no longer known."""
        return False


class ItemsDoor(Door, Generic[Identity]):
    """Bodies as CONTRACT has them: one item, many, NDJSON; plain or gzip."""

    def __init__(self, gatherer: GroupCommit, reader: ItemReader[Any], shared: Shared) -> None:
        super().__init__(gatherer, shared)
        self._reader = reader

    @abstractmethod
    async def admit(self, authorization: bytes) -> Identity | Answer:
        """Who sends, or the answer that refuses."""

    @abstractmethod
    def prepare(self, identity: Identity, body: bytes, lines: bool) -> Prepared:
        """Decode a body into rows; may run on a thread."""

    def asks_database(self, body: bytes) -> bool:  # noqa: ARG002 - few doors ever do
        """Whether `prepare` may ask the database of this body: then it runs on a thread."""
        return False

    def charge(self, identity: Identity, items: int) -> float:  # noqa: ARG002 - devices only
        """Seconds to wait where the sender asks too much."""
        return 0.0

    async def reply(self, scope: Scope, receive: Receive) -> Answer | None:
        if scope["method"] != "POST":
            return NOT_POST
        headers = headers_of(scope["headers"])
        identity = await self.admit(headers.authorization)
        if isinstance(identity, Answer):
            return identity
        wait_s = self.charge(identity, 0)
        if wait_s:
            return too_many(wait_s)
        return await self._take(identity, headers, receive)

    async def _take(self, identity: Identity, headers: Headers, receive: Receive) -> Answer | None:
        """The body of an admitted sender; None where the client is gone."""
        lines = is_lines(headers.content_type)
        gzipped = is_gzip(headers.content_encoding)
        body = await self.read(headers, receive)
        if body is None:
            return None
        if not (gzipped or len(body) > INLINE_BYTES or self.asks_database(body)):
            return await self.submit(identity, self.prepare(identity, body, lines))
        prepared = await self.on_thread(self._unpack_and_prepare, identity, body, lines, gzipped)
        wait_s = self.charge(identity, len(prepared.rows))
        return too_many(wait_s) if wait_s else await self.submit(identity, prepared)

    def _unpack_and_prepare(
        self, identity: Identity, body: bytes, lines: bool, gzipped: bool
    ) -> Prepared:
        return self.prepare(identity, self.unpacked(body) if gzipped else body, lines)

    async def submit(self, identity: Identity, prepared: Prepared) -> Answer:  # noqa: ARG002
        """The answer, once everything is durable."""
        return answer_outcome(await self.hand_on(prepared))


def is_unproven(outcome: Outcome) -> bool:
    """Whether no row told that the sender is known: all was refused before any was read."""
    if outcome is None:
        return False
    accepted, rejected = outcome
    return not accepted and all(each.code != RejectCode.CONSENT_WITHDRAWN for each in rejected)


def answer_outcome(outcome: Outcome) -> Answer:
    if outcome is None:
        return REVOKED
    accepted, rejected = outcome
    if not rejected and accepted in ALL_ACCEPTED:
        return ALL_ACCEPTED[accepted]
    return answer(200, _encode({"accepted": accepted, "rejected": rejected}))


def _by_index(rejection: Rejection) -> int:
    return rejection.index


def is_lines(content_type: bytes) -> bool:
    """NDJSON or JSON; 415 for anything else."""
    if content_type in _JSON_TYPES:
        return False
    kind, _, parameters = content_type.lower().partition(b";")
    kind = kind.strip()
    charset = parameters.replace(b" ", b"").replace(b'"', b"")
    if (kind in _JSON_TYPES or kind in _LINES_TYPES) and (
        b"charset=" not in charset or b"charset=utf-8" in charset or b"charset=utf8" in charset
    ):
        return kind in _LINES_TYPES
    raise Refused(
        415,
        "unsupported_media_type",
        "Send application/json or application/x-ndjson, in UTF-8.",
        headers=((b"accept", b"application/json, application/x-ndjson"),),
    )


def is_gzip(encoding: bytes) -> bool:
    """Packed or not; 415 for anything else."""
    if not encoding:
        return False
    kind = encoding.strip().lower()
    if kind in {b"gzip", b"x-gzip"}:
        return True
    if kind in {b"", b"identity"}:
        return False
    raise Refused(
        415,
        "unsupported_encoding",
        "Content-Encoding may be gzip, or absent.",
        headers=((b"accept-encoding", b"gzip"),),
    )

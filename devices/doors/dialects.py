"""The door for apps that exist: what a dialect reads becomes fixes, answered in its own words.

Each app carries the device's token where it has room for a secret. Such an app keeps what was
refused and sends it again, for ever: so a fix that nothing can mend is answered as taken, though it
is rejected and counted; refused is what somebody can put right.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from django.conf import settings
from django.db import close_old_connections

from brands.storable import is_storable
from devices import registration
from devices.auth import DeviceIdentity, TokenMemory
from devices.doors.answers import NO_TOKEN, REVOKED, Answer, answer_refusal, too_many
from devices.doors.decoding import Decoded, Refused, Rejection, explained, not_json
from devices.doors.door import (
    INLINE_BYTES,
    UNKNOWN,
    Door,
    Headers,
    Prepared,
    Receive,
    Scope,
    Shared,
    headers_of,
    is_gzip,
    is_unproven,
)
from devices.doors.limits import RateLimit
from devices.fixes import FixIn, row_of
from devices.gathering import GroupCommit, now_ms
from devices.models import Device, DeviceState

MAX_PUSH_TOKEN = 4096  # as at registration
MAX_FIELDS = 200
NOTHING: Decoded[FixIn] = Decoded([], None, [])
_NUMBER = re.compile(r"-?\d{1,20}(\.\d*)?")
Record = TypeVar("Record", bound=msgspec.Struct)


class Head(NamedTuple):
    """What is known of a request before its body."""

    method: str
    authorization: bytes
    content_type: str  # lower case, without parameters
    query: bytes
    now_ms: int

    @property
    def is_json(self) -> bool:
        return self.content_type in {"application/json", "text/json"}


class Letter(NamedTuple):
    """What an app sent. A token only where it stands beside the fixes."""

    fixes: Decoded[FixIn]
    token: str = ""
    push_token: str = ""


class Taken(NamedTuple):
    """What became of a letter, for whoever words the answer."""

    letter: Letter
    identity: DeviceIdentity
    accepted: int
    rejected: list[Rejection]
    began_ms: int


class Dialect(ABC):
    """One app's language. Pure but for `said`, where `looks_again` is set."""

    methods: ClassVar[tuple[str, ...]] = ("POST",)
    looks_again: ClassVar[bool] = False  # `said` asks the database: it runs on a thread

    @abstractmethod
    def token_of(self, head: Head) -> str | None:
        """The device's token, empty where none is said; None where it stands in the body."""

    @abstractmethod
    def read(self, head: Head, body: bytes) -> Letter:
        """Raises Refused for what is no message of this app."""

    @abstractmethod
    def said(self, taken: Taken) -> Answer:
        """The answer once everything is durable."""

    def refused(self, head: Head, reply: Answer) -> Answer:  # noqa: ARG002 - some tell by it
        """A refusal in the app's words."""
        return reply


class DialectDoor(Door):
    """One path of an app that exists."""

    def __init__(
        self,
        dialect: Dialect,
        gatherer: GroupCommit,
        shared: Shared,
        *,
        tokens: TokenMemory,
        rate: RateLimit,
    ) -> None:
        super().__init__(gatherer, shared)
        self._dialect, self._tokens, self._rate = dialect, tokens, rate

    async def reply(self, scope: Scope, receive: Receive) -> Answer | None:
        headers = headers_of(scope["headers"])
        head = Head(
            scope["method"],
            headers.authorization,
            headers.content_type.decode("latin-1").partition(";")[0].strip().lower(),
            scope["query_string"],
            now_ms(),
        )
        try:
            reply = await self._take(head, headers, receive)
        except Exception as error:  # noqa: BLE001 - as at every door
            reply = self.fault(error)
        return self._dialect.refused(head, reply) if reply is not None and reply.code else reply

    async def _take(self, head: Head, headers: Headers, receive: Receive) -> Answer | None:
        if head.method not in self._dialect.methods:
            return _not_allowed(self._dialect.methods)
        token = self._dialect.token_of(head)
        identity = None if token is None else self._admit(token)
        if isinstance(identity, Answer):
            return identity
        packed = is_gzip(headers.content_encoding)
        body = await self.read(headers, receive)
        if body is None:
            return None
        if packed or len(body) > INLINE_BYTES:
            letter = await self.on_thread(self._open, head, body, packed)
        else:
            letter = self._dialect.read(head, body)
        if identity is None:
            identity = self._admit(letter.token)
        if isinstance(identity, Answer):
            return identity
        items, places, rejected = letter.fixes
        if wait_s := self._rate.wait_for_items_s(identity.device_id, len(items)):
            return too_many(wait_s)
        if letter.push_token and not await self.on_thread(_keep, identity, letter.push_token):
            return REVOKED
        device_id, brand_id, serial = identity
        rows = [row_of(fix, device_id=device_id, brand_id=brand_id, serial=serial) for fix in items]
        outcome = await self.hand_on(Prepared(rows, places, list(rejected)))
        if outcome is None or (is_unproven(outcome) and not await self.on_thread(stands, identity)):
            return REVOKED
        taken = Taken(letter, identity, *outcome, head.now_ms)
        if self._dialect.looks_again:
            return await self.on_thread(self._dialect.said, taken)
        return self._dialect.said(taken)

    def _admit(self, token: str) -> DeviceIdentity | Answer:
        identity = self._tokens.identify(b"Bearer " + token.encode("utf-8", "replace"))
        if identity is None:
            return NO_TOKEN
        wait_s = self._rate.wait_s(identity.device_id)
        return too_many(wait_s) if wait_s else identity

    def _open(self, head: Head, body: bytes, packed: bool) -> Letter:
        return self._dialect.read(head, self.unpacked(body) if packed else body)

    def is_revoked(self, verdicts: list[int]) -> bool:
        return UNKNOWN in verdicts


def stands(identity: DeviceIdentity) -> bool:
    """Whether the token is still the device's; where no row of its own has told, on a thread.

    An app that is told so registers again; one that always hears of success never does.
    """
    close_old_connections()
    device_id, brand_id, serial = identity
    mine = DeviceState.objects.filter(device_id=device_id, brand_id=brand_id, serial=serial)
    return mine.exists()


def _keep(identity: DeviceIdentity, push_token: str) -> bool:
    """Where pushes go to from now on; False where the device's own token is revoked."""
    if not stands(identity):
        return False
    device_id = identity.device_id
    if not Device.objects.filter(pk=device_id, push_token=push_token).exists():
        registration.change(device_id, {"push_token": push_token}, now=datetime.now(UTC))
    return True


def _not_allowed(methods: Sequence[str]) -> Answer:
    names = ", ".join(methods)
    allow = ((b"allow", names.encode()),)
    return answer_refusal(Refused(405, "method_not_allowed", f"Only {names}.", headers=allow))


def bearer(head: Head) -> str:
    """Of `Authorization: Bearer <token>`; empty without one."""
    scheme, _, token = head.authorization.partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""


def json_of(body: bytes) -> Any:
    """Raises Refused for what is no JSON."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise not_json(error) from error


def object_of(body: bytes) -> dict[str, Any]:
    """Raises Refused for what is no JSON object."""
    said = json_of(body)
    if not isinstance(said, dict):
        raise Refused(422, "invalid", "The body must be a JSON object.")
    return said


def form_of(text: bytes) -> dict[str, str]:
    """A query or a form's fields, the last of each name; what is empty was not said.

    Raises Refused for more than anybody sends.
    """
    try:
        return dict(parse_qsl(text.decode("utf-8", "replace"), max_num_fields=MAX_FIELDS))
    except ValueError:
        raise Refused(413, "too_many_items", f"At most {MAX_FIELDS} fields.") from None


def push_token_of(said: Any) -> str:
    """A push token as an app sends it, or nothing. Raises Refused for what cannot be one."""
    if said is None or said == "":
        return ""
    if not isinstance(said, str) or len(said) > MAX_PUSH_TOKEN or not is_storable(said):
        raise Refused(422, "invalid", "The push token cannot be one.")
    return said


def fixes_of(
    records: Sequence[Any], shape: type[Record], fix_of: Callable[[Record], FixIn | None]
) -> Decoded[FixIn]:
    """Records as fixes; what is malformed rejects itself alone, what tells no place is none."""
    if len(records) > settings.MAX_ITEMS:
        said = f"{len(records)} records are more than the {settings.MAX_ITEMS} allowed."
        raise Refused(413, "too_many_items", said)
    items: list[FixIn] = []
    places: list[int] = []
    rejected: list[Rejection] = []
    for place, record in enumerate(records):
        try:
            fix = fix_of(msgspec.convert(record, shape, strict=False))
        except msgspec.ValidationError as error:
            field, why = explained(error)
            rejected.append(Rejection(place, "invalid", f"{field}: {why}" if field else why))
            continue
        if fix is not None:
            items.append(fix)
            places.append(place)
    return Decoded(items, places, rejected)


def instant(said: str | float, field: str) -> datetime | float:
    """A time as these apps write it: ISO 8601, `2014-06-04 09:10:11` (UTC), seconds or ms."""
    if not isinstance(said, str):
        return said
    if _NUMBER.fullmatch(said):
        return float(said)
    try:
        return datetime.fromisoformat(said)
    except ValueError:
        raise msgspec.ValidationError(f"Expected a time - at `$.{field}`") from None


def scaled(value: float | None, factor: float) -> float | None:
    """In our unit; unknown stays unknown, which these apps also write as a negative number."""
    return None if value is None else value * factor

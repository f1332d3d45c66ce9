"""Bodies into items: one, many, wrapped, NDJSON, gzip. What is malformed rejects itself alone.

The fast road decodes a whole body with one call; only where that fails is each item looked at
alone. Pure: it knows no request, no clock and no row.
"""

from __future__ import annotations

import re
import zlib
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

import msgspec

Item = TypeVar("Item", bound=msgspec.Struct)

MOST_MEMBERS = 10_000  # as many as items in a call: some pack each alone
_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 4096
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*?)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_anything = msgspec.json.Decoder()


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The whole request is refused: its status and CONTRACT's error shape."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: dict[str, list[str]] | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.fields, self.headers = fields or {}, headers


class Rejection(msgspec.Struct):
    """One item that was not taken, as it is answered."""

    index: int
    code: str
    message: str


class Decoded(NamedTuple, Generic[Item]):
    """`items[i]` stood at `places[i]` of the body; no `places`: at i."""

    items: list[Item]
    places: list[int] | None
    rejected: list[Rejection]


def inflated(body: bytes, *, max_bytes: int) -> bytes:
    """A gzip body unpacked, never beyond the limit: a bomb costs what the limit costs."""
    parts: list[bytes] = []
    room = max_bytes
    members = begin = 0
    while begin < len(body):
        members += 1
        if members > MOST_MEMBERS:
            raise Refused(400, "not_gzip", f"More than {MOST_MEMBERS:,} gzip members.")
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            if begin >= len(body):
                raise Refused(400, "not_gzip", "The gzip body ends early.")
            # A piece at a time: what follows a member is copied when it ends.
            piece = body[begin : begin + _PIECE_BYTES]
            begin += len(piece)
            try:
                part = member.decompress(piece, room + 1)
            except zlib.error as error:
                raise Refused(400, "not_gzip", "The body is not gzip.") from error
            room -= len(part)
            if room < 0:
                raise too_large(max_bytes)
            parts.append(part)
        begin -= len(member.unused_data)
    return b"".join(parts)


def too_large(max_bytes: int) -> Refused:
    return Refused(413, "too_large", f"The body is larger than {max_bytes} bytes.")


class ItemReader(Generic[Item]):
    """Reads bodies of one kind of item, e.g. fixes wrapped as {"locations": […]}."""

    def __init__(self, kind: type[Item], *, envelope: str, time_field: str, max_items: int) -> None:
        self._kind = kind
        self._envelope = envelope
        self._mark = f'"{envelope}"'.encode()
        self._time_field = time_field
        self._max_items = max_items
        self._one = msgspec.json.Decoder(kind)
        self._many = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        wrapped = msgspec.defstruct("Wrapped", [("items", list[kind])], rename={"items": envelope})  # type: ignore[valid-type]
        self._wrapped = msgspec.json.Decoder(wrapped)

    def read(self, body: bytes, *, lines: bool = False) -> Decoded[Item]:
        """The items of a body; raises Refused where none can be read or there are too many."""
        try:
            if lines:
                items = self._one.decode_lines(body)
            elif self._mark in body:
                items = self._wrapped.decode(body).items  # type: ignore[attr-defined]
            elif body[:1] == b"[":
                items = self._many.decode(body)
            else:
                return Decoded([self._one.decode(body)], None, [])
        except (ValueError, RecursionError):
            return self._read_slowly(body, lines)
        self._refuse_too_many(len(items))
        return Decoded(items, None, [])

    def read_values(self, values: list[msgspec.Raw]) -> Decoded[Item]:
        """Items that are JSON each; the malformed are rejected by themselves."""
        self._refuse_too_many(len(values))
        items: list[Item] = []
        places: list[int] = []
        rejected: list[Rejection] = []
        for place, value in enumerate(values):
            try:
                items.append(self._decode(value))
                places.append(place)
            except (ValueError, RecursionError) as error:
                field, why = explained(error)
                rejected.append(Rejection(place, "invalid", f"{field}: {why}" if field else why))
        return Decoded(items, places, rejected)

    def _read_slowly(self, body: bytes, lines: bool) -> Decoded[Item]:
        if lines:
            return self._read_lines(body)
        if body.lstrip()[:1] == b"[":
            return self.read_values(_well_formed(_raw_list, body))
        try:
            whole = _raw_object.decode(body)
        except msgspec.ValidationError as error:
            raise Refused(
                422, "invalid", f"The body must be an object or a list of {self._envelope}."
            ) from error
        except (ValueError, RecursionError) as error:
            raise not_json(error) from error
        if self._envelope not in whole:
            return self._read_lone(body)
        try:
            return self.read_values(_raw_list.decode(whole[self._envelope]))
        except (ValueError, RecursionError) as error:
            raise Refused(
                422, "invalid", "See fields.", fields={self._envelope: ["Expected a list."]}
            ) from error

    def _read_lone(self, body: bytes) -> Decoded[Item]:
        """A body that is one item: where the item is wrong, the whole body is."""
        try:
            return Decoded([self._decode(msgspec.Raw(body))], None, [])
        except (ValueError, RecursionError) as error:
            field, why = explained(error)
            raise Refused(
                422, "invalid", "See fields.", fields={field or "non_field_errors": [why]}
            ) from error

    def _read_lines(self, body: bytes) -> Decoded[Item]:
        values = [line for line in map(bytes.strip, body.split(b"\n")) if line]
        decoded = self.read_values([msgspec.Raw(line) for line in values])
        if not decoded.items and not any(_is_json(value) for value in values):
            raise Refused(400, "not_json", "No line of the body is JSON.")
        return decoded

    def _decode(self, value: msgspec.Raw) -> Item:
        """One item; its time may be any ISO 8601, which the fast decoder reads only in part."""
        try:
            return self._one.decode(value)
        except msgspec.ValidationError as error:
            if self._time_field not in str(error):
                raise
            try:
                loose = _anything.decode(value)
            except (ValueError, RecursionError):  # which field, the first error says
                raise error from None
            at = loose.get(self._time_field) if isinstance(loose, dict) else None
            if not isinstance(at, str):
                raise
            try:
                loose[self._time_field] = datetime.fromisoformat(at)
            except ValueError:
                raise error from None
            return msgspec.convert(loose, self._kind)

    def _refuse_too_many(self, count: int) -> None:
        if count > self._max_items:
            raise Refused(
                413, "too_many_items", f"{count} items are more than the {self._max_items} allowed."
            )


def explained(error: Exception) -> tuple[str, str]:
    """The field and the reason of a decoding error; the field is empty where it names none."""
    text = str(error)
    missing = _MISSING.search(text)
    at = _PLACE.search(text)
    field = missing.group(1) if missing else ""
    if at:
        field = ".".join(part for part in (at.group(1), field) if part)
        text = text[: at.start()]
    if missing:
        return field, "Required."
    if isinstance(error, msgspec.ValidationError):
        return field, text.replace("`", "") + "."
    return field, "Not JSON in UTF-8, or nested too deep."


def not_json(error: Exception) -> Refused:
    return Refused(400, "not_json", f"The body is not JSON: {str(error)[:200]}.")


def _well_formed(
    decoder: msgspec.json.Decoder[list[msgspec.Raw]], body: bytes
) -> list[msgspec.Raw]:
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise not_json(error) from error


def _is_json(value: bytes) -> bool:
    try:
        _anything.decode(value)
    except (ValueError, RecursionError):
        return False
    return True

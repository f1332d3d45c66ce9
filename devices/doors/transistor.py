"""Transistor's Background Geolocation (React Native, Flutter, Capacitor, Cordova, native).

One record or a list of them, under `location` or at the root. A 2xx deletes the records from the
phone; what is rejected is named in the answer, which the app's `onHttp` hears. A body in which no
record can be found is refused: there is something to put right in the app, and nothing is lost.
"""

from __future__ import annotations

from typing import Any

import msgspec

from devices.doors.answers import Answer
from devices.doors.decoding import Decoded, Refused
from devices.doors.dialects import (
    Dialect,
    Head,
    Letter,
    Taken,
    bearer,
    fixes_of,
    instant,
    json_of,
)
from devices.doors.door import answer_outcome
from devices.fixes import FixIn

ROOT = "location"  # the SDK's `httpRootProperty` unless the app sets another


_MARKS = {"coords", "uuid", "event"}


class _Coords(msgspec.Struct):
    """Degrees, metres, metres per second; -1 is unknown."""

    latitude: float
    longitude: float
    accuracy: float | None = None
    speed: float | None = None
    heading: float | None = None
    altitude: float | None = None


class _Battery(msgspec.Struct):
    level: float | None = None


class TransistorRecord(msgspec.Struct):
    """One record of the SDK, which Traccar Client sends as well."""

    timestamp: str | int | float | None = None
    coords: _Coords | None = None
    uuid: str | int | None = None
    mock: bool | None = None
    battery: _Battery | None = None
    event: str | None = None


class Transistor(Dialect):
    """`/compat/transistor`, with the device's token as bearer."""

    def token_of(self, head: Head) -> str:
        return bearer(head)

    def read(self, head: Head, body: bytes) -> Letter:  # noqa: ARG002 - all is in the body
        said = json_of(body)
        return Letter(records_of(said[ROOT] if isinstance(said, dict) and ROOT in said else said))

    def said(self, taken: Taken) -> Answer:
        return answer_outcome((taken.accepted, taken.rejected))


def records_of(said: Any) -> Decoded[FixIn]:
    """One record, or a list; raises Refused where none of it is one."""
    records = said if isinstance(said, list) else [said]
    if records and not any(map(_is_record, records)):
        why = f"No record with coords: not under {ROOT} (httpRootProperty), nor is it the body."
        raise Refused(422, "invalid", "See fields.", fields={ROOT: [why]})
    return fixes_of(records, TransistorRecord, fix_of)


def _is_record(said: Any) -> bool:
    """Whether the SDK can have made it: a record that tells no place is named or has an event."""
    return isinstance(said, dict) and not _MARKS.isdisjoint(said)


def fix_of(said: TransistorRecord) -> FixIn | None:
    """None for a record that tells no place, as a heartbeat may."""
    if said.coords is None:
        if said.event is None and said.uuid is None:
            raise msgspec.ValidationError("Object missing required field `coords`")
        return None
    if said.timestamp is None:
        raise msgspec.ValidationError("Object missing required field `timestamp`")
    coords = said.coords
    return FixIn(
        lat=coords.latitude,
        lng=coords.longitude,
        recorded_at=instant(said.timestamp, "timestamp"),
        accuracy_m=coords.accuracy,
        speed_mps=coords.speed,
        heading_deg=coords.heading,
        altitude_m=coords.altitude,
        id=said.uuid,
        mock=said.mock,
        battery=said.battery.level if said.battery else None,
    )

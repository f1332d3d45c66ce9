"""Traccar Client and whatever else speaks OsmAnd: fields in a query or a form, or JSON.

The device identifier is the device's token. A message without a position may bring a push token;
without that it is a heartbeat, and tells nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from devices.doors.answers import Answer, answer
from devices.doors.decoding import Refused
from devices.doors.dialects import (
    NOTHING,
    Dialect,
    Head,
    Letter,
    Taken,
    fixes_of,
    form_of,
    instant,
    object_of,
    push_token_of,
    scaled,
)
from devices.doors.door import answer_outcome
from devices.doors.transistor import ROOT, records_of
from devices.fixes import FixIn

MPS_PER_KNOT = 1852 / 3600
_EMPTY = answer(200, b"")  # what stands in an answer, some trackers take for an order
_NO_NEWS = {
    "id",
    "deviceid",
    "device_id",
    "notificationToken",
}  # all that a JSON without a place has
_NO_PLACE = {"lat", "lon", "location"}


class TraccarFields(msgspec.Struct):
    """Degrees, metres, knots, percent."""

    lat: float
    lon: float
    timestamp: str | int | float
    accuracy: float | None = None
    speed: float | None = None
    bearing: float | None = None
    heading: float | None = None
    altitude: float | None = None
    batt: float | None = None
    mock: bool | None = None
    valid: bool = True


class Traccar(Dialect):
    """`/compat/traccar`."""

    methods: ClassVar[tuple[str, ...]] = ("GET", "POST")

    def token_of(self, head: Head) -> None:  # noqa: ARG002 - it is among the fields
        return None

    def read(self, head: Head, body: bytes) -> Letter:
        fields: dict[str, Any] = form_of(head.query)
        fixes = NOTHING
        if head.is_json:
            said = object_of(body)
            fields |= {name: value for name, value in said.items() if name != ROOT}
            if ROOT in said:
                fixes = records_of(said[ROOT])
            elif not said.keys() <= _NO_NEWS:
                # A 2xx would delete it from the phone, whatever it is.
                raise Refused(422, "invalid", "See fields.", fields={ROOT: ["Required."]})
        else:
            fields |= form_of(body)
            if _completed(fields, head.now_ms):
                fixes = fixes_of([fields], TraccarFields, _fix_of)
        token = fields.get("id") or fields.get("deviceid") or fields.get("device_id")
        return Letter(
            fixes,
            token=token if isinstance(token, str) else "",
            push_token=push_token_of(fields.get("notificationToken")),
        )

    def said(self, taken: Taken) -> Answer:
        return answer_outcome((taken.accepted, taken.rejected)) if taken.rejected else _EMPTY

    def refused(self, head: Head, reply: Answer) -> Answer:
        """An unknown device is 404 to the clients that send JSON, 400 to all before them."""
        if reply.start["status"] != 401:
            return reply
        return answer(404 if head.is_json else 400, reply.body["body"], code=reply.code)


def _completed(fields: dict[str, Any], now_ms: int) -> bool:
    """Whether they tell of a place at all; completed by its parts and by the time, which is now."""
    if "location" in fields:
        fields["lat"], _, fields["lon"] = fields["location"].partition(",")
    fields.setdefault("timestamp", now_ms)
    return not _NO_PLACE.isdisjoint(fields)


def _fix_of(said: TraccarFields) -> FixIn:
    if not said.valid:
        raise msgspec.ValidationError("The receiver had no fix - at `$.valid`")
    return FixIn(
        lat=said.lat,
        lng=said.lon,
        recorded_at=instant(said.timestamp, "timestamp"),
        accuracy_m=said.accuracy,
        speed_mps=scaled(said.speed, MPS_PER_KNOT),
        heading_deg=said.heading if said.bearing is None else said.bearing,
        altitude_m=said.altitude,
        mock=said.mock,
        battery=scaled(said.batt, 0.01),
    )

"""OwnTracks in HTTP mode: one message a POST, answered with a list of messages, mostly none.

Android takes any 2xx for received and drops its message; anything else is sent again. Reported
positions are those of `location` and `transition`; all other messages tell of no place.
"""

from __future__ import annotations

from base64 import b64decode

import msgspec

from devices.doors.answers import Answer, answer
from devices.doors.decoding import Refused
from devices.doors.dialects import (
    NOTHING,
    Dialect,
    Head,
    Letter,
    Taken,
    bearer,
    fixes_of,
    object_of,
    scaled,
)
from devices.fixes import FixIn

MPS_PER_KMH = 1 / 3.6
_POSITIONS = frozenset({"location", "transition"})
_NO_NEWS = answer(200, b"[]")
_CHALLENGE = ((b"www-authenticate", b'Basic realm="Nearcast", charset="UTF-8"'),)


class OwnTracksMessage(msgspec.Struct):
    """Degrees, epoch seconds, metres, km/h, percent."""

    lat: float
    lon: float
    tst: int | float
    acc: float | None = None
    vel: float | None = None
    cog: float | None = None
    alt: float | None = None
    batt: float | None = None


class OwnTracks(Dialect):
    """`/compat/owntracks`: the password is the device's token, whatever the user's name."""

    def token_of(self, head: Head) -> str:
        scheme, _, credentials = head.authorization.partition(b" ")
        if scheme.lower() != b"basic":
            return bearer(head)
        try:
            return b64decode(credentials, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""

    def read(self, head: Head, body: bytes) -> Letter:  # noqa: ARG002 - all is in the body
        if not body.strip():
            return Letter(NOTHING)  # Android sends such
        said = object_of(body)
        kind = said.get("_type")
        if kind == "encrypted":
            # Taken, it would be gone from the phone, and nobody here can read it.
            raise Refused(422, "encrypted", "Take the encryption key out of the app's settings.")
        if not isinstance(kind, str):
            raise Refused(422, "invalid", "See fields.", fields={"_type": ["Required."]})
        return Letter(
            fixes_of([said], OwnTracksMessage, _fix_of) if kind in _POSITIONS else NOTHING
        )

    def said(self, taken: Taken) -> Answer:  # noqa: ARG002 - it reads nothing else
        return _NO_NEWS

    def refused(self, head: Head, reply: Answer) -> Answer:  # noqa: ARG002 - Dialect's
        if reply.start["status"] != 401:
            return reply
        return answer(401, reply.body["body"], _CHALLENGE, code=reply.code)


def _fix_of(said: OwnTracksMessage) -> FixIn:
    return FixIn(
        lat=said.lat,
        lng=said.lon,
        recorded_at=said.tst,
        accuracy_m=said.acc,
        speed_mps=scaled(said.vel, MPS_PER_KMH),
        heading_deg=said.cog,
        altitude_m=said.alt,
        battery=scaled(said.batt, 0.01),
    )

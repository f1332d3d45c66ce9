"""Radar's SDKs and API: `track`, and `track/replay` for what was recorded offline.

The key that the SDK is initialised with is the device's token. The answer tells what the fix
changed and where the device is now, in Radar's shape.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from django.db import close_old_connections

from devices.auth import DeviceIdentity
from devices.doors.answers import Answer, answer
from devices.doors.decoding import Refused, Rejection
from devices.doors.dialects import (
    Dialect,
    Head,
    Letter,
    Taken,
    bearer,
    fixes_of,
    form_of,
    instant,
    object_of,
    push_token_of,
)
from devices.fixes import FixIn, RejectCode
from devices.models import Presence, Transition
from devices.presence import PresenceState, TransitionKind
from geofences.models import Geofence

_encode = msgspec.json.Encoder().encode
_OK = {"code": 200}
_TYPES = {
    TransitionKind.ENTERED: "user.entered_geofence",
    TransitionKind.EXITED: "user.exited_geofence",
    TransitionKind.DWELLED: "user.dwelled_in_geofence",
}
_PARAMS = {  # the fields that reject codes speak of
    RejectCode.LAT_OUT_OF_RANGE: "latitude",
    RejectCode.LNG_OUT_OF_RANGE: "longitude",
    RejectCode.NULL_ISLAND: "latitude",
    RejectCode.RECORDED_IN_FUTURE: "updatedAt",
    RejectCode.TOO_OLD: "updatedAt",
}


class RadarTrack(msgspec.Struct, rename="camel"):
    """Degrees, metres, metres per second."""

    latitude: float
    longitude: float
    accuracy: float | None = None
    speed: float | None = None
    course: float | None = None
    altitude: float | None = None
    updated_at: str | None = None
    location_ms: float | None = None
    updated_at_ms_diff: float | None = None  # how long ago it was when it was sent
    mocked: bool | None = None


class Radar(Dialect):
    """`/compat/radar/v1/track`."""

    looks_again = True

    def token_of(self, head: Head) -> str:
        return bearer(head) or head.authorization.strip().decode("latin-1")

    def read(self, head: Head, body: bytes) -> Letter:
        said = object_of(body) if head.is_json else form_of(body)
        return Letter(
            fixes_of([said], RadarTrack, partial(_fix_of, now_ms=head.now_ms)),
            push_token=push_token_of(said.get("pushNotificationToken")),
        )

    def said(self, taken: Taken) -> Answer:
        if taken.rejected:
            return _rejected(taken.rejected[0])
        (fix,) = taken.letter.fixes.items
        close_old_connections()
        here = {
            "location": {"type": "Point", "coordinates": [fix.lng, fix.lat]},
            # 0 and less are unknown, as in `devices.fixes`.
            "locationAccuracy": fix.accuracy_m if (fix.accuracy_m or 0) > 0 else None,
        }
        events = _events(taken.identity, taken.began_ms)
        user = {"_id": str(taken.identity.device_id), "geofences": _inside(taken.identity), **here}
        return answer(
            200,
            _encode(
                {"meta": _OK, "events": [event | here for event in events], "user": user},
            ),
        )

    def refused(self, head: Head, reply: Answer) -> Answer:  # noqa: ARG002 - Dialect's
        status = reply.start["status"]
        kept = [each for each in reply.start["headers"] if each[0] in {b"allow", b"retry-after"}]
        meta = {"code": status, "message": msgspec.json.decode(reply.body["body"])["message"]}
        return answer(status, _encode({"meta": meta}), kept, code=reply.code)


class RadarReplay(Radar):
    """`/compat/radar/v1/track/replay`: `{"replays": [track, …]}`; what is rejected is left out."""

    looks_again = False

    def read(self, head: Head, body: bytes) -> Letter:
        replays = object_of(body).get("replays")
        if not isinstance(replays, list):
            raise Refused(422, "invalid", "replays: Expected a list.")
        return Letter(fixes_of(replays, RadarTrack, partial(_fix_of, now_ms=head.now_ms)))

    def said(self, taken: Taken) -> Answer:
        return answer(
            200,
            _encode({"meta": _OK, "accepted": taken.accepted, "rejected": taken.rejected}),
        )


def _fix_of(said: RadarTrack, *, now_ms: int) -> FixIn:
    if said.updated_at is not None:
        at: datetime | float = instant(said.updated_at, "updatedAt")
    elif said.location_ms is not None:
        at = said.location_ms
    else:
        at = now_ms - (said.updated_at_ms_diff or 0)
    return FixIn(
        lat=said.latitude,
        lng=said.longitude,
        recorded_at=at,
        accuracy_m=said.accuracy,
        speed_mps=said.speed,
        heading_deg=said.course,
        altitude_m=said.altitude,
        mock=said.mocked,
    )


def _rejected(rejection: Rejection) -> Answer:
    field, _, said = rejection.message.partition(": ")
    param = _PARAMS.get(RejectCode(rejection.code), field if said else None)
    meta = {"code": 400, "message": rejection.message} | ({"param": param} if param else {})
    return answer(400, _encode({"meta": meta}))


def _events(identity: DeviceIdentity, since_ms: int) -> list[dict[str, Any]]:
    """What changed since the request came, oldest first."""
    told = list(
        Transition.objects.filter(
            device_id=identity.device_id,
            brand_id=identity.brand_id,
            recorded_at__gte=datetime.fromtimestamp(since_ms / 1000, UTC),
            kind__in=_TYPES,
        ).order_by("id")
    )
    places = _geofences([each.geofence_id for each in told])
    return [
        {
            "_id": str(each.pk),
            "type": _TYPES[TransitionKind(each.kind)],
            "createdAt": each.recorded_at,
            "actualCreatedAt": each.occurred_at,
            "live": True,
            "confidence": 3,
            "geofence": places[each.geofence_id],
        }
        for each in told
        if each.geofence_id in places
    ]


def _inside(identity: DeviceIdentity) -> list[dict[str, Any]]:
    """Where the device is believed to be now."""
    ids = Presence.objects.filter(
        device_id=identity.device_id, state__in=(PresenceState.INSIDE, PresenceState.LEAVING)
    ).values_list("geofence_id", flat=True)
    return list(_geofences(list(ids)).values())


def _geofences(ids: list[int]) -> dict[int, dict[str, Any]]:
    return {
        each.pk: {
            "_id": str(each.pk),
            "externalId": each.external_id,
            "tag": next(iter(each.tags), None),
            "description": each.name,
            "metadata": each.metadata,
        }
        for each in Geofence.objects.filter(pk__in=ids).only(
            "external_id", "tags", "name", "metadata"
        )
    }

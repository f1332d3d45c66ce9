"""Device paths off the fast road: registration, a device's own row, what to monitor, profiles.

The doors take fixes and events; these come a few times a day per phone, so DRF may serve them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, cast

import msgspec
import numpy as np
from django.conf import settings
from django.http import HttpResponse
from django.utils.timezone import now
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.exceptions import APIException, NotFound, ValidationError
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from brands.access import PublishableKeyAuthentication, ServerKeyAuthentication
from brands.bodies import JsonBody, WholeBody
from brands.filejobs import Verdict, counted
from brands.keys import KeyIdentity
from brands.storable import is_storable
from devices import exports, people, profiles, registration
from devices.attributes import NAME
from devices.auth import DeviceIdentity, DeviceTokenAuthentication
from devices.doors.decoding import ItemReader, Refused, Rejection
from devices.exports import device_out
from devices.fields import Attributes, Instant, Locale, Text, Timezone, Truth
from devices.models import Device, DeviceState, Platform
from devices.nearby import bounding_circle
from devices.profiles import ProfileIn
from geofences.armed import follower
from geofences.models import Geofence

MAX_OWN_BODY_BYTES = 64 * 1024  # a registration with a full attribute bag stays below
MAX_NEARBY = 100  # Android monitors that many geofences for an app, iOS 20
DEFAULT_NEARBY = 19  # iOS' twentieth region is the circle out of which to ask again
# Of more places at one spot than a phone can watch some are always left out: asking again without
# having moved brings no others. Systems watch no finer regions than this (Android: 100 to 150 m).
LEAST_REFRESH_M = 100.0


class ConsentIn(serializers.Serializer[Any]):
    location = Truth()
    marketing = Truth()
    version = Text(max_length=32)


class ConsentChangeIn(ConsentIn):
    location = Truth(required=False)
    marketing = Truth(required=False)
    version = Text(max_length=32, required=False)


class _Told(serializers.Serializer[Any]):
    """What a device may say of itself; what is absent stays as it was."""

    external_id = Text(max_length=128, required=False, allow_null=True)
    push_token = Text(max_length=4096, required=False, allow_null=True)
    locale = Locale(max_length=35, required=False, allow_blank=True, allow_null=True)
    timezone = Timezone(max_length=64, required=False, allow_blank=True, allow_null=True)
    app_version = Text(max_length=32, required=False, allow_blank=True, allow_null=True)
    attributes = Attributes(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Unknown is absent or null (CONTRACT); columns of text have it empty."""
        texts = ("locale", "timezone", "app_version")
        return attrs | {name: "" for name in texts if attrs.get(name, "") is None}


class ChangeIn(_Told):
    consent = ConsentChangeIn(required=False)


class RegistrationIn(_Told):
    installation_id = Text(max_length=128)
    platform = serializers.ChoiceField(choices=Platform.choices)
    consent = ConsentIn()


class RegisteredOut(serializers.Serializer[Any]):
    device_id = serializers.IntegerField()
    token = serializers.CharField()


class ConsentOut(serializers.Serializer[Any]):
    location = serializers.BooleanField()
    marketing = serializers.BooleanField()
    version = serializers.CharField()
    at = serializers.DateTimeField(allow_null=True)


class DeviceOut(serializers.Serializer[Any]):
    device_id = serializers.IntegerField()
    installation_id = serializers.CharField()
    platform = serializers.ChoiceField(choices=Platform.choices)
    external_id = serializers.CharField(allow_null=True)
    push_token = serializers.CharField(allow_null=True)
    locale = serializers.CharField()
    timezone = serializers.CharField()
    app_version = serializers.CharField()
    attributes = serializers.DictField()
    consent = ConsentOut()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class NearbyIn(serializers.Serializer[Any]):
    lat = serializers.FloatField(min_value=-90, max_value=90)
    lng = serializers.FloatField(min_value=-180, max_value=180)
    limit = serializers.IntegerField(min_value=1, max_value=MAX_NEARBY, default=DEFAULT_NEARBY)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        wrong = [name for name in ("lat", "lng") if not np.isfinite(attrs[name])]
        if wrong:
            raise ValidationError({name: ["A valid number is required."] for name in wrong})
        return attrs


class CircleOut(serializers.Serializer[Any]):
    lat = serializers.FloatField()
    lng = serializers.FloatField()
    radius_m = serializers.FloatField()


class NearbyGeofenceOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    external_id = serializers.CharField(allow_null=True)
    name = serializers.CharField()
    shape = serializers.ChoiceField(choices=["circle", "polygon"])
    distance_m = serializers.FloatField(help_text="To its edge; 0 inside.")
    circle = CircleOut(help_text="What the phone's own region monitoring takes; holds it all.")


class NearbyOut(serializers.Serializer[Any]):
    geofences = NearbyGeofenceOut(many=True)
    refresh_radius_m = serializers.FloatField(
        help_text="How far the device may move before asking again, 100 at least."
    )


REJECTED = inline_serializer(
    "Rejected",
    {
        "index": serializers.IntegerField(),
        "code": serializers.CharField(),
        "message": serializers.CharField(),
    },
    many=True,
)
TAKEN = inline_serializer("Taken", {"accepted": serializers.IntegerField(), "rejected": REJECTED})
PROFILES_TAKEN = inline_serializer(
    "ProfilesTaken",
    {
        "accepted": serializers.IntegerField(),
        "rejected": REJECTED,
        "counts": serializers.DictField(
            child=serializers.IntegerField(), help_text="created, updated and unchanged."
        ),
    },
)


class OwnBody(JsonBody):
    """JSON of a device about itself: small."""

    max_bytes = MAX_OWN_BODY_BYTES


class LinesBody(WholeBody):
    media_type = "application/x-ndjson"


class DevicesView(APIView):
    """Where an app makes itself known."""

    authentication_classes = (PublishableKeyAuthentication,)
    permission_classes = (IsAuthenticated,)
    parser_classes = (OwnBody,)

    @extend_schema(
        operation_id="register_device",
        request=RegistrationIn,
        responses={200: RegisteredOut, 201: RegisteredOut},
    )
    def post(self, request: Request) -> Response:
        """Register an installation: 201, or 200 with a new token where it is known already."""
        given = valid(RegistrationIn, request)
        registered = registration.register(
            brand_id=cast(KeyIdentity, request.auth).brand_id,
            installation_id=given.pop("installation_id"),
            change=given,
            now=now(),
        )
        return Response(
            {"device_id": registered.device_id, "token": registered.token},
            status=HTTPStatus.CREATED if registered.created else HTTPStatus.OK,
        )


class OwnView(APIView):
    """A path of one device."""

    authentication_classes = (DeviceTokenAuthentication,)
    permission_classes = (IsAuthenticated,)
    parser_classes = (OwnBody,)

    def own(self) -> DeviceIdentity:
        return cast(DeviceIdentity, self.request.auth)


class OwnDeviceView(OwnView):
    @extend_schema(operation_id="read_device", responses=DeviceOut)
    def get(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """What is held about this device itself."""
        device = Device.objects.filter(pk=self.own().device_id).first()
        if device is None:
            raise NotFound
        return Response(DeviceOut(device_out(device)).data)

    @extend_schema(operation_id="change_device", request=ChangeIn, responses=DeviceOut)
    def patch(self, request: Request) -> Response:
        """Change what the body names; attributes are merged, null takes one away."""
        change = valid(ChangeIn, request)
        device = registration.change(self.own().device_id, change, now=now())
        if device is None:
            raise NotFound
        return Response(DeviceOut(device_out(device)).data)

    @extend_schema(operation_id="erase_device", request=None, responses={204: None})
    def delete(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """Erase the device and every row that names it; the back office's profile stays."""
        registration.erase(self.own().device_id)
        return Response(status=HTTPStatus.NO_CONTENT)


class ExportView(OwnView):
    @extend_schema(operation_id="export_device", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> HttpResponse:  # noqa: ARG002 - DRF's signature
        """Everything held about this device.

        What the brand's back office knows of its person is not in it: a device's token does not
        prove whose it is. The back office gives that out itself (`/v1/gateway/profiles/{id}`).
        """
        device = Device.objects.filter(pk=self.own().device_id).first()
        if device is None:
            raise NotFound
        return _file(exports.of_device(device), f"device-{device.pk}.json")


class NearbyView(OwnView):
    @extend_schema(operation_id="nearby_geofences", parameters=[NearbyIn], responses=NearbyOut)
    def get(self, request: Request) -> Response:
        """The armed geofences worth monitoring on the device, best first."""
        identity = self.own()
        if not DeviceState.objects.filter(
            device_id=identity.device_id, consent_location=True
        ).exists():
            raise ConsentMissing
        asked = NearbyIn(data=request.query_params)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        index = follower.current().index
        found = index.nearby(
            lat=given["lat"], lng=given["lng"], brand=identity.brand_id, limit=given["limit"]
        )
        ids = index.geofence_id[found.ordinal].tolist()
        rows = Geofence.objects.filter(brand_id=identity.brand_id).in_bulk(ids)
        listed = [
            _nearby_out(rows[geofence_id], -signed_m)
            for geofence_id, signed_m in zip(ids, found.distance_m.tolist(), strict=True)
            if geofence_id in rows
        ]
        refresh_m = max(LEAST_REFRESH_M, found.refresh_radius_m)
        return Response({"geofences": listed, "refresh_radius_m": refresh_m})


class ConsentMissing(APIException):
    status_code = HTTPStatus.FORBIDDEN
    default_code = "consent_withdrawn"
    default_detail = "The person has not agreed to the use of their location."


def _nearby_out(geofence: Geofence, outside_m: float) -> dict[str, Any]:
    lat, lng, radius_m = bounding_circle(geofence)
    return {
        "id": geofence.pk,
        "external_id": geofence.external_id,
        "name": geofence.name,
        "shape": "circle" if geofence.is_circle else "polygon",
        "distance_m": round(max(0.0, outside_m), 1),
        "circle": {"lat": lat, "lng": lng, "radius_m": round(radius_m, 1)},
    }


_profiles = ItemReader(
    ProfileIn, envelope="profiles", time_field="as_of", max_items=settings.MAX_ITEMS
)


class ProfilesView(APIView):
    """What a brand's CRM knows of people."""

    authentication_classes = (ServerKeyAuthentication,)
    permission_classes = (IsAuthenticated,)
    parser_classes = (WholeBody, LinesBody)

    @extend_schema(
        operation_id="upsert_profiles",
        parameters=[OpenApiParameter("source", str, description="Where it is from; crm.")],
        request=inline_serializer(
            "Profiles",
            {
                "profiles": inline_serializer(
                    "Profile",
                    {
                        "external_id": serializers.CharField(max_length=128),
                        "attributes": serializers.DictField(),
                        "as_of": Instant(
                            required=False,
                            allow_null=True,
                            help_text="When they were true, as ISO 8601 or epoch milliseconds;"
                            " absent: now.",
                        ),
                    },
                    many=True,
                )
            },
        ),
        responses=PROFILES_TAKEN,
    )
    def put(self, request: Request) -> Response:
        """Merge attributes by external id, up to 10,000 people a call; null takes one away.

        A person needs no device: one that registers later under that id finds the profile. With
        `as_of`, what is stored of a later time stays as it is. `?source=` names where it is from.
        """
        lines = str(request.content_type).startswith(LinesBody.media_type)
        try:
            items, places, rejected = _profiles.read(cast(bytes, request.data or b""), lines=lines)
        except Refused as refused:
            raise refusal_of(refused) from refused
        source = request.query_params.get("source", "crm")
        if not NAME.fullmatch(source):
            raise ValidationError({"source": ["A name: letters, digits or any of _.:-"]})
        at, good, kept = now(), [], []
        for number, item in enumerate(items):
            place = number if places is None else places[number]
            why = profiles.problem_of(item, now=at)
            if why is None:
                good.append(item)
                kept.append(place)
            else:
                rejected.append(Rejection(place, "invalid", why))
        brand_id = cast(KeyIdentity, request.auth).brand_id
        told = profiles.upsert(brand_id, good, source=source, now=at)
        counts = counted({}, (one.verdict for one in told))
        refused_late = counts.pop(Verdict.REFUSED.value, 0)
        rejected += [
            Rejection(place, "invalid", one.remark)
            for place, one in zip(kept, told, strict=True)
            if one.verdict is Verdict.REFUSED
        ]
        rejected.sort(key=lambda rejection: rejection.index)
        return Response(
            {
                "accepted": len(good) - refused_late,
                "rejected": [msgspec.to_builtins(each) for each in rejected],
                "counts": counts,
            }
        )


class ErasureIn(serializers.Serializer[Any]):
    devices = serializers.BooleanField(
        default=False, help_text="Erase every device of this person, too, and all that names them."
    )


class PersonView(APIView):
    """One person, by the brand's own id."""

    authentication_classes = (ServerKeyAuthentication,)
    permission_classes = (IsAuthenticated,)

    @extend_schema(operation_id="export_person", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, external_id: str) -> HttpResponse:
        """Everything held about a person: what the back office said, and every device of theirs."""
        brand_id = self._brand_of(request, external_id)
        if not people.is_known(brand_id, external_id):
            raise NotFound
        return _file(exports.of_person(brand_id, external_id), "person.json")

    @extend_schema(operation_id="erase_person", parameters=[ErasureIn], responses={204: None})
    def delete(self, request: Request, external_id: str) -> Response:
        """Erase what the back office said of a person; with `devices=true`, all that names them.

        Without it their devices stay, and find a profile again where one is sent later. Answers 204
        where nothing is held, too: to ask again is safe.
        """
        asked = ErasureIn(data=request.query_params)
        asked.is_valid(raise_exception=True)
        brand_id = self._brand_of(request, external_id)
        people.erase(brand_id, external_id, devices=asked.validated_data["devices"])
        return Response(status=HTTPStatus.NO_CONTENT)

    def _brand_of(self, request: Request, external_id: str) -> int:
        if not is_storable(external_id):  # then nobody can have it
            raise NotFound
        return cast(KeyIdentity, request.auth).brand_id


def _file(parts: Iterator[str], name: str) -> HttpResponse:
    return HttpResponse(
        "".join(parts),
        content_type="application/json",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def refusal_of(refused: Refused) -> APIException:
    """A door's refusal as DRF raises it."""
    if refused.fields:
        return ValidationError(refused.fields)
    error = APIException(refused.message, code=refused.code)
    error.status_code = refused.status
    return error


def valid(shape: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """The body in this shape, unknown names dropped; 422 with the fields where it is not."""
    given = shape(data=request.data)
    given.is_valid(raise_exception=True)
    checked: Mapping[str, Any] = given.validated_data
    return dict(checked)

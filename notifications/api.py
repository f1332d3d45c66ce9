"""A device's inbox, and what it says came of its offers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from django.utils.timezone import now
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from devices.api import OwnView, valid
from notifications import outbox
from notifications.models import FeedbackEvent
from notifications.offers import FeedbackIn, current_offers, new_feedback


class CampaignOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()


class OfferOut(serializers.Serializer[Any]):
    delivery_id = serializers.IntegerField()
    campaign = CampaignOut()
    title = serializers.CharField()
    body = serializers.CharField()
    deep_link = serializers.CharField(required=False)
    image_url = serializers.CharField(required=False)
    data = serializers.DictField(required=False)  # type: ignore[assignment]
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()


class OffersOut(serializers.Serializer[Any]):
    results = OfferOut(many=True)


@extend_schema_field({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]})
class Instant(serializers.JSONField):
    """A time as `FeedbackIn` reads it."""


class DeviceFeedbackIn(serializers.Serializer[Any]):
    event = serializers.ChoiceField(choices=[event.value for event in FeedbackEvent])
    occurred_at = Instant(
        required=False, allow_null=True, help_text="ISO 8601 or epoch milliseconds; absent: now."
    )


class OffersView(OwnView):
    @extend_schema(operation_id="list_offers", responses=OffersOut)
    def get(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """This device's current offers, newest first: the inbox."""
        device_id = self.own().device_id
        offers = current_offers([device_id], now=now()).get(device_id, [])
        return Response({"results": [msgspec.to_builtins(offer) for offer in reversed(offers)]})


class FeedbackView(OwnView):
    @extend_schema(operation_id="send_feedback", request=DeviceFeedbackIn, responses={204: None})
    def post(self, request: Request, delivery_id: int) -> Response:
        """Say what came of an offer; a repeat changes nothing."""
        given = valid(DeviceFeedbackIn, request)
        try:
            item = msgspec.convert(given | {"delivery_id": delivery_id}, FeedbackIn)
        except msgspec.ValidationError as error:
            raise ValidationError({"occurred_at": [str(error)]}) from error
        feedback = new_feedback(self.own().device_id, item, now=now())
        if outbox.record_feedback([feedback], now=now()) != [True]:
            raise NotFound
        return Response(status=HTTPStatus.NO_CONTENT)

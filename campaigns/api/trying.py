"""`/v1/campaigns/{id}/preview` and `/test`: the draft's offer looked at, and sent to one device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from django.contrib.auth.models import AbstractBaseUser
from django.utils.timezone import now
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns import definition, meaning, previews, trials
from campaigns.models import Campaign
from campaigns.previews import Stage
from notifications.push import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from rest_framework.viewsets import GenericViewSet

    _Base = GenericViewSet[Campaign]
else:
    _Base = object


class WhereIn(serializers.Serializer[Any]):
    place = serializers.CharField(
        required=False, allow_blank=True, max_length=200, help_text="Id, external id or name."
    )


class PreviewIn(WhereIn):
    device = serializers.CharField(
        required=False, allow_blank=True, max_length=128, help_text="Id or external id."
    )
    locale = serializers.CharField(
        required=False, allow_blank=True, max_length=35, help_text="Only this one; else every one."
    )


class TestIn(WhereIn):
    device = serializers.CharField(max_length=128, help_text="Id or external id.")
    variant = serializers.CharField(required=False, allow_blank=True, max_length=40)


class PreviewOut(serializers.Serializer[Any]):
    locale = serializers.CharField(help_text="Empty: readers whose language has no text.")
    variant = serializers.CharField()
    content = serializers.DictField()
    bytes = serializers.IntegerField(help_text=f"Of the {MAX_PAYLOAD_BYTES} a push may have.")
    problem = serializers.CharField()
    platforms = serializers.DictField(
        child=serializers.DictField(), help_text="What FCM is sent for ios, android and web."
    )


class PreviewsOut(serializers.Serializer[Any]):
    device = serializers.CharField(allow_null=True)
    place = serializers.CharField(allow_null=True)
    previews = PreviewOut(many=True)


class TestOut(serializers.Serializer[Any]):
    delivery_id = serializers.IntegerField()


class Trying(_Base):
    """What the draft would look like; nothing of it counts anywhere."""

    @extend_schema(request=PreviewIn, responses=PreviewsOut, filters=False)
    @action(detail=True, methods=["post"])
    def preview(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What each platform would show a person at a place, in every language and variant."""
        campaign: Campaign = self.get_object()
        asked = PreviewIn(data=request.data or {})
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        try:
            wanted = definition.decode(campaign.draft)
        except definition.DefinitionError as error:
            raise ValidationError(error.fields) from error
        brand = campaign.brand
        who = previews.person(brand, given.get("device", ""))
        where = previews.place(brand, wanted, given.get("place", ""))
        for name, found in (("device", who), ("place", where)):
            if given.get(name) and found is None:
                raise ValidationError({name: [f"There is no such {name}."]})
        stage = Stage(
            brand_name=brand.name, name=campaign.name, wanted=wanted, who=who, place=where
        )
        made = (
            [
                previews.preview(said, stage, locale=given["locale"], variant=variant)
                for variant, said in meaning.contents_of(wanted).items()
            ]
            if given.get("locale")
            else previews.previews(stage)
        )
        return Response(
            {
                "device": None if who is None else who.person,
                "place": None if where is None else where.name,
                "previews": [
                    {
                        "locale": one.locale,
                        "variant": one.variant,
                        "content": one.made,
                        "bytes": one.size,
                        "problem": f"{one.field_at_fault}: {one.problem}" if one.problem else "",
                        "platforms": {}
                        if one.problem
                        else {
                            platform: msgspec.json.decode(text)
                            for platform, text in previews.messages(one.made, wanted)
                        },
                    }
                    for one in made
                ],
            }
        )

    @extend_schema(request=TestIn, responses={201: TestOut})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Send the draft's offer to one device, as a test: logged, and counted by no limit."""
        campaign: Campaign = self.get_object()
        asked = TestIn(data=request.data or {})
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        try:
            sent = trials.send(
                campaign,
                campaign.draft,
                device=given["device"],
                place=given.get("place", ""),
                variant=given.get("variant", ""),
                actor=request.user if isinstance(request.user, AbstractBaseUser) else None,
                now=now(),
            )
        except trials.TrialError as error:
            raise ValidationError({"device": [str(error)]}) from error
        return Response({"delivery_id": sent}, status=201)

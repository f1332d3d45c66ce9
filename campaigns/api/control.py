"""`/v1/control-group`: the share of a brand's people whom no campaign reaches."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from brands.access import BrandScoped
from brands.models import Brand, Role
from campaigns.models import ControlGroup


class ControlGroupShape(serializers.Serializer[Any]):
    share = serializers.FloatField(
        min_value=0, max_value=0.5, help_text="0.05 leaves one person in twenty out; 0 nobody."
    )
    salt = serializers.CharField(
        max_length=40, required=False, help_text="Another one draws the group anew."
    )


class ControlGroupView(BrandScoped, APIView):
    """One per brand. Who is in it gets nothing but service messages; a decision says so."""

    write_role = Role.ADMIN

    @extend_schema(operation_id="control_group_retrieve", responses=ControlGroupShape)
    def get(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """Who is left out of everything, as a share."""
        return Response(shown(self.brand_for_reading()))

    @extend_schema(
        operation_id="control_group_update",
        request=ControlGroupShape,
        responses=ControlGroupShape,
    )
    def put(self, request: Request) -> Response:
        """Set the share; a larger one keeps everybody who is in it already."""
        given = ControlGroupShape(data=request.data)
        given.is_valid(raise_exception=True)
        brand = self.brand_for_writing()
        ControlGroup.objects.update_or_create(brand=brand, defaults=given.validated_data)
        return Response(shown(brand))


def shown(brand: Brand) -> dict[str, Any]:
    group = ControlGroup.objects.filter(brand=brand).first()
    return {
        "share": 0.0 if group is None else group.share,
        "salt": "1" if group is None else group.salt,
    }

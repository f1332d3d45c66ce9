"""`/v1/guards`: the rules of relevance that every campaign of a brand keeps."""

from __future__ import annotations

from typing import Any

import msgspec
from django.db import transaction
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers, viewsets
from rest_framework.exceptions import NotFound
from rest_framework.filters import OrderingFilter
from rest_framework.request import Request
from rest_framework.response import Response

from brands import storable
from brands.access import BrandScoped
from campaigns import guards
from campaigns.api.shapes import BrandGuardShape
from campaigns.models import BrandGuard
from geofences.api import Pages


class BrandGuardSerializer(serializers.ModelSerializer[BrandGuard]):
    class Meta:
        model = BrandGuard
        fields = ("id", "brand", "name", "rule", "updated_at")
        read_only_fields = ("id", "brand", "updated_at")

    def validate_rule(self, rule: Any) -> Any:
        return checked(rule)


def checked(rule: Any) -> Any:
    """The rule as stored; ValidationError says what is wrong with it."""
    if flaw := storable.flaw_of(rule, "rule"):
        raise serializers.ValidationError(f"{flaw[0]}: {flaw[1]}")
    try:
        text = msgspec.convert(rule, guards.GuardText)
    except msgspec.ValidationError as error:
        raise serializers.ValidationError(str(error)) from error
    found = guards.problems([text], path="rule")
    if found:
        raise serializers.ValidationError(
            [f"{path.replace('[0]', '')}: {message}" for path, message in found]
        )
    return msgspec.to_builtins(text)


@extend_schema_view(
    list=extend_schema(responses=BrandGuardShape(many=True)),
    retrieve=extend_schema(responses=BrandGuardShape),
    destroy=extend_schema(responses={204: None}),
)
class BrandGuardViewSet(BrandScoped, viewsets.ModelViewSet[BrandGuard]):
    """Rules for all campaigns of a brand but its service messages; they count at once."""

    queryset = BrandGuard.objects.all()
    serializer_class = BrandGuardSerializer
    pagination_class = Pages
    filter_backends = (OrderingFilter,)
    ordering_fields = ("id", "name", "updated_at")
    ordering = ("id",)
    lookup_value_regex = "[0-9]{1,18}"

    @extend_schema(request=BrandGuardShape, responses={201: BrandGuardShape})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        brand = self.brand_for_writing()
        return self._save(request, BrandGuard(brand=brand), status=201)

    @extend_schema(request=BrandGuardShape, responses=BrandGuardShape)
    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        with transaction.atomic():
            return self._save(
                request, self._alone(), status=200, partial=bool(kwargs.get("partial"))
            )

    @extend_schema(request=BrandGuardShape, responses=BrandGuardShape)
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.update(request, *args, **kwargs, partial=True)

    def _alone(self) -> BrandGuard:
        """The guard while nobody else changes or deletes it."""
        rows = self.get_queryset().select_for_update(of=("self",))
        guard: BrandGuard | None = rows.filter(pk=self.get_object().pk).first()
        if guard is None:
            raise NotFound
        return guard

    def _save(
        self, request: Request, guard: BrandGuard, *, status: int, partial: bool = False
    ) -> Response:
        serializer = self.get_serializer(guard, data=request.data, partial=partial)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=status)

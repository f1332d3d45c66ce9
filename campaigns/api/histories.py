"""`/v1/transitions`, `/v1/decisions` and `/v1/deliveries`: what happened and why, newest first.

Read-only; names are looked up once per page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from django import forms
from django.db.models import Model, QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.functional import cached_property
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import mixins, serializers, viewsets
from rest_framework.filters import OrderingFilter
from rest_framework.request import Request
from rest_framework.response import Response

from brands.access import AnyModel, BrandScoped
from campaigns import entries, reading
from campaigns.api.pages import HistoryPages, Indexes
from campaigns.models import Campaign, Decision, Verdict
from campaigns.reasons import Reason
from devices.models import Device, Transition
from devices.presence import TransitionKind
from geofences.models import Geofence
from notifications.models import Delivery, DeliveryState


class InstantField(forms.CharField):
    """ISO 8601 (no offset: UTC) or epoch milliseconds."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return None
        try:
            if text.lstrip("-").isdecimal():
                return datetime.fromtimestamp(int(text) / 1000, tz=UTC)
            # A + in a query string that was not escaped arrives as a space.
            at = parse_datetime(text.replace(" ", "+") if "T" in text else text)
        except (ValueError, OverflowError, OSError):
            at = None
        if at is None:
            raise forms.ValidationError("Not an instant: ISO 8601 or epoch milliseconds.")
        return at if at.tzinfo else at.replace(tzinfo=UTC)


@extend_schema_field(OpenApiTypes.DATETIME)
class InstantFilter(filters.Filter):
    field_class = InstantField


class IdFilter(filters.NumberFilter):
    """A whole number: 134.9 is nobody's id, and not 134's."""

    field_class = forms.IntegerField


class OfDevices(filters.FilterSet):
    device = IdFilter(field_name="device_id")
    device_id = IdFilter()
    external_id = filters.CharFilter(method="of_person")

    def of_person(self, rows: QuerySet[Any], _: str, external_id: str) -> QuerySet[Any]:
        """The rows of all devices of one person."""
        brand_ids = self.request.parser_context["view"].brand_ids
        mine = Device.objects.filter(brand_id__in=brand_ids, external_id=external_id)
        return rows.filter(device_id__in=list(mine.values_list("pk", flat=True)))


class TransitionFilters(OfDevices):
    geofence = IdFilter(field_name="geofence_id")
    kind = filters.ChoiceFilter(choices=[(kind.value, kind.value) for kind in TransitionKind])
    visit_id = IdFilter()
    after = InstantFilter(field_name="occurred_at", lookup_expr="gte")
    before = InstantFilter(field_name="occurred_at", lookup_expr="lt")

    class Meta:
        model = Transition
        fields = ()


class DecisionFilters(OfDevices):
    campaign = IdFilter(field_name="campaign_id")
    verdict = filters.ChoiceFilter(choices=[(one.value, one.value) for one in Verdict])
    reason = filters.ChoiceFilter(choices=[(one.value, one.value) for one in Reason])
    moment_kind = filters.CharFilter()
    moment_id = IdFilter()
    after = InstantFilter(field_name="decided_at", lookup_expr="gte")
    before = InstantFilter(field_name="decided_at", lookup_expr="lt")

    class Meta:
        model = Decision
        fields = ()


class DeliveryFilters(OfDevices):
    campaign = IdFilter(field_name="campaign_id")
    state = filters.ChoiceFilter(choices=[(one.value, one.value) for one in DeliveryState])
    after = InstantFilter(field_name="created_at", lookup_expr="gte")
    before = InstantFilter(field_name="created_at", lookup_expr="lt")

    class Meta:
        model = Delivery
        fields = ()


class NamedOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()


class PlaceOut(NamedOut):
    external_id = serializers.CharField(allow_null=True)


class MomentOut(serializers.Serializer[Any]):
    kind = serializers.CharField()
    id = serializers.IntegerField(allow_null=True, help_text="null: of a test, which had none.")


class Named(serializers.ListSerializer[Any]):
    """Looks up the names of a whole page at once."""

    def to_representation(self, data: Any) -> list[Any]:
        rows = list(data)
        self._context = {**self._context, **names_of(rows)}
        return super().to_representation(rows)


def names_of(rows: Sequence[Any]) -> dict[str, Any]:
    """The geofences and campaigns that some rows speak of."""
    places = Geofence.objects.filter(pk__in=_ids(rows, "geofence_id"))
    campaigns = Campaign.objects.filter(pk__in=_ids(rows, "campaign_id"))
    return {
        "places": {row[0]: row for row in places.values_list("pk", "external_id", "name")},
        "campaigns": dict(campaigns.values_list("pk", "name")),
        "zones": entries.zones_of(
            _ids([row for row in rows if isinstance(row, Decision)], "device_id")
        ),
    }


def _ids(rows: Iterable[Any], column: str) -> set[int]:
    return {found for row in rows if (found := getattr(row, column, None)) is not None}


class Row(serializers.Serializer[Any]):
    """A row with names; alone, it looks them up itself."""

    id = serializers.IntegerField()
    device_id = serializers.IntegerField()

    def to_representation(self, instance: Any) -> dict[str, Any]:
        if "campaigns" not in self.context:
            self._context = {**self._context, **names_of([instance])}
        return super().to_representation(instance)

    def place(self, geofence_id: int | None) -> dict[str, Any] | None:
        if geofence_id is None:
            return None
        _, external_id, name = self.context["places"].get(geofence_id, (0, None, ""))
        return {"id": geofence_id, "external_id": external_id, "name": name}


class TransitionOut(Row):
    geofence = serializers.SerializerMethodField()
    kind = serializers.CharField()
    visit_id = serializers.IntegerField()
    reason = serializers.CharField()
    dwell_s = serializers.IntegerField()
    entered_at = serializers.DateTimeField()
    occurred_at = serializers.DateTimeField()
    recorded_at = serializers.DateTimeField()
    lat = serializers.FloatField(allow_null=True)
    lng = serializers.FloatField(allow_null=True)
    accuracy_m = serializers.FloatField(allow_null=True)

    class Meta:
        list_serializer_class = Named

    @extend_schema_field(PlaceOut)
    def get_geofence(self, row: Transition) -> Any:
        return self.place(row.geofence_id)


class DecisionOut(Row):
    campaign = serializers.SerializerMethodField()
    campaign_version = serializers.IntegerField()
    verdict = serializers.CharField()
    reason = serializers.CharField()
    message = serializers.SerializerMethodField(
        help_text="The reason in words; times by the device's clock, with its zone."
    )
    moment = serializers.SerializerMethodField()
    geofence = serializers.SerializerMethodField()
    decided_at = serializers.DateTimeField()
    trace = serializers.DictField()

    class Meta:
        list_serializer_class = Named

    @extend_schema_field(NamedOut)
    def get_campaign(self, row: Decision) -> Any:
        return {"id": row.campaign_id, "name": self.context["campaigns"].get(row.campaign_id, "")}

    def get_message(self, row: Decision) -> str:
        return entries.said(row, self.context["language"], self.context["zones"])

    @extend_schema_field(MomentOut)
    def get_moment(self, row: Decision) -> Any:
        return {"kind": row.moment_kind, "id": row.moment_id}

    @extend_schema_field(PlaceOut(allow_null=True))
    def get_geofence(self, row: Decision) -> Any:
        return self.place(row.geofence_id)


class AttemptOut(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    outcome = serializers.CharField()
    error = serializers.CharField()


class FeedbackOut(serializers.Serializer[Any]):
    event = serializers.CharField()
    occurred_at = serializers.DateTimeField()


class DeliveryOut(Row):
    campaign = serializers.SerializerMethodField()
    state = serializers.CharField()
    reason = serializers.CharField()
    channel = serializers.CharField()
    content = serializers.DictField()
    moment = serializers.SerializerMethodField()
    geofence = serializers.SerializerMethodField()
    decision_id = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()
    due_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    sent_at = serializers.DateTimeField(allow_null=True)
    attempts = AttemptOut(many=True)
    feedback = FeedbackOut(many=True)

    class Meta:
        list_serializer_class = Named

    @extend_schema_field(NamedOut)
    def get_campaign(self, row: Delivery) -> Any:
        return {"id": row.campaign_id, "name": row.campaign_name}

    @extend_schema_field(MomentOut)
    def get_moment(self, row: Delivery) -> Any:
        return {"kind": row.moment_kind, "id": row.moment_id}

    @extend_schema_field(PlaceOut(allow_null=True))
    def get_geofence(self, row: Delivery) -> Any:
        return self.place(row.geofence_id)


OF_A_DEVICE = frozenset({"device", "device_id", "external_id"})


class History(
    BrandScoped,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet[Model],
):
    """Rows that only the road writes."""

    pagination_class = HistoryPages
    filter_backends = (filters.DjangoFilterBackend, OrderingFilter)
    indexes: ClassVar[Indexes]
    lookup_value_regex = "[0-9]{1,18}"

    @cached_property
    def brand_ids(self) -> list[int]:
        return list(self.brands_asked().values_list("pk", flat=True))

    def scoped(self, rows: QuerySet[AnyModel]) -> QuerySet[AnyModel]:
        """As any, by values: only for these can PostgreSQL tell a few rows from very many."""
        return rows.filter(brand_id__in=self.brand_ids)


class TransitionViewSet(History):
    """Presences that changed."""

    queryset = Transition.objects.all()
    serializer_class = TransitionOut
    filterset_class = TransitionFilters
    indexes = Indexes(
        time="occurred_at", owner=Geofence, by="geofence_id", asked="geofence", alone=OF_A_DEVICE
    )
    ordering_fields = ("id", "occurred_at")
    ordering = ("-occurred_at",)


class DecisionViewSet(History):
    """Why a campaign spoke, or did not; `message` is in the language of Accept-Language.

    English and French; `Content-Language` says which of them it is.
    """

    queryset = Decision.objects.all()
    serializer_class = DecisionOut
    filterset_class = DecisionFilters
    indexes = Indexes(
        time="decided_at",
        owner=Campaign,
        by="campaign_id",
        asked="campaign",
        alone=OF_A_DEVICE | {"moment_id"},
    )
    ordering_fields = ("id", "decided_at")
    ordering = ("-decided_at",)

    def get_serializer_context(self) -> dict[str, Any]:
        context = super().get_serializer_context()
        return {**context, "language": reading.language_asked(self.request)}

    def finalize_response(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        answer = super().finalize_response(request, *args, **kwargs)
        reading.tell(answer, reading.language_asked(request))
        return answer


class DeliveryViewSet(History):
    """What is owed to devices and what came of it."""

    queryset = Delivery.objects.prefetch_related("attempts", "feedback")
    serializer_class = DeliveryOut
    filterset_class = DeliveryFilters
    indexes = Indexes(
        time="created_at", owner=Campaign, by="campaign_id", asked="campaign", alone=OF_A_DEVICE
    )
    ordering_fields = ("id", "created_at")
    ordering = ("-created_at",)

"""`/v1/geofences`: GeoJSON in and out, by brand. Rows are written by `geofences.writing` alone."""

from __future__ import annotations

import json
from typing import Any

import shapely
from django import forms
from django.conf import settings
from django.contrib.gis.geos import GEOSGeometry
from django.core.exceptions import ValidationError as InvalidValue
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils.timezone import now
from django_filters import rest_framework as filters
from django_filters.filters import BooleanFilter
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.filters import OrderingFilter
from rest_framework.generics import get_object_or_404
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_gis.fields import GeometryField
from rest_framework_gis.serializers import GeoFeatureModelSerializer

from brands import storable
from brands.access import BrandScoped
from brands.bodies import BodyTooLarge, JsonBody
from brands.filejobs import Verdict
from brands.keyset import KeysetPagination
from geofences import cells, exports, writing
from geofences.geometry import GeometryError, GeometryReason
from geofences.models import Geofence, GeofenceCover, GeofenceQuerySet
from geofences.upserts import Judged, Wanted, upsert

MAX_METADATA_BYTES = 16 * 1024  # as a device's attributes: each page of a list carries it


class TooManyFeatures(BodyTooLarge):
    default_detail = (
        f"At most {settings.MAX_ITEMS:,} features in one request; larger files go through the"
        " import."
    )


class GeoJsonBody(JsonBody):
    media_type = "application/geo+json"


class _ExportRenderer(BaseRenderer):
    """Lets `?format=` and `Accept` ask for a file; the view answers it without a renderer."""

    charset = None

    def render(self, *_: Any, **__: Any) -> bytes:
        raise AssertionError("files are streamed, and errors are JSON")


class GeoJsonRenderer(_ExportRenderer):
    media_type = exports.MEDIA_TYPES[exports.Format.GEOJSON]
    format = exports.Format.GEOJSON.value


class GeoPackageRenderer(_ExportRenderer):
    media_type = exports.MEDIA_TYPES[exports.Format.GPKG]
    format = exports.Format.GPKG.value


@extend_schema_field(OpenApiTypes.OBJECT)
class PlaceField(GeometryField):
    """A GeoJSON geometry, longitude first, WGS84."""

    def to_representation(self, value: Any) -> Any:
        return json.loads(shapely.to_geojson(shapely.from_wkb(bytes(value.wkb))))

    def to_internal_value(self, value: Any) -> GEOSGeometry:
        if not isinstance(value, dict):
            raise InvalidValue("A GeoJSON geometry is an object with type and coordinates.")
        try:
            place = shapely.from_geojson(json.dumps(value))
        except (shapely.GEOSException, ValueError, RecursionError):
            raise InvalidValue(
                "This is no GeoJSON geometry: its coordinates do not fit its type, or it has none."
            ) from None
        if place.is_empty:
            raise InvalidValue("The geometry is empty.")
        return GEOSGeometry(memoryview(shapely.to_wkb(place)), srid=4326)


class GeofenceSerializer(GeoFeatureModelSerializer):
    """A geofence as a GeoJSON Feature."""

    geometry = PlaceField()
    external_id = serializers.CharField(max_length=128, required=False, allow_null=True)
    tags = serializers.ListField(
        child=serializers.CharField(max_length=64), required=False, max_length=100
    )
    metadata = serializers.DictField(
        required=False, help_text=f"At most {MAX_METADATA_BYTES:,} bytes as JSON."
    )
    resolution = serializers.IntegerField(
        source="cover.resolution", read_only=True, help_text="H3 resolution of its cover."
    )
    cells = serializers.SerializerMethodField(help_text="Cells of its cover.")
    boundary_cells = serializers.SerializerMethodField(help_text="Those that its edge crosses.")

    class Meta:
        model = Geofence
        geo_field = "geometry"
        id_field = "id"
        fields = (
            *("id", "external_id", "name", "tags", "radius_m", "metadata", "track_visits"),
            *("dwell_s", "exit_buffer_m", "confirm_fixes", "confirm_s", "starts_at", "ends_at"),
            *("armed_until", "resolution", "cells", "boundary_cells", "created_at", "updated_at"),
        )
        read_only_fields = ("armed_until", "created_at", "updated_at")
        list_serializer_class = serializers.ListSerializer  # a page is a list, not a collection

    def get_cells(self, geofence: Geofence) -> int:
        return sum(map(len, geofence.cover.cells()))

    def get_boundary_cells(self, geofence: Geofence) -> int:
        _, boundary = geofence.cover.cells()
        return len(boundary)

    def to_internal_value(self, data: Any) -> Any:
        """Accept a Feature; what is no object is told so."""
        if not isinstance(data, dict) or data.get("type", "Feature") != "Feature":
            raise ValidationError({"type": ["A geofence is a GeoJSON Feature."]})
        properties = data.get("properties") or {}
        if not isinstance(properties, dict):
            raise ValidationError({"properties": ["Properties are an object."]})
        flat = dict(properties)
        flat.pop("geometry", None)
        if "geometry" in data:
            flat["geometry"] = data["geometry"]
        return super(GeoFeatureModelSerializer, self).to_internal_value(flat)

    def validate_metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Refuse what PostgreSQL's jsonb cannot hold, and more than anybody looks up."""
        if flaw := storable.flaw_of(metadata):
            raise ValidationError(flaw[1])
        if len(json.dumps(metadata, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
            raise ValidationError(f"More than {MAX_METADATA_BYTES:,} bytes.")
        return metadata

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Check the times against each other."""
        stored = self.instance
        starts_at = attrs.get("starts_at", stored.starts_at if stored else None)
        ends_at = attrs.get("ends_at", stored.ends_at if stored else None)
        if starts_at and ends_at and ends_at <= starts_at:
            raise ValidationError({"ends_at": ["It ends before it starts."]})
        return attrs


FEATURE = {"$ref": "#/components/schemas/Geofence"}
COLLECTION = {
    "type": "object",
    "required": ["type", "features"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {"type": "array", "items": FEATURE, "maxItems": settings.MAX_ITEMS},
    },
}
VERDICTS = {
    "type": "object",
    "required": ["counts", "results"],
    "properties": {
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "verdict"],
                "properties": {
                    "index": {"type": "integer"},
                    "verdict": {"enum": [verdict.value for verdict in Verdict]},
                    "id": {"type": "integer"},
                    "external_id": {"type": ["string", "null"]},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "fields": {"type": "object"},
                },
            },
        },
    },
}


TRUTHS = {"true": True, "1": True, "false": False, "0": False}


class BoxFilter(filters.CharFilter):
    """`west,south,east,north` in degrees; west > east crosses the antimeridian."""

    def filter(self, rows: GeofenceQuerySet, value: str) -> GeofenceQuerySet:
        if not value:
            return rows
        try:
            west, south, east, north = (float(part) for part in value.split(","))
        except ValueError:
            raise ValidationError({"bbox": ["Four numbers: west,south,east,north."]}) from None
        if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
            raise ValidationError({"bbox": ["Degrees: west,south,east,north, south first."]})
        return rows.overlapping(west=west, south=south, east=east, north=north)


class TruthField(forms.CharField):
    """true or false; django-filter's own takes anything else for unasked."""

    def to_python(self, value: Any) -> Any:
        said = (super().to_python(value) or "").lower()
        if said and said not in TRUTHS:
            raise InvalidValue("true or false.")
        return TRUTHS.get(said)


class TruthFilter(BooleanFilter):
    field_class = TruthField


class GeofenceFilters(filters.FilterSet):
    tag = filters.CharFilter(method="with_tag", help_text="One tag it has.")
    bbox = BoxFilter(help_text=BoxFilter.__doc__)
    armed = TruthFilter(
        method="that_are_armed", help_text="Whether a live campaign or visit tracking needs it now."
    )
    search = filters.CharFilter(method="found", help_text="Part of its name, or its external id.")
    external_id = filters.CharFilter(help_text="Exactly this external id.")

    class Meta:
        model = Geofence
        fields = ()

    def with_tag(self, rows: GeofenceQuerySet, _: str, tag: str) -> GeofenceQuerySet:
        return rows.filter(tags__contains=[tag])

    def that_are_armed(self, rows: GeofenceQuerySet, _: str, wanted: bool) -> GeofenceQuerySet:
        armed = rows.armed(now())
        return armed if wanted else rows.exclude(pk__in=armed.order_by().values("pk"))

    def found(self, rows: GeofenceQuerySet, _: str, text: str) -> GeofenceQuerySet:
        return rows.filter(Q(name__icontains=text) | Q(external_id=text))


class Pages(KeysetPagination):
    """CONTRACT's lists: `{"next": cursor or null, "results": […]}`."""

    page_size = 100
    max_page_size = 1000
    page_size_query_param = "limit"
    ordering = "id"

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"next": self.next_cursor(), "results": data})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["next", "results"],
            "properties": {"next": {"type": ["string", "null"]}, "results": schema},
        }


class GeofenceViewSet(BrandScoped, viewsets.ModelViewSet[Geofence]):
    """Geofences of the caller's brands, as GeoJSON."""

    queryset = Geofence.objects.present().select_related("cover")
    serializer_class = GeofenceSerializer
    parser_classes = (JsonBody, GeoJsonBody)
    pagination_class = Pages
    filter_backends = (filters.DjangoFilterBackend, OrderingFilter)
    filterset_class = GeofenceFilters
    ordering_fields = ("id", "name", "created_at", "updated_at")
    lookup_value_regex = "[0-9]{1,18}"

    def get_renderers(self) -> list[BaseRenderer]:
        """Only the list is given as a file."""
        files = (GeoJsonRenderer(), GeoPackageRenderer()) if self.action == "list" else ()
        return [JSONRenderer(), *files]

    def handle_exception(self, exc: Exception) -> Response:
        """An error is JSON, whatever file was asked for."""
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return super().handle_exception(exc)

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "format",
                enum=["json", "geojson", "gpkg"],
                description="`geojson` (a FeatureCollection) and `gpkg` (a GeoPackage): everything "
                "that fits the filters as one file.",
            )
        ],
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        """A page of features, or all of them as a file."""
        form = getattr(request.accepted_renderer, "format", "json")
        if form == "json":
            return super().list(request, *args, **kwargs)
        rows: Any = self.filter_queryset(self.get_queryset()).select_related(None)
        return exports.answer(request._request, rows, exports.Format(form), name="geofences")

    @extend_schema(
        request={
            "application/json": {"anyOf": [FEATURE, COLLECTION]},
            "application/geo+json": {"anyOf": [FEATURE, COLLECTION]},
        },
        responses={
            (200, "application/json"): {"anyOf": [FEATURE, VERDICTS]},
            (201, "application/json"): FEATURE,
        },
        description=(
            "A Feature: 201 with the stored one, or 200 where its external_id was there already "
            "and it was changed to what was sent. That of a deleted geofence is free: 201, with "
            "the id and the history of the deleted one and none of its settings. "
            "A FeatureCollection: 200 with a verdict for each; a refused one stops no other."
        ),
    )
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        body = request.data
        if isinstance(body, dict) and body.get("type") == "FeatureCollection":
            return self._create_many(body)
        brand = self.brand_for_writing()
        serializer = self.get_serializer(data=body)
        serializer.is_valid(raise_exception=True)
        judged = upsert(brand.pk, [_wanted(0, serializer.validated_data)], afresh=True)[0]
        if judged.geofence is None:
            raise ValidationError(_fields(judged))
        feature = self._feature(judged.geofence)
        facts = {name: feature["properties"][name] for name in FACTS}
        return Response(feature | facts, status=201 if judged.verdict is Verdict.CREATED else 200)

    def _create_many(self, body: dict[str, Any]) -> Response:
        features = body.get("features")
        if not isinstance(features, list):
            raise ValidationError({"features": ["A FeatureCollection has a list of features."]})
        if len(features) > settings.MAX_ITEMS:
            raise TooManyFeatures
        brand = self.brand_for_writing()
        answers: list[dict[str, Any]] = []
        wanted = []
        for index, feature in enumerate(features):
            serializer = self.get_serializer(data=feature)
            if serializer.is_valid():
                wanted.append(_wanted(index, serializer.validated_data))
            else:
                answers.append(
                    {
                        "index": index,
                        "verdict": Verdict.REFUSED,
                        "code": "invalid",
                        "message": "The feature is not valid; see fields.",
                        "fields": serializer.errors,
                    }
                )
        judged = upsert(brand.pk, wanted, afresh=True)
        facts = _facts([each.geofence.pk for each in judged if each.geofence is not None])
        answers += [_answer(each, facts) for each in judged]
        answers.sort(key=lambda answer: answer["index"])
        counts = {verdict.value: 0 for verdict in Verdict}
        for answer in answers:
            counts[answer["verdict"]] += 1
        return Response({"counts": counts, "results": answers})

    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        """Replace it whole (PUT), or only what is sent (PATCH)."""
        sent, seen = request.data, self.get_object()
        with transaction.atomic():
            geofence = self._locked(seen)
            self._change(geofence, sent, partial=bool(kwargs.get("partial")))
        return Response(self._feature(geofence))

    def _locked(self, seen: Geofence) -> Geofence:
        """The one that was seen, as it is once nobody else writes it, and until we have."""
        writing.lock(seen.brand_id)
        rows = self.get_queryset().select_for_update(of=("self",), no_key=True)
        found: Geofence = get_object_or_404(rows, pk=seen.pk)
        return found

    def _change(self, geofence: Geofence, sent: Any, *, partial: bool) -> None:
        """Write what was sent; raises ValidationError where that cannot be."""
        serializer = self.get_serializer(geofence, data=sent, partial=partial)
        serializer.is_valid(raise_exception=True)
        given = dict(serializer.validated_data)
        if not partial:
            given = _defaults() | given
        if isinstance(given.get("geometry"), GEOSGeometry) and "radius_m" not in given:
            given["radius_m"] = geofence.radius_m if _is_point(given["geometry"]) else None
        for name, value in given.items():
            setattr(geofence, name, value)
        taken = Geofence.objects.filter(brand_id=geofence.brand_id).exclude(pk=geofence.pk)
        if geofence.external_id and (
            holder := taken.filter(external_id=geofence.external_id).first()
        ):
            raise ValidationError({"external_id": [_in_the_way(holder)]})
        try:
            writing.save([geofence])
        except GeometryError as error:
            raise ValidationError(_geometry_fields(error.reason, str(error))) from None
        except IntegrityError:  # somebody else took the external id just now
            raise ValidationError(
                {"external_id": ["Another geofence has this external id."]}
            ) from None

    def perform_destroy(self, geofence: Geofence) -> None:
        writing.retire([geofence.pk], now=now())

    @extend_schema(
        responses=OpenApiTypes.OBJECT,
        description=(
            "The H3 cells of its cover as a FeatureCollection; `kind` is `interior` or `boundary`."
        ),
    )
    @action(detail=True, pagination_class=None, filterset_class=None)
    def cells(self, request: Request, pk: str | None = None) -> Response:  # noqa: ARG002
        geofence = self.get_object()
        return Response(cells_as_geojson(geofence.cover))

    def _feature(self, geofence: Geofence) -> dict[str, Any]:
        """As it is stored now, with what the trigger computed."""
        stored = Geofence.objects.select_related("cover").get(pk=geofence.pk)
        return dict(self.get_serializer(stored).data)


FACTS = ("resolution", "cells", "boundary_cells")


def _wanted(index: int, given: dict[str, Any]) -> Wanted:
    """What a valid feature asks for; properties that were not sent keep what is stored."""
    place = given["geometry"]
    fields = {name: given[name] for name in given if name not in {"geometry", "external_id"}}
    return Wanted(
        number=index,
        external_id=given.get("external_id") or None,
        geometry=shapely.from_wkb(bytes(place.wkb)),
        fields=({"radius_m": None} if not _is_point(place) else {}) | fields,
    )


def _in_the_way(holder: Geofence) -> str:
    """Why an external id is not to be had: of a deleted geofence it names what happened there."""
    if holder.retired_at is None:
        return "Another geofence has this external id."
    return "A deleted geofence keeps this external id for its history; a POST with it revives it."


def _is_point(place: GEOSGeometry) -> bool:
    return place.geom_type == "Point"


def _defaults() -> dict[str, Any]:
    """What a PUT leaves out goes back to what a new geofence has."""
    names = {*GeofenceSerializer.Meta.fields} - {
        *("id", "created_at", "updated_at", "armed_until"),
        *("external_id", "geometry", *FACTS),
    }
    fields = (field for field in Geofence._meta.concrete_fields if field.name in names)
    return {field.name: field.get_default() for field in fields}


def _fields(judged: Judged) -> dict[str, list[str]]:
    return _geometry_fields(judged.reason, judged.remark)


def _geometry_fields(reason: str, message: str) -> dict[str, list[str]]:
    if reason == GeometryReason.BAD_RADIUS:
        return {"radius_m": [message]}
    is_geometry = reason in {known.value for known in GeometryReason}
    return {"geometry" if is_geometry else "non_field_errors": [message]}


def _facts(ids: list[int]) -> dict[int, dict[str, int]]:
    facts = {}
    for cover in GeofenceCover.objects.filter(pk__in=ids).defer("shape"):
        interior, boundary = map(len, cover.cells())
        facts[cover.pk] = {
            "resolution": cover.resolution,
            "cells": interior + boundary,
            "boundary_cells": boundary,
        }
    return facts


def _answer(judged: Judged, facts: dict[int, dict[str, int]]) -> dict[str, Any]:
    answer: dict[str, Any] = {"index": judged.number, "verdict": judged.verdict}
    if judged.geofence is None:
        return answer | {
            "code": judged.reason,
            "message": judged.remark,
            "fields": _fields(judged),
        }
    pk = judged.geofence.pk
    answer |= {"id": pk, "external_id": judged.geofence.external_id, **facts[pk]}
    return answer | ({"message": judged.remark} if judged.remark else {})


def cells_as_geojson(cover: GeofenceCover) -> dict[str, Any]:
    """The cells of a cover, as hexagons to draw."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"cell": f"{cell:x}", "kind": kind},
        }
        for kind, some in zip(("interior", "boundary"), cover.cells(), strict=True)
        for cell, ring in cells.rings(some.tobytes())
    ]
    return {"type": "FeatureCollection", "resolution": cover.resolution, "features": features}

"""`/v1/campaigns` and `/v1/segments`: drafts, their life and named audiences, by brand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.utils.timezone import now
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, NotFound, ValidationError
from rest_framework.filters import OrderingFilter
from rest_framework.request import Request
from rest_framework.response import Response

from brands import storable
from brands.access import BrandScoped
from campaigns import backtests, conditions, estimates, locks, publishing, results, sentences
from campaigns.api.shapes import (
    AudienceOut,
    BacktestIn,
    BacktestOut,
    CampaignDetail,
    CampaignIn,
    MissingOut,
    ResultsOut,
    VersionOut,
)
from campaigns.api.trying import Trying
from campaigns.definition import TOO_FAR, Definition, DefinitionError, decode
from campaigns.lacks import Missing
from campaigns.models import Campaign, CampaignState, CampaignVersion, Segment
from geofences.api import Pages
from geofences.models import Geofence

FIELDS = frozenset(one.encode_name for one in msgspec.structs.fields(Definition))
DEFAULT_BACKTEST = timedelta(days=7)
_NOT_OF_THE_DEFINITION = frozenset({"name", "brand"})
# What an answer carries beside the definition: a client may send back what it got.
_ANSWERED = frozenset(
    {
        "id",
        "state",
        "version",
        "sentence",
        "differs",
        "missing",
        "warnings",
        "created_at",
        "updated_at",
    }
)


class Conflict(APIException):
    status_code = 409
    default_code = "wrong_state"
    default_detail = "Not in this state."


class CampaignFilters(filters.FilterSet):
    state = filters.ChoiceFilter(choices=[(state.value, state.value) for state in CampaignState])
    name = filters.CharFilter(lookup_expr="icontains")

    class Meta:
        model = Campaign
        fields = ()


@extend_schema_view(
    list=extend_schema(responses=CampaignDetail(many=True)),
    retrieve=extend_schema(responses=CampaignDetail),
)
class CampaignViewSet(
    BrandScoped,
    Trying,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet[Campaign],
):
    """Campaigns of the caller's brands. What is edited is the draft; what is live is a version."""

    queryset = Campaign.objects.select_related("live_version")
    serializer_class = CampaignDetail
    pagination_class = Pages
    filter_backends = (filters.DjangoFilterBackend, OrderingFilter)
    filterset_class = CampaignFilters
    ordering_fields = ("id", "name", "created_at", "updated_at")
    ordering = ("-id",)
    lookup_value_regex = "[0-9]{1,18}"

    def handle_exception(self, exc: Exception) -> Response:
        """One that was deleted while it was asked for is not there."""
        return super().handle_exception(
            NotFound() if isinstance(exc, Campaign.DoesNotExist) else exc
        )

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response([answer(one) for one in page or ()])

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        return Response(answer(self.get_object(), checked=True))

    @extend_schema(request=CampaignIn, responses={201: CampaignDetail})
    def create(self, request: Request) -> Response:
        """A new draft; it may be incomplete, not malformed."""
        body = _object(request.data)
        name = _name(body)
        if not name:
            raise ValidationError({"name": ["A campaign needs a name."]})
        brand = self.brand_for_writing()
        try:
            campaign = publishing.create(
                brand=brand, name=name, raw=_definition(body), actor=_actor(request)
            )
        except DefinitionError as error:
            raise ValidationError(error.fields) from error
        return Response(answer(campaign, checked=True), status=201)

    @extend_schema(request=CampaignIn, responses=CampaignDetail)
    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        """Replace the draft whole; what is live stays until it is published again."""
        return self._edit(request, whole=True)

    @extend_schema(request=CampaignIn, responses=CampaignDetail)
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        """Change the fields that are sent; null takes one away."""
        return self._edit(request, whole=False)

    def _edit(self, request: Request, *, whole: bool) -> Response:
        campaign = self.get_object()
        body = _object(request.data)
        try:
            edited = publishing.edit(
                campaign,
                name=_name(body),
                raw=_definition(body),
                merged=not whole,
                actor=_actor(request),
            )
        except DefinitionError as error:
            raise ValidationError(error.fields) from error
        return Response(answer(edited, checked=True))

    @extend_schema(request=None, responses={200: CampaignDetail, 422: MissingOut})
    @action(detail=True, methods=["post"])
    def publish(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Make the draft live; 422 lists what it lacks."""
        campaign = self.get_object()
        return self._live(
            lambda: publishing.publish(campaign, actor=_actor(request), now=now()), campaign
        )

    @extend_schema(
        request={
            "application/json": {
                "type": "object",
                "required": ["version"],
                "properties": {"version": {"type": "integer"}},
            }
        },
        responses={200: CampaignDetail, 422: MissingOut},
    )
    @action(detail=True, methods=["post"])
    def rollback(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Make a former version live again, as a new one."""
        campaign = self.get_object()
        number = _object(request.data).get("version")
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValidationError({"version": ["Say which version, by its number."]})
        try:
            return self._live(
                lambda: publishing.roll_back(
                    campaign, number=number, actor=_actor(request), now=now()
                ),
                campaign,
            )
        except CampaignVersion.DoesNotExist:
            raise NotFound from None

    def _live(self, order: Any, campaign: Campaign) -> Response:
        try:
            order()
        except publishing.WrongStateError as error:
            raise Conflict(str(error)) from error
        except publishing.NotPublishableError as error:
            return _not_publishable(error.missing)
        return self._again(campaign)

    @extend_schema(request=None, responses=CampaignDetail)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Stop at once; `resume` goes on."""
        return self._change(request, publishing.pause)

    @extend_schema(request=None, responses=CampaignDetail)
    @action(detail=True, methods=["post"])
    def end(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Stop for good."""
        return self._change(request, publishing.end)

    @extend_schema(request=None, responses=CampaignDetail)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Let the live version of a paused campaign run on."""
        return self._change(
            request,
            lambda campaign, actor: publishing.resume(campaign, actor=actor, now=now()),
        )

    def _change(self, request: Request, order: Any) -> Response:
        campaign = self.get_object()
        try:
            order(campaign, actor=_actor(request))
        except publishing.WrongStateError as error:
            raise Conflict(str(error)) from error
        return self._again(campaign)

    def _again(self, campaign: Campaign) -> Response:
        fresh = Campaign.objects.select_related("live_version").get(pk=campaign.pk)
        return Response(answer(fresh, checked=True))

    @extend_schema(
        methods=["POST"],
        request=BacktestIn,
        responses={202: BacktestOut},
        operation_id="campaigns_backtest_ask",
    )
    @extend_schema(
        methods=["GET"],
        responses=BacktestOut,
        filters=False,
        operation_id="campaigns_backtest_look",
    )
    @action(detail=True, methods=["get", "post"], pagination_class=None)
    def backtest(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Try the draft on what was recorded (POST), and see how far that is (GET: the newest)."""
        campaign = self.get_object()
        if request.method == "GET":
            newest = campaign.backtests.first()
            if newest is None:
                raise NotFound
            return Response(BacktestOut(newest).data)
        given = BacktestIn(data=request.data or {})
        given.is_valid(raise_exception=True)
        until = given.validated_data.get("until") or now()
        try:
            since = given.validated_data.get("since") or until - DEFAULT_BACKTEST
        except OverflowError:
            raise ValidationError({"until": [TOO_FAR]}) from None
        lacking = [
            one for one in publishing.missing(campaign, now=now()) if one.code != "in_the_past"
        ]
        if lacking:
            return _not_publishable(lacking)
        try:
            job = backtests.ask(campaign, since=since, until=until, actor=_actor(request))
        except ValueError as error:
            raise ValidationError({"since": [str(error)]}) from error
        return Response(BacktestOut(job).data, status=202)

    @extend_schema(responses=AudienceOut, filters=False)
    @action(detail=True, methods=["get"], pagination_class=None)
    def audience(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """How many devices the draft's audience holds now; of many, from a sample."""
        campaign = self.get_object()
        tree = campaign.draft.get("audience") or {}
        try:
            found = estimates.estimate(campaign.brand_id, tree, now=now())
        except conditions.AudienceError as error:
            raise ValidationError({"audience": [str(error)]}) from error
        return Response(AudienceOut(found).data)

    @extend_schema(responses=ResultsOut, filters=False)
    @action(detail=True, methods=["get"], pagination_class=None)
    def results(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What it was worth: variants, lift over those left out, and the same by place."""
        return Response(msgspec.to_builtins(results.results(self.get_object())))

    @extend_schema(responses=VersionOut(many=True), filters=False)
    @action(detail=True, methods=["get"], pagination_class=None)
    def versions(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What was ever published, newest first."""
        rows = self.get_object().versions.select_related("published_by")
        return Response(VersionOut(rows, many=True).data)


def answer(campaign: Campaign, *, checked: bool = False) -> dict[str, Any]:
    """A campaign on the wire: its draft, flat, and what there is to know of it."""
    live = campaign.live_version
    found: dict[str, Any] = {
        "id": campaign.pk,
        "brand": campaign.brand_id,
        "name": campaign.name,
        "state": campaign.state,
        "version": None if live is None else live.number,
        "differs": live is None or live.definition != campaign.draft or live.name != campaign.name,
        "sentence": sentence(campaign),
        "created_at": campaign.created_at,
        "updated_at": campaign.updated_at,
        **campaign.draft,
    }
    if checked:
        at = now()
        found["missing"] = _missing(publishing.missing(campaign, now=at))
        found["warnings"] = _missing(
            publishing.warnings(campaign.brand_id, campaign.draft, name=campaign.name, now=at)
        )
    return found


def sentence(campaign: Campaign) -> str:
    """The draft in words, with the names of its geofences."""
    try:
        wanted = decode(campaign.draft)
    except DefinitionError as error:
        return f"This campaign cannot be read: {error}."
    named = wanted.trigger.geofences[:5] if wanted.trigger else ()
    rows = Geofence.objects.filter(brand_id=campaign.brand_id)
    names: dict[int | str, str] = {}
    ids = [one for one in named if isinstance(one, int)]
    if ids:
        names.update(rows.filter(pk__in=ids).values_list("pk", "name"))
    external_ids = [one for one in named if isinstance(one, str)]
    if external_ids:
        found = rows.filter(external_id__in=external_ids).values_list("external_id", "name")
        names.update((str(external_id), name) for external_id, name in found)
    return sentences.sentence(wanted, names)


def _not_publishable(lacking: Sequence[Missing]) -> Response:
    fields: dict[str, list[str]] = {}
    for one in lacking:
        fields.setdefault(one.field, []).append(one.message)
    return Response(
        {
            "code": "not_publishable",
            "message": "The campaign cannot be published yet; see missing.",
            "fields": fields,
            "missing": _missing(lacking),
        },
        status=422,
    )


def _missing(found: Any) -> list[dict[str, str]]:
    return [{"field": one.field, "code": one.code, "message": one.message} for one in found]


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        raise ValidationError({"non_field_errors": ["The body must be a JSON object."]})
    return dict(body)


def _definition(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the definition; an unknown one stays in, to be named as such."""
    beside = _NOT_OF_THE_DEFINITION | (_ANSWERED - FIELDS)
    return {key: value for key, value in body.items() if key not in beside}


def _name(body: Mapping[str, Any]) -> str | None:
    name = body.get("name")
    if name is None:
        return None
    if not isinstance(name, str) or not name.strip() or len(name) > 200:
        raise ValidationError({"name": ["A name has 1 to 200 characters."]})
    if not storable.is_storable(name):
        raise ValidationError({"name": [storable.BAD_TEXT]})
    return name.strip()


def _actor(request: Request) -> AbstractBaseUser | None:
    """The member of staff; None for a server key, whose requests have no user."""
    return request.user if isinstance(request.user, AbstractBaseUser) else None


class SegmentSerializer(serializers.ModelSerializer[Segment]):
    class Meta:
        model = Segment
        fields = ("id", "brand", "name", "slug", "tree", "updated_at")
        read_only_fields = ("id", "brand", "updated_at")

    def validate_tree(self, tree: Any) -> Any:
        if flaw := storable.flaw_of(tree, "tree"):
            raise serializers.ValidationError(f"{flaw[0]}: {flaw[1]}")
        known = Segment.objects.filter(brand_id=self.context["brand_id"])
        slugs = list(known.values_list("slug", flat=True))
        found = conditions.problems(tree, path="tree", known_segments=slugs)
        if found:
            raise serializers.ValidationError([f"{path}: {text}" for path, text in found])
        return tree


class SegmentViewSet(BrandScoped, viewsets.ModelViewSet[Segment]):
    """Named audiences; a campaign uses them by slug, as they are when it judges."""

    queryset = Segment.objects.all()
    serializer_class = SegmentSerializer
    pagination_class = Pages
    filter_backends = (OrderingFilter,)
    ordering_fields = ("id", "name", "slug", "updated_at")
    ordering = ("id",)
    lookup_value_regex = "[0-9]{1,18}"

    def get_serializer_context(self) -> dict[str, Any]:
        segment = getattr(self, "_segment", None)
        return {**super().get_serializer_context(), "brand_id": getattr(segment, "brand_id", None)}

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        brand = self.brand_for_writing()
        with transaction.atomic():
            locks.take("segments", [brand.pk])
            return self._save(request, Segment(brand=brand), status=201)

    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        with transaction.atomic():
            return self._save(
                request, self._alone(), status=200, partial=bool(kwargs.get("partial"))
            )

    def _alone(self) -> Segment:
        """The segment while nobody else writes one of its brand: they refer to each other."""
        seen: Segment = self.get_object()
        locks.take("segments", [seen.brand_id])
        # The row too: the admin's form locks that alone.
        rows = self.get_queryset().select_for_update(of=("self",))
        segment: Segment | None = rows.filter(pk=seen.pk).first()
        if segment is None:
            raise NotFound
        return segment

    def _save(
        self, request: Request, segment: Segment, *, status: int, partial: bool = False
    ) -> Response:
        self._segment = segment
        serializer = self.get_serializer(segment, data=request.data, partial=partial)
        serializer.is_valid(raise_exception=True)
        slug = serializer.validated_data.get("slug", segment.slug)
        tree = serializer.validated_data.get("tree", segment.tree)
        if segment.slug and slug != segment.slug:
            self._refuse_if_used(segment)
        self._refuse_circles(segment, slug, tree)
        serializer.save()
        return Response(serializer.data, status=status)

    def _refuse_circles(self, segment: Segment, slug: str, tree: Any) -> None:
        """The brand's segments must still compile with this one among them."""
        others = Segment.objects.filter(brand_id=segment.brand_id).exclude(pk=segment.pk)
        trees = dict(others.values_list("slug", "tree"))
        if slug in trees:
            raise ValidationError({"slug": ["There is a segment with this slug."]})
        try:
            publishing.compile_segment(slug, trees | {slug: tree})
        except conditions.AudienceError as error:
            raise ValidationError({"tree": [str(error)]}) from error

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        with transaction.atomic():
            segment = self._alone()
            self._refuse_if_used(segment)
            segment.delete()
        return Response(status=204)

    def _refuse_if_used(self, segment: Segment) -> None:
        """Others name it by its slug."""
        users = publishing.users_of_segment(segment)
        if users:
            raise Conflict(f"Still used by {', '.join(users[:5])}.")

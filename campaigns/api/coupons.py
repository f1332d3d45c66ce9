"""`/v1/coupon-pools` and `/v1/coupons/redeem`: stocks of codes, and the till."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.utils.timezone import now
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.filters import OrderingFilter
from rest_framework.request import Request
from rest_framework.response import Response

from brands.access import BrandScoped
from brands.models import Role
from campaigns import codes, coupon_imports, coupons, locks
from campaigns.coupons import RedeemError, RedeemProblem
from campaigns.models import Coupon, CouponPool, PoolKind
from geofences.api import Pages
from notifications.models import Delivery

MOST_CODES = 10_000  # of one call; files take millions
_REFUSALS = {coupon_imports.TWICE: "repeated", coupon_imports.DUPLICATE: "duplicate"}
_STATUS = {
    RedeemProblem.UNKNOWN: 404,
    RedeemProblem.NOT_GIVEN: 409,
    RedeemProblem.REDEEMED: 409,
    RedeemProblem.EXPIRED: 410,
}


class StockOut(serializers.Serializer[Any]):
    left = serializers.IntegerField(allow_null=True, help_text="null: never ends.")
    drawn = serializers.IntegerField()
    redeemed = serializers.IntegerField()
    spoilt = serializers.IntegerField(help_text="Not sent, but possibly seen: not given again.")
    is_low = serializers.BooleanField()


class PoolShape(serializers.ModelSerializer[CouponPool]):
    stock = serializers.SerializerMethodField()

    class Meta:
        model = CouponPool
        fields = ("id", "brand", "name", "slug", "kind", "size", "last_day", "warn_below", "stock")
        read_only_fields = ("id", "brand", "stock")

    @extend_schema(responses=StockOut)
    def get_stock(self, pool: CouponPool) -> dict[str, Any]:
        stock = coupons.stock_of([pool])[pool.pk]
        return {
            name: getattr(stock, name) for name in ("left", "drawn", "redeemed", "spoilt", "is_low")
        }

    def validate_last_day(self, day: Any) -> Any:
        if day is not None and (flaw := codes.flaw_of_last_day(day)):
            raise serializers.ValidationError(flaw)
        return day

    def validate_size(self, size: int | None) -> int | None:
        if size is not None and size >= codes.MOST_NUMBERS:
            raise serializers.ValidationError(f"At most {codes.MOST_NUMBERS - 1:,}.")
        return size


class CodesIn(serializers.Serializer[Any]):
    codes = serializers.ListField(
        child=serializers.CharField(max_length=1_000, allow_blank=True), max_length=MOST_CODES
    )


class RefusedOut(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    code = serializers.CharField(help_text="Why: repeated, duplicate or invalid.")
    message = serializers.CharField()
    coupon = serializers.CharField(help_text="The code that was sent, as far as a code may go.")


class CodesOut(serializers.Serializer[Any]):
    accepted = serializers.IntegerField()
    rejected = RefusedOut(many=True)


class KeyOut(serializers.Serializer[Any]):
    algorithm = serializers.CharField()
    key = serializers.CharField(help_text="Hexadecimal.")


class CouponPoolViewSet(
    BrandScoped,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.CreateModelMixin,
    viewsets.GenericViewSet[CouponPool],
):
    """Pools of codes; a campaign names one by its slug in `coupon_pool`."""

    queryset = CouponPool.objects.all()
    serializer_class = PoolShape
    pagination_class = Pages
    filter_backends = (OrderingFilter,)
    ordering_fields = ("id", "name")
    ordering = ("id",)
    lookup_value_regex = "[0-9]{1,18}"

    def perform_create(self, serializer: Any) -> None:
        brand = self.brand_for_writing()
        said = serializer.validated_data
        with transaction.atomic():
            locks.take("slugs of pools", [brand.pk])
            if CouponPool.objects.filter(brand=brand, slug=said["slug"]).exists():
                raise ValidationError({"slug": ["Another pool is called so."]})
            serializer.instance = coupons.new_pool(brand, **said)

    @extend_schema(request=CodesIn, responses=CodesOut)
    @action(detail=True, methods=["post"], url_path="codes")
    def codes(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Add codes of the brand's own, up to 10,000 a call; each that is not taken is named."""
        pool = self.get_object()
        if pool.kind != PoolKind.IMPORTED:
            raise ValidationError({"codes": ["The codes of this pool are made by Nearcast."]})
        given = CodesIn(data=request.data)
        given.is_valid(raise_exception=True)
        lines = list(enumerate(given.validated_data["codes"]))
        refused = coupon_imports.take(pool, lines)
        return Response(
            {
                "accepted": len(lines) - len(refused),
                "rejected": [
                    {
                        "index": line,
                        "code": _REFUSALS.get(why, "invalid"),
                        "message": why,
                        "coupon": code,
                    }
                    for line, code, why in refused
                ],
            }
        )

    @extend_schema(responses=KeyOut, filters=False)
    @action(detail=True, methods=["get"], pagination_class=None, read_role=Role.ADMIN)
    def key(self, request: Request, pk: str) -> Response:  # noqa: ARG002 - DRF's signature
        """The secret that tills check signed codes with; whoever has it can also make codes."""
        pool = self.get_object()
        return Response({"algorithm": "HMAC-SHA256, 36 bits", "key": pool.key})


class RedeemIn(serializers.Serializer[Any]):
    code = serializers.CharField(max_length=80, help_text="As it was typed or scanned.")
    reference = serializers.CharField(
        max_length=80,
        required=False,
        allow_blank=True,
        help_text="The till's own name for this redemption; the same one again is a repeat.",
    )
    occurred_at = serializers.DateTimeField(
        required=False,
        help_text="When a till that was offline took it. Absent, in the future, or before the code"
        " was given out: now.",
    )


class PoolName(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    slug = serializers.CharField()
    name = serializers.CharField()


class CampaignName(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()


class RedeemOut(serializers.Serializer[Any]):
    code = serializers.CharField()
    pool = PoolName()
    redeemed_at = serializers.DateTimeField()
    reference = serializers.CharField()
    repeated = serializers.BooleanField(help_text="It was redeemed before, by this reference.")
    delivery_id = serializers.IntegerField(allow_null=True)
    campaign = CampaignName(allow_null=True)


class RedeemErrorOut(serializers.Serializer[Any]):
    code = serializers.ChoiceField(choices=[problem.value for problem in RedeemProblem])
    message = serializers.CharField()
    redeemed_at = serializers.DateTimeField(required=False)


class RedeemViewSet(BrandScoped, viewsets.GenericViewSet[Coupon]):
    """The till's side of coupons."""

    queryset = Coupon.objects.all()
    serializer_class = RedeemIn
    write_role = Role.SUPPORT

    @extend_schema(
        operation_id="redeem_coupon",
        request=RedeemIn,
        responses={200: RedeemOut, 404: RedeemErrorOut, 409: RedeemErrorOut, 410: RedeemErrorOut},
    )
    @action(detail=False, methods=["post"])
    def redeem(self, request: Request) -> Response:
        """Take a code, once. The offer that carried it is told as feedback `redeemed`."""
        given = RedeemIn(data=request.data)
        given.is_valid(raise_exception=True)
        said, at = given.validated_data, now()
        try:
            coupon, repeated = coupons.redeem(
                self.brand_for_writing(),
                said["code"],
                at=_past(said.get("occurred_at"), at),
                now=at,
                reference=said.get("reference", ""),
            )
        except RedeemError as error:
            return _refused(error)
        delivery = Delivery.objects.filter(pk=coupon.delivery_id or 0).first()
        pool = coupon.pool
        return Response(
            {
                "code": coupon.code,
                "pool": {"id": pool.pk, "slug": pool.slug, "name": pool.name},
                "redeemed_at": coupon.redeemed_at,
                "reference": coupon.reference,
                "repeated": repeated,
                "delivery_id": None if delivery is None else delivery.pk,
                "campaign": None
                if delivery is None
                else {"id": delivery.campaign_id, "name": delivery.campaign_name},
            }
        )


def _past(told: datetime | None, at: datetime) -> datetime:
    """When it was redeemed; a till that was offline may tell later, none from the future.

    Not before it was given out either: `coupons.redeem` sees to that, which has the row.
    """
    return at if told is None or told > at else told.astimezone(UTC)


def _refused(error: RedeemError) -> Response:
    answer: dict[str, Any] = {"code": error.problem.value, "message": str(error), "fields": {}}
    if error.problem is RedeemProblem.REDEEMED and error.coupon is not None:
        answer["redeemed_at"] = error.coupon.redeemed_at
    return Response(answer, status=_STATUS[error.problem])

"""The management paths of campaigns and of what they led to."""

from __future__ import annotations

from django.urls import path
from rest_framework.routers import SimpleRouter

from campaigns.api.brand_guards import BrandGuardViewSet
from campaigns.api.campaigns import CampaignViewSet, SegmentViewSet
from campaigns.api.control import ControlGroupView
from campaigns.api.coupons import CouponPoolViewSet, RedeemViewSet
from campaigns.api.histories import DecisionViewSet, DeliveryViewSet, TransitionViewSet

router = SimpleRouter(trailing_slash=False)
router.register("campaigns", CampaignViewSet)
router.register("segments", SegmentViewSet)
router.register("guards", BrandGuardViewSet)
router.register("coupon-pools", CouponPoolViewSet)
router.register("coupons", RedeemViewSet)
router.register("transitions", TransitionViewSet)
router.register("decisions", DecisionViewSet)
router.register("deliveries", DeliveryViewSet)

urlpatterns = [
    *router.urls,
    path("control-group", ControlGroupView.as_view(), name="control-group"),
]

"""Paths of a device's offers under /v1/."""

from __future__ import annotations

from django.urls import path

from notifications import api

urlpatterns = [
    path("offers", api.OffersView.as_view(), name="offers"),
    path(
        "deliveries/<int:delivery_id>/feedback",
        api.FeedbackView.as_view(),
        name="delivery-feedback",
    ),
]

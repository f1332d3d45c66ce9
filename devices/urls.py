"""Paths of devices under /v1/; the fast doors stand in front of these (config.web)."""

from __future__ import annotations

from django.urls import path

from devices import api

urlpatterns = [
    path("devices", api.DevicesView.as_view(), name="devices"),
    path("devices/me", api.OwnDeviceView.as_view(), name="own-device"),
    path("devices/me/export", api.ExportView.as_view(), name="own-export"),
    path("geofences/nearby", api.NearbyView.as_view(), name="nearby"),
    path("gateway/profiles", api.ProfilesView.as_view(), name="profiles"),
    path("gateway/profiles/<path:external_id>", api.PersonView.as_view(), name="person"),
]

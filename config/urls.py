"""Which path leads where; the fast doors of config.asgi stand in front of these."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from config import health, live

admin.autodiscover()
handler400 = "config.errors.bad_request"
handler404 = "config.errors.not_found"
handler500 = "config.errors.failed"
urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/live/", admin.site.admin_view(live.page), name="live"),
    path("admin/", admin.site.urls),
    path("v1/", include("devices.urls")),
    path("v1/", include("notifications.urls")),
    path("v1/", include("geofences.urls")),
    path("v1/", include("campaigns.urls")),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.figures, name="metrics"),
    path("v1/schema/", SpectacularAPIView.as_view(), name="schema"),
]
# Sockets of the staff's pages; config.asgi signs people in and checks where the page came from.
websocket_urlpatterns = [path("ws/live", live.Live.as_asgi())]

"""The REST paths of geofences; `nearby` is a door and is matched before these."""

from __future__ import annotations

from rest_framework.routers import SimpleRouter

from geofences.api import GeofenceViewSet

router = SimpleRouter(trailing_slash=False)
router.register("geofences", GeofenceViewSet)

urlpatterns = router.urls

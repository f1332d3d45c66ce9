"""The brand a member of staff works in, remembered in the session, and its time zone.

Every list of the admin shows this brand, every new row belongs to it. Opening a row of another
brand one has rights in moves there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from brands.models import Brand
from brands.rights import Rights, rights_of
from brands.wallclock import zone

_KEY = "brand_id"


def rights(request: HttpRequest) -> Rights:
    """Return the rights of the person behind a request, read once."""
    found: Rights | None = getattr(request, "_nearcast_rights", None)
    if found is None:
        found = rights_of(request.user)
        request._nearcast_rights = found  # type: ignore[attr-defined]
    return found


def current_brand(request: HttpRequest) -> Brand | None:
    """Return the brand this person works in: the one chosen last, else the first by name."""
    if not hasattr(request, "_nearcast_brand"):
        mine = rights(request).brands()
        chosen = request.session.get(_KEY)
        found = mine.filter(pk=chosen).first() if chosen is not None else None
        request._nearcast_brand = found or mine.first()  # type: ignore[attr-defined]
    brand: Brand | None = request._nearcast_brand  # type: ignore[attr-defined]
    return brand


def work_in(request: HttpRequest, brand_id: int) -> Brand | None:
    """Move to a brand; None, and nothing moves, where this person has no rights in it."""
    brand = rights(request).brands().filter(pk=brand_id).first()
    if brand is not None:
        if request.session.get(_KEY) != brand.pk:
            request.session[_KEY] = brand.pk
        request._nearcast_brand = brand  # type: ignore[attr-defined]
        timezone.activate(zone_of(brand))
    return brand


def zone_of(brand: Brand | None) -> ZoneInfo:
    """Return a brand's time zone; UTC where it has none that exists."""
    return zone(brand.timezone if brand else "UTC")


def readable_address(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., Any]:
    """Middleware: a NUL asked for counts for nothing; no row holds one, PostgreSQL takes none."""
    admin = reverse("admin:index")

    def answer(request: HttpRequest) -> HttpResponse:
        asked = request.META.get("QUERY_STRING", "")
        if "%00" in asked and request.path.startswith(admin):
            request.META["QUERY_STRING"] = asked.replace("%00", "")
        return get_response(request)

    return answer


def brand_time(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    """Middleware: admin pages show and read times in the zone of the brand worked in."""
    admin = reverse("admin:index")

    def answer(request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(admin) or not request.user.is_authenticated:
            return get_response(request)
        try:
            timezone.activate(zone_of(current_brand(request)))
            return get_response(request)
        finally:
            timezone.deactivate()

    return answer

"""What the admin's sidebar offers to whom; it leads to pages and shows none.

Every entry asks the admin class behind it, so that the menu and the pages cannot disagree.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse

from brands.desk import current_brand, rights

Item = dict[str, Any]

_GROUPS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "",
        (
            ("Today", "space_dashboard", "admin:index"),
            ("Live", "sensors", "live"),
        ),
    ),
    (
        "Campaigning",
        (
            ("Campaigns", "campaign", "campaigns.campaign"),
            ("Geofences", "share_location", "geofences.geofence"),
            ("Segments", "groups", "campaigns.segment"),
            ("Relevance", "verified", "campaigns.brandguard"),
            ("Coupons", "confirmation_number", "campaigns.couponpool"),
            ("Control group", "person_off", "campaigns.controlgroup"),
            ("People", "contacts", "devices.profile"),
        ),
    ),
    (
        "Support",
        (
            ("Deliveries", "send", "notifications.delivery"),
            ("Devices", "smartphone", "devices.device"),
            ("Decisions", "rule", "campaigns.decision"),
        ),
    ),
    (
        "Settings",
        (
            ("Brands", "storefront", "brands.brand"),
            ("Staff", "badge", "brands.membership"),
            ("App keys", "key", "brands.appkey"),
            ("Accounts", "manage_accounts", "auth.user"),
        ),
    ),
)


def sidebar(request: HttpRequest) -> list[Item]:
    """Return the groups of the menu with what this person may open."""
    groups: list[Item] = []
    for title, entries in _GROUPS:
        items = [item for entry in entries if (item := _item(request, *entry)) is not None]
        if items:
            groups.append({"title": title, "separator": False, "items": items})
    return groups


def _item(request: HttpRequest, title: str, icon: str, target: str) -> Item | None:
    app, _, model = target.partition(".")
    try:
        if not model:
            return {"title": title, "icon": icon, "link": reverse(target)}
        link = reverse(f"admin:{app}_{model}_changelist")
    except NoReverseMatch:  # a page that this installation does not have
        return None
    page = next(
        (
            found
            for registered, found in admin.site._registry.items()
            if registered._meta.label_lower == target
        ),
        None,
    )
    if page is None or not page.has_module_permission(request):
        return None
    return {"title": title, "icon": icon, "link": link}


def stylesheet(_request: HttpRequest) -> str:
    """Return the address of the admin's own styles."""
    return static("nearcast/admin.css")


def script(_request: HttpRequest) -> str:
    """Return the address of what every page of the admin runs."""
    return static("nearcast/desk.js")


def icon(_request: HttpRequest) -> str:
    """Return the address of the browser tab's icon."""
    return static("nearcast/icon.svg")


def brand_name(request: HttpRequest) -> str:
    """Return the name of the brand worked in, under the site's own."""
    brand = current_brand(request) if request.user.is_authenticated else None
    return brand.name if brand else ""


def brand_menu(request: HttpRequest) -> list[Item]:
    """Return the other brands one may work in; nothing where there is only one."""
    if not request.user.is_authenticated:
        return []
    here = current_brand(request)
    mine = list(rights(request).brands()[:13])
    if len(mine) < 2:
        return []
    items = [
        {
            "title": brand.name,
            "icon": "check" if brand == here else "storefront",
            "link": reverse("admin:brands_brand_work_in", args=[brand.pk]),
        }
        for brand in mine[:12]
    ]
    if len(mine) > 12:
        all_brands = reverse("admin:brands_brand_changelist")
        items.append({"title": "All brands…", "icon": "more_horiz", "link": all_brands})
    return items

"""Support's view of devices: found by any of their ids, shown, erased; never edited.

`campaigns.admin` registers it, with what campaigns decided about a device beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.timezone import now

from brands.admin import BigListAdmin, Page
from brands.models import Brand, Role
from devices import exports, registration
from devices.fixes import FixVerdict
from devices.models import Device, DeviceState, Fix, Platform, Presence, Profile
from devices.sketch import Mark, Place, features, sketch
from geofences.models import Geofence

TRAIL_FIXES = 200
INPUT = {"class": "nc-input"}


def place_of(geofence: Geofence, *, faint: bool = False) -> Place:
    """Return a geofence as the map draws it."""
    geometry: Any = geofence.geometry
    if geofence.radius_m is not None:
        polygons: Any = [[[(geometry.x, geometry.y)]]]
    else:
        polygons = [geometry.coords] if geometry.geom_type == "Polygon" else geometry.coords
    return Place(name=geofence.name, polygons=polygons, radius_m=geofence.radius_m, faint=faint)


def map_of(places: Sequence[Place], marks: Sequence[Mark]) -> dict[str, Any] | None:
    """Return what the small map's template shows; None where there is nothing."""
    drawn = sketch(places, marks)
    return {"svg": drawn, "features": features(places, marks)} if drawn else None


def trail_of(device_id: int, *, since: Any, until: Any) -> list[Mark]:
    """Return the latest positions between two instants, oldest first, as dots of a trail."""
    rows = Fix.objects.filter(
        device_id=device_id, received_at__gte=since, received_at__lte=until
    ).order_by("-recorded_at")[:TRAIL_FIXES]
    return [
        Mark(
            lat=fix.lat,
            lng=fix.lng,
            accuracy_m=fix.accuracy_m,
            label=f"{fix.recorded_at:%H:%M:%S} UTC"
            + (f", ±{fix.accuracy_m:.0f} m" if fix.accuracy_m else "")
            + ("" if fix.verdict == FixVerdict.USED else f", {FixVerdict(fix.verdict).name}"),
        )
        for fix in reversed(rows)
    ]


class DeviceFilters(forms.Form):
    """What a device is looked for by."""

    q = forms.CharField(
        required=False,
        label="Device id, external id, installation or push token",
        widget=forms.TextInput(INPUT | {"placeholder": "e.g. 4711 or customer-42"}),
    )
    platform = forms.ChoiceField(
        required=False,
        choices=[("", "All"), *Platform.choices],
        widget=forms.Select(INPUT),
    )
    reach = forms.ChoiceField(
        required=False,
        label="Can be reached",
        choices=[("", "All"), ("yes", "Yes"), ("no", "No")],
        widget=forms.Select(INPUT),
    )


class EraseForm(forms.Form):
    """Asks for a second thought."""

    sure = forms.BooleanField(label="Yes, erase everything held about this device")


class DeviceAdmin(BigListAdmin):
    """Devices of the brand, read-only; an admin may erase one or take its data out."""

    filter_form = DeviceFilters
    row_template = "admin/devices/device/row.html"
    page_template = "admin/devices/device/page.html"
    headings = ("Device", "Platform", "Consent", "Push", "Last position")
    empty_text = (
        "Your app registers devices with an app key (Settings → App keys): "
        "POST /v1/devices. They appear here at once."
    )

    def find(
        self, request: HttpRequest, brand: Brand, asked: dict[str, Any], *, older: str | None
    ) -> Page:
        rows = Device.objects.filter(brand=brand).select_related("state").order_by("-pk")
        if query := (asked.get("q") or "").strip():
            named = Q(external_id=query) | Q(installation_id=query) | Q(push_token=query)
            if query.isdecimal() and len(query) < 19:
                named |= Q(pk=int(query))
            rows = rows.filter(named)
        if asked.get("platform"):
            rows = rows.filter(platform=asked["platform"])
        reachable = Q(push_token__isnull=False, push_token_gone_at__isnull=True)
        if asked.get("reach"):
            rows = rows.filter(reachable if asked["reach"] == "yes" else ~reachable)
        if older:
            rows = rows.filter(pk__lt=int(older))
        found = list(rows[: self.per_page + 1])
        more = len(found) > self.per_page
        found = found[: self.per_page]
        return Page(rows=found, older=str(found[-1].pk) if more else None)

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("<path:object_id>/erase/", wrap(self.erase_view), name="devices_device_erase"),
            path("<path:object_id>/export/", wrap(self.export_view), name="devices_device_export"),
            *super().get_urls(),
        ]

    def page(self, request: HttpRequest, device: Device) -> dict[str, Any]:
        """Return what the device's page shows."""
        state = DeviceState.objects.filter(pk=device.pk).first()
        inside = list(Presence.objects.filter(device_id=device.pk).order_by("-entered_at")[:20])
        places = Geofence.objects.filter(brand_id=device.brand_id).in_bulk(
            [presence.geofence_id for presence in inside]
        )
        profile = (
            Profile.objects.filter(brand=device.brand, external_id=device.external_id).first()
            if device.external_id
            else None
        )
        return {
            "title": str(device),
            "device": device,
            "state": state,
            "inside": [
                {"presence": presence, "geofence": places.get(presence.geofence_id)}
                for presence in inside
            ],
            "attributes": list(_attributes(device, profile)),
            "siblings": self.siblings(device),
            "map": map_of(
                [place_of(place) for place in places.values()],
                _whereabouts(device, state),
            ),
            "may_erase": self.allows(request, Role.ADMIN, device),
        }

    def siblings(self, device: Device) -> list[Device]:
        """Return the other devices of the same person."""
        if not device.external_id:
            return []
        same = Device.objects.filter(brand_id=device.brand_id, external_id=device.external_id)
        return list(same.exclude(pk=device.pk)[:10])

    def erase_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then erase every row that names the device."""
        device = self.object_or_redirect(request, object_id)
        if isinstance(device, HttpResponseRedirect):
            return device
        if not self.allows(request, Role.ADMIN, device):
            raise PermissionDenied
        form = EraseForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            registration.erase(device.pk)
            # Not even the admin's own log may name what was erased.
            messages.success(request, "The device and everything held about it are erased.")
            return redirect("admin:devices_device_changelist")
        return TemplateResponse(
            request,
            "admin/nearcast/confirm.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": device,
                "title": f"Erase {device}?",
                "text": "Its positions, visits, events, decisions, deliveries and its registration "
                "are deleted, its token stops working. If the app is still installed it will "
                "register again as a new device. This cannot be undone.",
                "form": form,
                "button": "Erase the device",
                "back_url": reverse("admin:devices_device_change", args=[device.pk]),
            },
        )

    def export_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Answer everything held about a device, as one JSON file."""
        device = self.object_or_redirect(request, object_id)
        if isinstance(device, HttpResponseRedirect):
            return device
        if not self.allows(request, Role.ADMIN, device):
            raise PermissionDenied
        answer = StreamingHttpResponse(exports.of_device(device), content_type="application/json")
        answer["Content-Disposition"] = f'attachment; filename="device-{device.pk}.json"'
        return answer  # type: ignore[return-value]


def _whereabouts(device: Device, state: DeviceState | None) -> list[Mark]:
    if state is None or state.lat is None or state.lng is None or state.received_at is None:
        return []
    trail = trail_of(
        device.pk, since=state.received_at - timedelta(hours=3), until=now() + timedelta(minutes=5)
    )
    last = Mark(
        lat=state.lat,
        lng=state.lng,
        accuracy_m=state.accuracy_m,
        label=f"Last position, {state.recorded_at:%d %b %H:%M:%S} UTC",
        kind="last",
    )
    return [*trail, last]


def _attributes(device: Device, profile: Profile | None) -> Iterator[dict[str, Any]]:
    """Every attribute with where it came from; the person's own ones after the app's."""
    for source in (device, profile):
        if source is None:
            continue
        for name, value in sorted(source.attributes.items()):
            fact = source.attribute_facts.get(name) or {}
            yield {
                "name": name,
                "value": value,
                "source": fact.get("source") or ("app" if source is device else "back office"),
                "at": fact.get("at"),
            }

"""The back office's view of people: found by their id, shown with what is known and from where.

A person is listed without any device, too. Nothing is edited here: the CRM is where it is true.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.dateparse import parse_datetime

from brands.admin import BigListAdmin, Page
from brands.models import Brand, Role
from devices import exports, people
from devices.models import Device, Profile

INPUT = {"class": "nc-input"}


class PeopleFilters(forms.Form):
    """What a person is looked for by."""

    q = forms.CharField(
        required=False,
        label="External id, or its beginning",
        widget=forms.TextInput(INPUT | {"placeholder": "e.g. customer-42"}),
    )


class ErasePersonForm(forms.Form):
    """Asks how far to go, and for a second thought."""

    devices = forms.BooleanField(
        required=False, initial=True, label="Erase their devices, too, and all that names them"
    )
    sure = forms.BooleanField(label="Yes, erase what is held about this person")


@admin.register(Profile)
class PeopleAdmin(BigListAdmin):
    """People of the brand by the brand's own ids, read-only; an admin may erase one."""

    filter_form = PeopleFilters
    list_template = "admin/devices/profile/list.html"
    row_template = "admin/devices/profile/row.html"
    page_template = "admin/devices/profile/page.html"
    headings = ("Person", "Known", "Devices", "Last change")
    empty_text = (
        "Import a file of your CRM, or let your back office send it: PUT /v1/gateway/profiles."
    )

    def find(
        self, request: HttpRequest, brand: Brand, asked: dict[str, Any], *, older: str | None
    ) -> Page:
        # By id: the one order that an index gives without a look at every row of the brand.
        rows = Profile.objects.filter(brand=brand).order_by("external_id")
        if query := (asked.get("q") or "").strip():
            rows = rows.filter(external_id__gte=query, external_id__lt=f"{query}\U0010ffff")
        if older:
            rows = rows.filter(external_id__gt=older)
        found = list(rows[: self.per_page + 1])
        more = len(found) > self.per_page
        found = found[: self.per_page]
        devices = _devices(brand, [row.external_id for row in found])
        for row in found:
            row.device_count = devices.get(row.external_id, 0)  # type: ignore[attr-defined]
        return Page(rows=found, older=found[-1].external_id if more else None)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may_import = self.allows(request, Role.MARKETER)
        return super().changelist_view(request, {"may_import": may_import} | (extra_context or {}))

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("<path:object_id>/erase/", wrap(self.erase_view), name="devices_profile_erase"),
            path("<path:object_id>/export/", wrap(self.export_view), name="devices_profile_export"),
            *super().get_urls(),
        ]

    def page(self, request: HttpRequest, person: Profile) -> dict[str, Any]:
        mine = people.devices_of(person.brand_id, person.external_id)
        return {
            "title": person.external_id,
            "person": person,
            "attributes": [
                {
                    "name": name,
                    "value": value,
                    "source": fact.get("source", ""),
                    "at": parse_datetime(fact.get("at") or ""),
                }
                for name, value in sorted(person.attributes.items())
                for fact in [person.attribute_facts.get(name) or {}]
            ],
            "devices": list(mine.select_related("state").order_by("-pk")[:20]),
            "may_erase": self.allows(request, Role.ADMIN, person),
        }

    def erase_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask how far to go, then erase what is held about the person."""
        person = self.object_or_redirect(request, object_id)
        if isinstance(person, HttpResponseRedirect):
            return person
        if not self.allows(request, Role.ADMIN, person):
            raise PermissionDenied
        form = ErasePersonForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            with_devices = form.cleaned_data["devices"]
            people.erase(person.brand_id, person.external_id, devices=with_devices)
            # Not even the admin's own log may name what was erased.
            messages.success(request, "What was held about this person is erased.")
            return redirect("admin:devices_profile_changelist")
        return TemplateResponse(
            request,
            "admin/nearcast/confirm.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": person,
                "title": f"Erase {person.external_id}?",
                "lines": _what_goes(person),
                "form": form,
                "button": "Erase this person",
                "back_url": reverse("admin:devices_profile_change", args=[person.pk]),
            },
        )

    def export_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Answer everything held about a person and their devices, as one JSON file."""
        person = self.object_or_redirect(request, object_id)
        if isinstance(person, HttpResponseRedirect):
            return person
        if not self.allows(request, Role.ADMIN, person):
            raise PermissionDenied
        answer = StreamingHttpResponse(
            exports.of_person(person.brand_id, person.external_id), content_type="application/json"
        )
        answer["Content-Disposition"] = f'attachment; filename="person-{person.pk}.json"'
        return answer  # type: ignore[return-value]


def _what_goes(person: Profile) -> list[str]:
    devices = people.devices_of(person.brand_id, person.external_id).count()
    known = f"{len(person.attributes)} attribute{'' if len(person.attributes) == 1 else 's'}"
    theirs = f"{devices} device{'' if devices == 1 else 's'}"
    return [
        f"What your back office said of them goes: {known}, and the events it reported.",
        "What imports of people keep of them, to be undone, goes as well.",
        f"If you tick it, {theirs} go too: positions, visits, events, decisions, deliveries.",
        "An app that is still installed registers again, as a new device.",
        "A CRM that still has this person brings them back: erase them there first.",
        "This cannot be undone.",
    ]


def _devices(brand: Brand, external_ids: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    mine = Device.objects.filter(brand=brand, external_id__in=external_ids)
    for external_id in mine.values_list("external_id", flat=True):
        counts[external_id or ""] = counts.get(external_id or "", 0) + 1
    return counts

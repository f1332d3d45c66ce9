"""The back office's view of people: found by their id, shown with what is known and from where.

A person is listed without any device, too. Nothing is edited here: the CRM is where it is true.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.dateparse import parse_datetime

from brands.admin import BigListAdmin, Page
from brands.models import Brand, Role
from devices.models import Device, Profile

INPUT = {"class": "nc-input"}


class PeopleFilters(forms.Form):
    """What a person is looked for by."""

    q = forms.CharField(
        required=False,
        label="External id, or its beginning",
        widget=forms.TextInput(INPUT | {"placeholder": "e.g. customer-42"}),
    )


@admin.register(Profile)
class PeopleAdmin(BigListAdmin):
    """People of the brand by the brand's own ids, read-only."""

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

    def page(self, request: HttpRequest, person: Profile) -> dict[str, Any]:
        mine = Device.objects.filter(brand=person.brand, external_id=person.external_id)
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
        }


def _devices(brand: Brand, external_ids: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    mine = Device.objects.filter(brand=brand, external_id__in=external_ids)
    for external_id in mine.values_list("external_id", flat=True):
        counts[external_id or ""] = counts.get(external_id or "", 0) + 1
    return counts

"""Imports of people in the admin: what the columns of a CRM's file mean, and what would change.

The work itself is `devices.profile_imports`'; the pages around it are `brands.admin.uploads`'.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.timezone import now

from brands import filejobs
from brands.admin import FileJobAdmin, UploadForm
from brands.filejobs import local_copy
from devices import profile_files, profile_imports
from devices.columns import Column, Kind, ProfilePlan, text_of
from devices.models import ProfileImport

SHOWN_VALUES = 3
SHOWN_REMARKS = 5
KINDS = {
    Kind.AS_IS: "as in the file",
    Kind.TEXT: "text",
    Kind.NUMBER: "number",
    Kind.YES_NO: "yes or no",
    Kind.DATE: "date, 2026-12-31",
    Kind.DATE_DMY: "date, 31.12.2026",
    Kind.DATE_MDY: "date, 12/31/2026",
    Kind.LIST: "list, a; b; c",
    Kind.SKIP: "leave it out",
}
INPUT = {"class": "nc-input nc-wide"}


class PeopleUploadForm(UploadForm):
    """A file with people."""

    endings = profile_files.ENDINGS
    readable = "A CSV, Excel, ODS, Parquet or NDJSON file can."
    command = "import_profiles"
    what = "What your CRM knows of people: one row a person, by the id your app uses for them."
    kinds = "CSV, Excel, ODS, Parquet, NDJSON"


class ProfilePlanForm(forms.Form):
    """What the columns of a file of people mean."""

    external_id = forms.ChoiceField(
        label="The person's id",
        widget=forms.Select(INPUT),
        help_text="The external id that your app registers its devices with.",
    )
    as_of = forms.ChoiceField(
        label="When a row was true",
        required=False,
        widget=forms.Select(INPUT),
        help_text="Older than what is known already is not taken. None: now.",
    )
    source = forms.CharField(
        label="Where it is from",
        max_length=64,
        initial="crm",
        widget=forms.TextInput(INPUT),
        help_text="Kept with each value; conditions can ask for it.",
    )
    empty_clears = forms.BooleanField(
        label="An empty cell takes the attribute away", required=False
    )

    def __init__(self, *args: Any, layout: profile_files.Layout, **kwargs: Any) -> None:
        guess = layout.guess
        super().__init__(*args, **kwargs)
        self.initial = {"external_id": guess.external_id, "as_of": guess.as_of}
        self.layout = layout
        names = [(name, name) for name in layout.columns]
        for key, none in (("external_id", "choose…"), ("as_of", "now")):
            field = self.fields[key]
            assert isinstance(field, forms.ChoiceField), "they are, above"
            field.choices = [("", none), *names]
        for number, name in enumerate(layout.columns):
            column = guess.columns.get(name)
            self.fields[f"attribute_{number}"] = forms.CharField(
                required=False,
                max_length=64,
                initial=column.attribute if column else "",
                widget=forms.TextInput(
                    {"class": "nc-input nc-wide", "aria-label": f"Attribute of {name}"}
                ),
            )
            self.fields[f"kind_{number}"] = forms.ChoiceField(
                choices=[(kind.value, said) for kind, said in KINDS.items()],
                initial=column.kind.value if column else Kind.SKIP.value,
                widget=forms.Select({"class": "nc-input nc-wide", "aria-label": f"Kind of {name}"}),
            )

    def rows(self) -> list[dict[str, Any]]:
        """The columns as the page lists them."""
        return [
            {
                "name": name,
                "values": [
                    shown
                    for row in self.layout.sample[:50]
                    if (shown := text_of(row.get(name))[:40])
                ][:SHOWN_VALUES],
                "attribute": self[f"attribute_{number}"],
                "kind": self[f"kind_{number}"],
            }
            for number, name in enumerate(self.layout.columns)
        ]

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            for problem in profile_imports.problems_of(self.plan):
                self.add_error(None, problem)
        return given

    @property
    def plan(self) -> ProfilePlan:
        """What was chosen, of a form that was cleaned."""
        given = self.cleaned_data
        meant = (given["external_id"], given["as_of"])
        return ProfilePlan(
            external_id=given["external_id"],
            as_of=given["as_of"],
            columns={
                name: Column(
                    attribute=given[f"attribute_{number}"], kind=Kind(given[f"kind_{number}"])
                )
                for number, name in enumerate(self.layout.columns)
                if name not in meant
            },
            source=given["source"],
            empty_clears=given["empty_clears"],
        )


@admin.register(ProfileImport)
class ProfileImportAdmin(FileJobAdmin):
    """Files of people."""

    list_before_template = "admin/devices/profile/imports_tabs.html"
    empty_text = "What your CRM knows of people: any table with their ids."
    upload_form = PeopleUploadForm
    remark_columns = profile_imports.REMARK_COLUMNS
    worker = "profiles"

    def result_url(self, job: ProfileImport) -> tuple[str, str, str]:
        return reverse("admin:devices_profile_changelist"), "group", "See the people"

    def undo_lines(self, job: ProfileImport) -> list[str]:
        people = job.changes.count()
        return [
            f"It changed {people:,} {'person' if people == 1 else 'people'}.",
            "Each attribute goes back to what it was before, with its source and its time.",
            "What the app, another import or anybody else has changed since stays as it is.",
            "People whom the import made, and of whom nothing else is known, are removed.",
        ]

    def confirm(self, request: HttpRequest, job: ProfileImport) -> HttpResponse:
        with local_copy(job.file) as at:
            layout = profile_files.look(at)
        posted = request.method == "POST"
        form = ProfilePlanForm(request.POST if posted else None, layout=layout)
        plan = layout.guess
        if posted and form.is_valid():
            plan = form.plan
            if "start" in request.POST:
                return self.start(job, plan.to_json(), layout.rows)
        tried = (not posted or form.is_valid()) and not profile_imports.problems_of(plan)
        told = (
            profile_imports.trial(
                job.brand_id, [(values, "") for values in layout.sample], plan, now=now()
            )
            if tried
            else []
        )
        return self.page(
            request,
            "admin/devices/profile/confirm.html",
            f"Import {job.file_name}",
            job=job,
            form=form,
            layout=layout,
            counts=filejobs.counted({}, (one.verdict for one in told)),
            tried=len(told),
            undo_days=settings.IMPORT_UNDO_DAYS,
            remarks=[
                {"row": number, "told": one} for number, one in enumerate(told, 1) if one.remark
            ][:SHOWN_REMARKS],
            cancel_url=self.url("cancel", job.pk),
        )

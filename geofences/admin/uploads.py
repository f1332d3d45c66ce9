"""Imports in the admin: a file is uploaded, its columns are confirmed, and its rows are watched.

The work itself is `geofences.imports`'; a page only queues it and reads the job's rows, so it may
be closed and opened again.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from typing import Any

import shapely
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.timezone import now
from unfold.decorators import display

from brands.admin import BrandScopedAdmin
from brands.desk import current_brand
from brands.templatetags.nearcast import when
from geofences import files, imports
from geofences.admin.places import known_tags
from geofences.forms import PlanForm, UploadForm
from geofences.models import GeofenceImport, ImportState, Verdict

SHOWN_ROWS = 6
SHOWN_COLUMNS = 8
SHOWN_PLACES = 250
REMARKS_A_PAGE = 50
OVERDUE_S = 15  # queued for longer: probably no worker runs

UNDER_WAY = (ImportState.QUEUED, ImportState.RUNNING)


@admin.register(GeofenceImport)
class GeofenceImportAdmin(BrandScopedAdmin):
    """Imports: nothing about one is edited, except what its columns mean before it starts."""

    delete_role = None
    list_display = ("file_name", "state_in_words", "what_came", "by", "started")
    list_display_links = ("file_name",)
    list_per_page = 50
    list_select_related = ("created_by",)
    ordering = ("-created_at",)
    list_before_template = "admin/geofences/geofenceimport/tabs.html"
    empty_title = "Nothing imported yet"
    empty_text = "A list of your shops, or the outlines of neighbourhoods: any file with places."
    actions = ()

    @display(
        description="state",
        ordering="state",
        label={"Done": "success", "Failed": "danger", "Running": "info", "Queued": "info"},
    )
    def state_in_words(self, row: GeofenceImport) -> str:
        return row.get_state_display()

    @display(description="rows")
    def what_came(self, row: GeofenceImport) -> str:
        return ", ".join(f"{count:,} {verdict}" for verdict, count in row.counts.items()) or "–"

    @display(description="by")
    def by(self, row: GeofenceImport) -> str:
        return row.created_by.get_username() if row.created_by else "command line"

    @display(description="when", ordering="created_at")
    def started(self, row: GeofenceImport) -> str:
        return when(row.created_at)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        pages: dict[str, Callable[..., HttpResponse]] = {
            "progress.json": self.progress_view,
            "remarks.csv": self.remarks_view,
            "cancel/": self.cancel_view,
        }
        return [
            *(
                path(
                    f"<int:object_id>/{at}",
                    wrap(view),
                    name=f"geofences_geofenceimport_{at.strip('/').replace('.', '_')}",
                )
                for at, view in pages.items()
            ),
            *super().get_urls(),
        ]

    def _page(
        self, request: HttpRequest, template: str, title: str, **context: Any
    ) -> TemplateResponse:
        return TemplateResponse(
            request,
            f"admin/geofences/geofenceimport/{template}.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": title,
                "tab": "imports",
                **context,
            },
        )

    # -- upload -------------------------------------------------------------------------------

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        brand = current_brand(request)
        if brand is None or not self.has_add_permission(request):
            raise PermissionDenied
        form = UploadForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            file = form.cleaned_data["file"]
            job = GeofenceImport(
                brand=brand, file_name=file.name[-200:], created_by_id=request.user.pk
            )
            job.file.save(file.name, file, save=False)
            job.save()
            return redirect("admin:geofences_geofenceimport_change", job.pk)
        return self._page(request, "upload", "Import a file", form=form)

    # -- one import ---------------------------------------------------------------------------

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        job = self.object_or_redirect(request, object_id)
        if isinstance(job, HttpResponseRedirect):
            return job
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        if job.state == ImportState.DRAFT:
            return self._confirm(request, job)
        return self._watch(request, job)

    def _confirm(self, request: HttpRequest, job: GeofenceImport) -> HttpResponse:
        """What the columns mean: guessed, shown beside the first rows, put right by a person."""
        if not self.has_change_permission(request, job):
            raise PermissionDenied
        tags = known_tags(job.brand)
        wanted = files.Columns(
            crs=request.POST.get("crs", "").strip(), layer=request.POST.get("layer", "")
        )
        try:
            with imports.local_copy(job.file) as at:
                layout = files.look(at, wanted)
        except files.FileError as error:
            imports.refuse(job, str(error), now=now())
            return redirect("admin:geofences_geofenceimport_change", job.pk)
        started = "start" in request.POST
        form = PlanForm(
            request.POST if request.method == "POST" else None,
            layout=layout,
            known_tags=tags,
            initial=_initial(layout),
        )
        if started and form.is_valid() and not _problem(layout, form):
            job.mapping = _plan(form).to_json()
            job.rows_total = layout.rows
            job.state = ImportState.QUEUED
            job.created_at = now()  # its place in the queue
            job.save()
            return redirect("admin:geofences_geofenceimport_change", job.pk)
        points = any(
            row.geometry is not None and row.geometry.geom_type == "Point" for row in layout.sample
        )
        return self._page(
            request,
            "confirm",
            f"Import {job.file_name}",
            job=job,
            form=form,
            layout=layout,
            problem=layout.problem,
            points=points or layout.is_table,
            table=_table(layout),
            options={"places": _places(layout)},
        )

    def _watch(self, request: HttpRequest, job: GeofenceImport) -> HttpResponse:
        verdict = request.GET.get("verdict", "")
        remarks = job.rows.filter(verdict=verdict) if verdict in set(Verdict) else job.rows.all()
        page = Paginator(remarks, REMARKS_A_PAGE).get_page(request.GET.get("page"))
        tags = imports.Plan.from_json(job.mapping).tags
        return self._page(
            request,
            "watch",
            job.file_name,
            job=job,
            page=page,
            verdict=verdict,
            verdicts=job.rows.order_by().values_list("verdict", flat=True).distinct(),
            progress=progress(job),
            took_s=(job.finished_at - job.started_at).total_seconds()
            if job.finished_at and job.started_at
            else None,
            on_map=reverse("admin:geofences_geofence_map") + (f"?tag={tags[0]}" if tags else ""),
            may_edit=self.has_change_permission(request, job),
        )

    def progress_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        return JsonResponse(progress(self._seen(request, object_id)))

    def remarks_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """The rows that were refused or remarked on, as CSV."""
        job = self._seen(request, object_id)
        answer = HttpResponse(content_type="text/csv; charset=utf-8")
        answer["Content-Disposition"] = f'attachment; filename="import-{job.pk}-remarks.csv"'
        writer = csv.writer(answer)
        writer.writerow(imports.REMARK_COLUMNS)
        writer.writerows(map(_harmless, imports.remarks(job)))
        return answer

    def cancel_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Stop an import; what it has taken in stays."""
        job = self._seen(request, object_id)
        if not self.has_change_permission(request, job):
            raise PermissionDenied
        if request.method == "POST" and imports.cancel(job, now=now()):
            messages.success(request, "The import is stopped. What it took in stays.")
        return redirect("admin:geofences_geofenceimport_change", job.pk)

    def _seen(self, request: HttpRequest, object_id: int) -> GeofenceImport:
        job = self.get_object(request, str(object_id))
        if job is None or not self.has_view_permission(request, job):
            raise PermissionDenied
        found: GeofenceImport = job
        return found


def progress(job: GeofenceImport) -> dict[str, Any]:
    """How far an import is, for the bar."""
    under_way = job.state in UNDER_WAY
    waited_s = (now() - job.created_at).total_seconds()
    return {
        "state": job.state,
        "under_way": under_way,
        "rows_done": job.rows_done,
        "rows_total": job.rows_total,
        "counts": job.counts,
        "overdue": job.state == ImportState.QUEUED and waited_s > OVERDUE_S,
    }


def _harmless(row: tuple[Any, ...]) -> list[Any]:
    """A spreadsheet runs what begins like a formula; these cells were written by strangers."""
    return [
        f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@", "\t"} else cell
        for cell in row
    ]


def _initial(layout: files.Layout) -> dict[str, Any]:
    guess = layout.guess
    return {
        "external_id": guess.external_id,
        "name": guess.name,
        "lat": guess.lat,
        "lng": guess.lng,
        "radius": guess.radius,
        "tags_column": guess.tags,
        "radius_m": None if guess.radius else 150,
    }


def _problem(layout: files.Layout, form: PlanForm) -> bool:
    """Whether something about the file itself stands in the way."""
    missing_columns = layout.is_table and not (
        form.cleaned_data.get("lat") and form.cleaned_data.get("lng")
    )
    if missing_columns:
        form.add_error("lat", "Say which columns are the latitude and the longitude.")
    return missing_columns or (bool(layout.problem) and not layout.is_table)


def _plan(form: PlanForm) -> imports.Plan:
    given = form.cleaned_data
    return imports.Plan(
        columns=form.columns,
        radius_m=given["radius_m"],
        tags=tuple(given["tags"]),
        track_visits=True if given["track_visits"] else None,
        keep_metadata=given["keep_metadata"],
        retire_missing=given["retire_missing"],
    )


def _table(layout: files.Layout) -> dict[str, Any]:
    """The first rows, with the columns that mean something first."""
    meant = [name for name in layout.guess.meant if name]
    columns = [*dict.fromkeys((*meant, *layout.columns))][:SHOWN_COLUMNS]
    rows = [
        [imports.text(row.values.get(name))[:80] for name in columns]
        for row in layout.sample[:SHOWN_ROWS]
    ]
    return {"columns": columns, "rows": rows, "more": max(0, len(layout.columns) - len(columns))}


def _places(layout: files.Layout) -> dict[str, Any]:
    """Some of the places, coarsely, for the map beside the columns."""
    located = [row for row in layout.sample if row.geometry is not None][:SHOWN_PLACES]
    return {"type": "FeatureCollection", "features": [*_coarse(located)]}


def _coarse(rows: list[files.Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        assert row.geometry is not None, "chosen so"
        west, south, east, north = row.geometry.bounds
        coarse = shapely.simplify(row.geometry, max(east - west, north - south) / 200)
        if not coarse.is_empty:
            yield {
                "type": "Feature",
                "properties": {},
                "geometry": json.loads(shapely.to_geojson(shapely.force_2d(coarse))),
            }

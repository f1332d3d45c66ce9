"""Imports of places in the admin: what the columns of a file mean, beside a map of its first rows.

The work itself is `geofences.imports`'; the pages around it are `brands.admin.uploads`'.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import shapely
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from brands.admin import FileJobAdmin
from brands.filejobs import local_copy
from geofences import files, imports
from geofences.admin.places import known_tags
from geofences.forms import PlacesUploadForm, PlanForm
from geofences.models import GeofenceImport

SHOWN_ROWS = 6
SHOWN_COLUMNS = 8
SHOWN_PLACES = 250


@admin.register(GeofenceImport)
class GeofenceImportAdmin(FileJobAdmin):
    """Files of places."""

    list_before_template = "admin/geofences/geofenceimport/tabs.html"
    empty_text = "A list of your shops, or the outlines of neighbourhoods: any file with places."
    upload_form = PlacesUploadForm
    remark_columns = imports.REMARK_COLUMNS

    def result_url(self, job: GeofenceImport) -> tuple[str, str, str]:
        tags = imports.Plan.from_json(job.mapping).tags
        on_map = reverse("admin:geofences_geofence_map") + (f"?tag={tags[0]}" if tags else "")
        return on_map, "map", "See them on the map"

    def undo_lines(self, job: GeofenceImport) -> list[str]:
        made = job.changes.filter(made=True).count()
        changed = job.changes.count() - made
        return [
            f"It made {_places_in_words(made)} and changed {_places_in_words(changed)}.",
            "Places it made are retired: visits in them end, history keeps them.",
            "Places it changed or retired go back to what they were before, outline and all.",
            "What anybody has changed since, here or through the API, stays as it is.",
        ]

    def confirm(self, request: HttpRequest, job: GeofenceImport) -> HttpResponse:
        tags = known_tags(job.brand)
        wanted = files.Columns(
            crs=request.POST.get("crs", "").strip(), layer=request.POST.get("layer", "")
        )
        with local_copy(job.file) as at:
            layout = files.look(at, wanted)
        started = "start" in request.POST
        form = PlanForm(
            request.POST if request.method == "POST" else None,
            layout=layout,
            known_tags=tags,
            initial=_initial(layout),
        )
        if started and form.is_valid() and not _problem(layout, form):
            return self.start(job, _plan(form).to_json(), layout.rows)
        points = any(
            row.geometry is not None and row.geometry.geom_type == "Point" for row in layout.sample
        )
        return self.page(
            request,
            "admin/geofences/geofenceimport/confirm.html",
            f"Import {job.file_name}",
            job=job,
            form=form,
            layout=layout,
            problem=layout.problem,
            points=points or layout.is_table,
            undo_days=settings.IMPORT_UNDO_DAYS,
            table=_table(layout),
            options={"places": _places(layout)},
        )


def _places_in_words(count: int) -> str:
    return f"{count:,} place{'' if count == 1 else 's'}"


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

"""Geofences in the admin: the list, the map of all, and the page where one is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from math import pi
from typing import Any

import shapely
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.gis.db.models import Extent
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.forms import ModelForm, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.utils.timezone import now
from django.views.decorators.http import require_POST
from pyproj import Geod
from unfold.decorators import display

from brands.admin import BrandScopedAdmin
from brands.desk import current_brand
from brands.models import Brand
from brands.templatetags.nearcast import seconds, when
from geofences import exports, noticing, tiles, writing
from geofences.api import cells_as_geojson
from geofences.forms import GeofenceForm, in_words, place_of
from geofences.geometry import Circle, GeometryError
from geofences.models import FOREVER, Arming, Geofence, GeofenceCover, GeofenceQuerySet

TAGS_OFFERED = 200
TILE_KEPT_S = 20  # so long may a map show what was; zooming to and fro costs nothing


def known_tags(brand: Brand | None) -> tuple[str, ...]:
    """The tags that a brand's geofences have, the commonest first."""
    if brand is None:
        return ()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tag FROM geofences_geofence, unnest(tags) AS tag"
            " WHERE brand_id = %s AND retired_at IS NULL"
            " GROUP BY tag ORDER BY count(*) DESC, tag LIMIT %s",
            [brand.pk, TAGS_OFFERED],
        )
        return tuple(tag for (tag,) in cursor.fetchall())


def bounds_of(geofences: QuerySet[Geofence]) -> list[float] | None:
    """West, south, east and north of geofences (of circles: their centres)."""
    found = geofences.order_by().aggregate(extent=Extent("geometry"))["extent"]
    return list(found) if found else None


def narrowed(geofences: GeofenceQuerySet, request: HttpRequest) -> GeofenceQuerySet:
    """Those that fit the map's filters."""
    text, tag = request.GET.get("q", "").strip(), request.GET.get("tag", "")
    if text:
        geofences = geofences.filter(Q(name__icontains=text) | Q(external_id=text))
    if tag:
        geofences = geofences.filter(tags__contains=[tag])
    if request.GET.get("armed") == "1":
        geofences = geofences.armed(now())
    return geofences


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("armed", "Armed now"), ("idle", "Not armed"), ("retired", "Retired")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() == "retired":
            return queryset.filter(retired_at__isnull=False)
        present = queryset.filter(retired_at__isnull=True)
        armed = Geofence.objects.armed(now()).order_by().values("pk")
        if self.value() == "armed":
            return present.filter(pk__in=armed)
        return present.exclude(pk__in=armed) if self.value() == "idle" else present


class TagFilter(admin.SimpleListFilter):
    title = "tag"
    parameter_name = "tag"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(tag, tag) for tag in known_tags(current_brand(request))[:40]]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(tags__contains=[self.value()]) if self.value() else queryset


class ShapeFilter(admin.SimpleListFilter):
    title = "shape"
    parameter_name = "shape"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("circle", "Circle"), ("area", "Area")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if not self.value():
            return queryset
        return queryset.filter(radius_m__isnull=self.value() == "area")


@admin.register(Geofence)
class GeofenceAdmin(BrandScopedAdmin):
    """Geofences: drawn, found, given back; retired rather than deleted, as history names them."""

    delete_role = None
    form = GeofenceForm
    list_display = ("name", "shape", "tags_in_words", "state", "external_id", "changed")
    list_filter = (StateFilter, TagFilter, ShapeFilter)
    search_fields = ("name", "external_id")
    search_help_text = "Name or your own id"
    list_per_page = 50
    ordering = ("name", "id")
    show_full_result_count = False
    show_add_link = False  # the tabs have buttons that say what they do
    list_before_template = "admin/geofences/geofence/tabs.html"
    change_form_template = "admin/geofences/geofence/change_form.html"
    add_form_template = "admin/geofences/geofence/change_form.html"
    empty_title = "No geofence yet"
    empty_text = (
        "A geofence is a place that campaigns wait for: a shop, a stop, a neighbourhood. "
        "Draw one on the map, or import a list."
    )
    actions = ("as_geojson", "as_geopackage", "retire", "bring_back")

    @display(description="shape", ordering="radius_m")
    def shape(self, row: Geofence) -> str:
        if row.radius_m is not None:
            return f"Circle, {_metres(row.radius_m)}"
        return "Area" if row.geometry.geom_type == "Polygon" else f"{len(row.geometry)} areas"

    @display(description="tags")
    def tags_in_words(self, row: Geofence) -> str:
        more = f" +{len(row.tags) - 4}" if len(row.tags) > 4 else ""
        return ", ".join(row.tags[:4]) + more or "–"

    @display(
        description="state",
        label={"armed": "success", "starts later": "info", "ended": "", "retired": "danger"},
    )
    def state(self, row: Geofence) -> str:
        return state_of(row)

    @display(description="last change", ordering="updated_at")
    def changed(self, row: Geofence) -> str:
        return when(row.updated_at)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        retired = request.GET.get("state") == "retired"
        hidden = {"retire"} if retired else {"bring_back"}
        if not self.allows(request, self.change_role):
            hidden |= {"retire", "bring_back"}
        return {name: action for name, action in actions.items() if name not in hidden}

    @admin.action(description="Download as GeoJSON")
    def as_geojson(self, request: HttpRequest, chosen: GeofenceQuerySet) -> HttpResponseBase:
        return exports.answer(request, chosen, exports.Format.GEOJSON, name=_file_name(request))

    @admin.action(description="Download as GeoPackage")
    def as_geopackage(self, request: HttpRequest, chosen: GeofenceQuerySet) -> HttpResponseBase:
        return exports.answer(request, chosen, exports.Format.GPKG, name=_file_name(request))

    @admin.action(description="Retire: take them out of use")
    def retire(self, request: HttpRequest, chosen: GeofenceQuerySet) -> None:
        count = writing.retire(chosen.values_list("pk", flat=True), now=now())
        messages.success(
            request,
            f"{count:,} retired. Visits in them end; history keeps them. "
            "Filters → Retired brings them back.",
        )

    @admin.action(description="Bring back into use")
    def bring_back(self, request: HttpRequest, chosen: GeofenceQuerySet) -> None:
        count = writing.revive(chosen.values_list("pk", flat=True), now=now())
        messages.success(request, f"{count:,} in use again.")

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        pages: dict[str, Callable[..., HttpResponseBase]] = {
            "map/": self.map_view,
            "map.json": self.about_map_view,
            "preview/": require_POST(self.preview_view),
            "download/": self.download_view,
        }
        return [
            *(
                path(at, wrap(view), name=f"geofences_geofence_{at.strip('/').replace('.', '_')}")
                for at, view in pages.items()
            ),
            path(
                "tiles/<int:z>/<int:x>/<int:y>.mvt",
                wrap(self.tile_view),
                name="geofences_geofence_tile",
            ),
            path(
                "<int:object_id>/retire/", wrap(self.retire_view), name="geofences_geofence_retire"
            ),
            *super().get_urls(),
        ]

    def of_brand(self, request: HttpRequest) -> GeofenceQuerySet:
        """The geofences in use of the brand worked in, for those who may see them."""
        brand = current_brand(request)
        if brand is None or not self.has_view_permission(request):
            raise PermissionDenied
        return Geofence.objects.present().filter(brand=brand)

    def about_map_view(self, request: HttpRequest) -> HttpResponse:
        """What static/nearcast/map.js needs to know; for every page that has a map."""
        brand = current_brand(request)
        bounds = bounds_of(self.of_brand(request)) if brand else None
        return JsonResponse(
            {
                "tiles": settings.MAP_TILES_URL,
                "attribution": settings.MAP_ATTRIBUTION,
                "city": static("build/demo_city.geojson"),
                "bounds": bounds,
            }
        )

    def tile_view(self, request: HttpRequest, z: int, x: int, y: int) -> HttpResponse:
        geofences = narrowed(self.of_brand(request), request)
        left_out = request.GET.get("without", "")
        if left_out.isdecimal() and len(left_out) < 19:
            geofences = geofences.exclude(pk=int(left_out))
        try:
            tile = tiles.tile(geofences, z=z, x=x, y=y)
        except ValueError as error:
            raise Http404(str(error)) from None
        answer = HttpResponse(tile, content_type="application/vnd.mapbox-vector-tile")
        answer["Cache-Control"] = f"private, max-age={TILE_KEPT_S}"
        return answer

    def map_view(self, request: HttpRequest) -> HttpResponse:
        """All geofences of the brand on one map, however many there are."""
        geofences = narrowed(self.of_brand(request), request)
        asked = {name: request.GET[name] for name in ("q", "tag", "armed") if request.GET.get(name)}
        tile = reverse("admin:geofences_geofence_tile", args=[0, 0, 0])
        options = {
            "tiles": f"{tile.replace('0/0/0', '{z}/{x}/{y}')}?{urlencode(asked)}",
            "maxzoom": tiles.MAX_ZOOM,
            "bounds": bounds_of(geofences),
            "change": reverse("admin:geofences_geofence_change", args=[0]),
        }
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Geofences",
            "tab": "map",
            "count": geofences.count(),
            "asked": asked,
            "tags": known_tags(current_brand(request)),
            "options": options,
            "has_add_permission": self.has_add_permission(request),
            "is_fullwidth": "1",
        }
        return TemplateResponse(request, "admin/geofences/geofence/map.html", context)

    def download_view(self, request: HttpRequest) -> HttpResponseBase:
        """Everything that the map shows, as a file."""
        try:
            form = exports.Format(request.GET.get("format", ""))
        except ValueError:
            raise Http404("GeoJSON or GeoPackage") from None
        geofences = narrowed(self.of_brand(request), request)
        return exports.answer(request, geofences, form, name=_file_name(request))

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """The cells of a shape that is being drawn, or in words why it cannot be."""
        self.of_brand(request)
        if len(request.body) > settings.MAX_BODY_BYTES:
            return JsonResponse({"error": "This shape has too many corners."})
        try:
            place, radius_m = place_of(request.body.decode("utf-8", "replace"))
            drawn = Geofence(geometry=place, radius_m=radius_m)
            shape = writing.fit(drawn)
        except ValidationError as error:
            return JsonResponse({"error": " ".join(error.messages)})
        except GeometryError as error:
            return JsonResponse({"error": in_words(error)})
        (cover,) = writing.covers_of([shape])
        return JsonResponse(cells_as_geojson(cover) | {"area_m2": area_m2(shape)})

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> type[ModelForm[Any]]:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.known_tags = known_tags(current_brand(request))  # type: ignore[attr-defined]
        return form

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        tile = reverse("admin:geofences_geofence_tile", args=[0, 0, 0])
        context = {
            "options": {
                "preview": reverse("admin:geofences_geofence_preview"),
                "tiles": tile.replace("0/0/0", "{z}/{x}/{y}") + f"?without={object_id or ''}",
                "maxzoom": tiles.MAX_ZOOM,
            }
        }
        with self._alone(request, object_id) if request.method == "POST" else nullcontext():
            return super().changeform_view(  # type: ignore[no-any-return]
                request, object_id, form_url, context | (extra_context or {})
            )

    @contextmanager
    def _alone(self, request: HttpRequest, object_id: str | None) -> Iterator[None]:
        """A transaction in which nobody else saves geofences of the brand."""
        if object_id is not None:
            self.get_object(request, object_id)  # its brand is the one worked in from here on
        brand = current_brand(request)
        with transaction.atomic():
            if brand is not None:
                writing.lock(brand.pk)
            yield

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        geofence: Geofence | None = context.get("original")
        may_edit = (
            self.has_change_permission(request, geofence)
            if geofence
            else self.has_add_permission(request)
        )
        form = context["adminform"].form
        drawn = form.data.get("place") if form.is_bound else ""
        context["options"] |= {
            "readonly": not may_edit or (geofence is not None and geofence.retired_at is not None),
            "stored": _drawing(geofence) if geofence else None,
            "drawn": _readable(drawn),
        }
        context |= {"may_edit": may_edit, "form": form, "facts": _facts(geofence)}
        context["noticing"] = _noticing(geofence)
        return super().render_change_form(request, context, *args, **kwargs)  # type: ignore[no-any-return]

    def save_model(
        self, request: HttpRequest, obj: Geofence, form: ModelForm[Any], change: bool
    ) -> None:
        writing.save([obj])

    def retire_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Ask, then take one geofence out of use; or bring a retired one back."""
        geofence = self.object_or_redirect(request, str(object_id))
        if isinstance(geofence, HttpResponseRedirect):
            return geofence
        if not self.has_change_permission(request, geofence):
            raise PermissionDenied
        change = reverse("admin:geofences_geofence_change", args=[geofence.pk])
        if request.method != "POST":
            return TemplateResponse(
                request,
                "admin/nearcast/confirm.html",
                {
                    **self.admin_site.each_context(request),
                    "opts": self.opts,
                    "original": geofence,
                    "title": f"Retire “{geofence.name}”?",
                    "lines": [
                        *_waiting(geofence),
                        "It matches nothing any more, and visits in it end.",
                        "Its history stays, and you can bring it back.",
                    ],
                    "button": "Retire the geofence",
                    "back_url": change,
                },
            )
        if "bring_back" in request.POST:
            if writing.revive([geofence.pk], now=now()):
                self.log_change(request, geofence, "Brought back into use.")
            messages.success(request, f"“{geofence.name}” is in use again.")
            return redirect(change)
        if writing.retire([geofence.pk], now=now()):  # not by a second click, or a colleague
            self.log_change(request, geofence, "Retired.")
        messages.success(
            request, f"“{geofence.name}” is retired; Filters → Retired brings it back."
        )
        return redirect("admin:geofences_geofence_changelist")


def _waiting(geofence: Geofence) -> list[str]:
    """How many live campaigns would miss it, in words; those of its tags have its others."""
    named = Arming.objects.filter(geofence=geofence).values("campaign_id").distinct().count()
    if not named:
        return []
    them = "A live campaign names it: it" if named == 1 else f"{named} live campaigns name it: they"
    return [f"{them} will hear of nobody here any more."]


def _file_name(request: HttpRequest) -> str:
    brand = current_brand(request)
    return f"geofences-{brand.slug}" if brand else "geofences"


def state_of(geofence: Geofence) -> str:
    """Armed or why not, in a word or two."""
    at = now()
    if geofence.retired_at:
        return "retired"
    if geofence.ends_at and geofence.ends_at <= at:
        return "ended"
    wanted = geofence.track_visits or (geofence.armed_until and geofence.armed_until > at)
    if wanted and geofence.starts_at and geofence.starts_at > at:
        return "starts later"
    return "armed" if wanted else "not armed"


def _metres(metres: float) -> str:
    return f"{metres / 1000:.4g} km" if metres >= 1000 else f"{metres:.4g} m"


def _times(count: int) -> str:
    return {0: "never since it was made", 1: "once"}.get(count, f"{count} times")


def area_m2(shape: Any) -> float:
    """How large a shape is on the ground, as people say it (WGS84)."""
    if isinstance(shape, Circle):
        return pi * shape.radius_m**2
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(shape)
    return abs(float(area))


def _drawing(geofence: Geofence) -> dict[str, Any]:
    """A stored place as the map's script takes it."""
    place = shapely.from_wkb(bytes(geofence.geometry.wkb))
    return {"geometry": json.loads(shapely.to_geojson(place)), "radius_m": geofence.radius_m}


def _readable(drawn: str | None) -> Any:
    """What was drawn before the page came back with an error; None where that is nothing."""
    try:
        return json.loads(drawn or "null")
    except (ValueError, RecursionError):
        return None


def _noticing(geofence: Geofence | None) -> dict[str, Any] | None:
    """How surely the stored place notices who goes through, by speed and how often one reports."""
    if geofence is None:
        return None
    radius_m = geofence.radius_m
    if radius_m is None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT ST_Area(geometry::geography), ST_Perimeter(geometry::geography)"
                " FROM geofences_geofence WHERE id = %s",
                (geofence.pk,),
            )
            radius_m = noticing.radius_of(*cursor.fetchone())
    return {
        "every": [seconds(every_s) for every_s in noticing.EVERY_S],
        "rows": [
            {"how": how, "shares": [_share(radius_m, speed, each) for each in noticing.EVERY_S]}
            for how, speed in noticing.SPEEDS.items()
        ],
        "accuracy_m": noticing.TYPICAL_ACCURACY_M,
    }


def _share(radius_m: float, speed_mps: float, every_s: int) -> dict[str, str]:
    share = noticing.chance(radius_m, speed_mps=speed_mps, every_s=every_s)
    tone = "good" if share >= 0.9 else "warn" if share >= 0.5 else "bad"
    return {"every": seconds(every_s), "share": f"{share:.0%}", "tone": tone}


def _facts(geofence: Geofence | None) -> list[tuple[str, Any]]:
    """What the page says of a stored geofence beside its form."""
    if geofence is None:
        return []
    cover = GeofenceCover.objects.filter(geofence=geofence).first()
    cells_in_words = "–"
    if cover is not None:
        inside, edge = map(len, cover.cells())
        cells_in_words = f"{inside + edge} at resolution {cover.resolution}, {edge} on the edge"
    armed_until: Any = geofence.armed_until
    if armed_until is not None:
        armed_until = "open end" if armed_until >= FOREVER else when(armed_until)
    return [
        ("Id", geofence.pk),
        ("H3 cells", cells_in_words),
        ("Shape changed", _times(geofence.shape_version - 1)),
        ("Armed until", armed_until or "–"),
        ("Made", when(geofence.created_at)),
        ("Last change", when(geofence.updated_at)),
    ]

"""Forms of the admin: a geofence drawn on a map, a file and what its columns mean."""

from __future__ import annotations

import json
import math
from typing import Any

import shapely
from django import forms
from django.contrib.gis.geos import GEOSGeometry
from django.utils.timezone import get_current_timezone

from brands.admin.uploads import UploadForm
from brands.fields import JsonField
from brands.overtaking import MarkedForm
from geofences import files, writing
from geofences.geometry import GeometryError
from geofences.models import Geofence

ENDINGS = (
    *(".geojson", ".json", ".geojsonl", ".topojson", ".gpkg", ".zip", ".shp", ".kml", ".kmz"),
    *(".gml", ".gpx", ".fgb", ".tab", ".mif", ".dxf", ".csv", ".tsv", ".txt", ".xlsx", ".ods"),
    *(".parquet", ".geoparquet"),
)
TEXT = {"class": "nc-input nc-wide"}
MOMENTS = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]  # as browsers send a datetime-local
NUMBER = {"class": "nc-input nc-number", "inputmode": "decimal"}


def text_input(**attrs: str) -> forms.TextInput:
    return forms.TextInput(TEXT | attrs)


def number_input(**attrs: Any) -> forms.NumberInput:
    return forms.NumberInput(NUMBER | attrs)


def moment_input() -> forms.DateTimeInput:
    return forms.DateTimeInput({"type": "datetime-local", "class": "nc-input"}, format=MOMENTS[0])


def place_of(value: str) -> tuple[GEOSGeometry, float | None]:
    """Geometry and radius out of what the map's script wrote. Raises ValidationError."""
    try:
        drawn = json.loads(value)
        place = shapely.from_geojson(json.dumps(drawn["geometry"]))
        radius_m = None if drawn.get("radius_m") is None else float(drawn["radius_m"])
    except (ValueError, TypeError, KeyError, RecursionError, shapely.GEOSException):
        raise forms.ValidationError("The drawing cannot be read; please draw it again.") from None
    if radius_m is not None and not math.isfinite(radius_m):
        raise forms.ValidationError("The radius is no number.")
    return GEOSGeometry(memoryview(shapely.to_wkb(place)), srid=4326), radius_m


def in_words(error: GeometryError) -> str:
    """A geometry's refusal for somebody who draws."""
    said = str(error)
    if said.startswith(("Self-intersection", "Ring Self-intersection")):
        return "The outline crosses itself: move a corner so that its edges no longer cross."
    if said.startswith("Nested shells") or "overlap" in said.lower():
        return "One area lies inside another: take one of them away, or cut it out as a hole."
    return said[:1].upper() + said[1:] + ("" if said.endswith(".") else ".")


class ListField(JsonField):
    """Tags as chips; a JSON list of texts."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("tags", empty=[], **kwargs)

    def clean(self, value: Any) -> list[str]:
        tags = super().clean(value)
        if not all(isinstance(tag, str) for tag in tags):
            raise forms.ValidationError("These tags cannot be read.")
        tags = [*dict.fromkeys(" ".join(tag.split()) for tag in tags if tag)]
        if any(len(tag) > 64 for tag in tags):
            raise forms.ValidationError("A tag has at most 64 characters.")
        if len(tags) > 100:
            raise forms.ValidationError("A geofence has at most 100 tags.")
        return [tag for tag in tags if tag]


class PairsField(JsonField):
    """Metadata as names and values; values that are no plain text or number stay untouched."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("pairs", empty={}, **kwargs)

    def clean(self, value: Any) -> dict[str, Any]:
        pairs: dict[str, Any] = super().clean(value)
        if len(json.dumps(pairs)) > 64 * 1024:
            raise forms.ValidationError("These values are too many.")
        return pairs


class GeofenceForm(MarkedForm):
    """A geofence: where it is, what it is called, when it counts."""

    # It moves with whatever people change; arming changes the row, too, and nobody is overtaken
    # by that. And a shape may have 100,000 corners to tell apart.
    marked = ("updated_at",)
    done = "drew and typed"

    known_tags: tuple[str, ...] = ()
    place = forms.CharField(required=False, widget=forms.HiddenInput)
    tags = ListField(help_text="Campaigns choose places by tag: “shop”, “competitor”, “stop”.")
    metadata = PairsField(
        label="Details",
        help_text="Names and values of the place that offers may show, such as its opening hours.",
    )
    dwell_minutes = forms.FloatField(
        label="Staying counts after",
        required=False,
        min_value=0.1,
        max_value=7 * 24 * 60,
        widget=number_input(step="any", min="0"),
    )
    confirm_fixes = forms.IntegerField(
        label="Positions in a row",
        initial=1,
        min_value=1,
        max_value=100,
        widget=number_input(min="1"),
    )
    confirm_s = forms.IntegerField(
        label="For seconds",
        initial=0,
        min_value=0,
        max_value=3600,
        widget=number_input(min="0"),
    )

    starts_at = forms.DateTimeField(
        label="Counts from", required=False, widget=moment_input(), input_formats=MOMENTS
    )
    ends_at = forms.DateTimeField(
        label="Until", required=False, widget=moment_input(), input_formats=MOMENTS
    )

    class Meta:
        model = Geofence
        fields = (
            *("name", "external_id", "tags", "track_visits", "exit_buffer_m"),
            *("confirm_fixes", "confirm_s", "starts_at", "ends_at", "metadata"),
        )
        labels = {
            "external_id": "Your own id",
            "track_visits": "Record visits even when no campaign needs this place",
            "exit_buffer_m": "Leaving counts this far outside",
        }
        widgets = {
            "name": text_input(placeholder="Market square"),
            "external_id": text_input(placeholder="store-0042"),
            "exit_buffer_m": number_input(min="0", step="any"),
        }
        help_texts = {
            "external_id": "Imports and your systems find the place by it. Leave it empty if it "
            "has none.",
            "exit_buffer_m": "So that a phone at the edge does not come and go all day.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "tags" in self.fields:  # not for those who may only look
            self.fields["tags"].widget.options = {"known": self.known_tags}
        stored = self.instance
        if stored.dwell_s:
            self.initial.setdefault("dwell_minutes", round(stored.dwell_s / 60, 2))
        shown, self._hidden_metadata = _plain_and_other(stored.metadata)
        self.initial["metadata"] = shown
        self.zone = str(get_current_timezone())

    def clean_external_id(self) -> str | None:
        return self.cleaned_data["external_id"] or None

    def clean_metadata(self) -> dict[str, Any]:
        """Give numbers their type back: the page knows only text."""
        stored = self.instance.metadata
        typed = {
            name: stored[name] if name in stored and str(stored[name]) == str(value) else value
            for name, value in self.cleaned_data["metadata"].items()
        }
        return self._hidden_metadata | typed

    def clean_place(self) -> str:
        """Put the drawing onto the geofence, where one was drawn."""
        drawn: str = self.cleaned_data["place"]
        if drawn:
            self.instance.geometry, self.instance.radius_m = place_of(drawn)
        elif self.instance._state.adding:
            raise forms.ValidationError("Draw the place on the map: an area or a circle.")
        else:
            return drawn
        try:
            writing.fit(self.instance)
        except GeometryError as error:
            raise forms.ValidationError(in_words(error)) from None
        return drawn

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        starts_at, ends_at = given.get("starts_at"), given.get("ends_at")
        if starts_at and ends_at and ends_at <= starts_at:
            self.add_error("ends_at", "It ends before it starts.")
        minutes = given.get("dwell_minutes")
        self.instance.dwell_s = round(minutes * 60) if minutes else None
        return given


def _plain_and_other(metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    plain = {name: value for name, value in metadata.items() if not isinstance(value, dict | list)}
    return plain, {name: metadata[name] for name in metadata if name not in plain}


class PlacesUploadForm(UploadForm):
    """A file with places."""

    endings = ENDINGS
    readable = "A zipped Shapefile, GeoJSON, GeoPackage, KML, CSV, Excel or Parquet file can."
    command = "import_geofences"
    what = "A list of shops with latitude and longitude, or the outlines of areas."
    kinds = "CSV, Excel, GeoJSON, GeoPackage, zipped Shapefile, KML, Parquet, …"


class PlanForm(forms.Form):
    """What the columns of a file mean, and what its places get."""

    external_id = forms.ChoiceField(
        label="Id",
        required=False,
        help_text="What makes a row the same place next time. Without one, every import adds "
        "every row again.",
    )
    name = forms.ChoiceField(label="Name", required=False)
    lat = forms.ChoiceField(label="Latitude", required=False)
    lng = forms.ChoiceField(label="Longitude", required=False)
    radius = forms.ChoiceField(label="Radius, in metres", required=False)
    tags_column = forms.ChoiceField(label="Tags", required=False)
    layer = forms.ChoiceField(label="Layer", required=False)
    crs = forms.CharField(
        label="Coordinate system",
        required=False,
        max_length=64,
        widget=text_input(placeholder="EPSG:4326"),
        help_text="Only where the file does not say it, or says it wrongly.",
    )
    radius_m = forms.FloatField(
        label="Radius of every point",
        required=False,
        min_value=1,
        max_value=100_000,
        widget=number_input(min="1", step="any"),
        help_text="Metres, for points that have none of their own.",
    )
    tags = ListField(label="Give every place these tags")
    track_visits = forms.BooleanField(
        label="Record visits even when no campaign needs a place", required=False
    )
    keep_metadata = forms.BooleanField(
        label="Keep the other columns as details of the place", required=False, initial=True
    )
    retire_missing = forms.BooleanField(
        label="This is the whole list: retire places with these tags that are not in it",
        required=False,
    )

    COLUMNS = ("external_id", "name", "lat", "lng", "radius", "tags_column")

    def __init__(
        self, *args: Any, layout: files.Layout, known_tags: tuple[str, ...], **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        choices = [("", "–"), *((name, name) for name in layout.columns)]
        for name in (*self.COLUMNS, "layer"):
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField), "they are, above"
            field.widget.attrs["class"] = "nc-input nc-wide"
            field.choices = choices
            if name == "layer":
                field.choices = [(layer, layer) for layer in layout.layers]
        if len(layout.layers) < 2:
            del self.fields["layer"]
        if not layout.is_table:
            del self.fields["lat"], self.fields["lng"]
        self.fields["tags"].widget.options = {"known": known_tags}

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if given.get("retire_missing") and not given.get("tags"):
            self.add_error("tags", "Say by a tag which places this is the whole list of.")
        return given

    @property
    def columns(self) -> files.Columns:
        """The chosen columns, of a valid form."""
        given = self.cleaned_data
        return files.Columns.from_json(given | {"tags": given.get("tags_column")})

"""Gives geofences back as GeoJSON or GeoPackage, in chunks. It chooses none and changes none."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import shapely
from asgiref.sync import sync_to_async
from django.contrib.gis.db.models.functions import AsWKB
from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from geofences.models import GeofenceQuerySet

CHUNK_ROWS = 2_000
BLOCK_BYTES = 256 * 1024
PROPERTIES = (
    *("external_id", "name", "tags", "radius_m", "track_visits", "dwell_s", "exit_buffer_m"),
    *("confirm_fixes", "confirm_s", "starts_at", "ends_at", "metadata"),
)
"""What an export holds of a geofence besides its id and geometry; an import reads it back."""


class Format(StrEnum):
    GEOJSON = "geojson"
    GPKG = "gpkg"


MEDIA_TYPES = {
    Format.GEOJSON: "application/geo+json",
    Format.GPKG: "application/geopackage+sqlite3",
}


def write(geofences: GeofenceQuerySet, path: Path, form: Format) -> int:
    """Write them to a file, replacing what is there; answers how many."""
    path.unlink(missing_ok=True)
    return (_write_geojson if form is Format.GEOJSON else _write_geopackage)(geofences, path)


def _rows(geofences: GeofenceQuerySet) -> Iterator[dict[str, Any]]:
    rows = geofences.order_by("pk").values("id", *PROPERTIES, wkb=AsWKB("geometry"))
    yield from rows.iterator(chunk_size=CHUNK_ROWS)


def _write_geojson(geofences: GeofenceQuerySet, path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as target:
        target.write('{"type": "FeatureCollection", "features": [')
        for row in _rows(geofences):
            place = shapely.to_geojson(shapely.from_wkb(bytes(row.pop("wkb"))))
            feature_id = row.pop("id")
            properties = {key: value for key, value in row.items() if value is not None}
            target.write(",\n" if count else "\n")
            target.write(
                f'{{"type": "Feature", "id": {feature_id}, "geometry": {place}, "properties": '
                f"{json.dumps(properties, default=_iso, ensure_ascii=False)}}}"
            )
            count += 1
        target.write("\n]}\n")
    return count


def _iso(value: Any) -> str:
    return str(value.isoformat())


def _write_geopackage(geofences: GeofenceQuerySet, path: Path) -> int:
    # Only here: it takes a second and 60 MB, and every web process imports this module.
    import geopandas

    count = 0
    for chunk in _chunks(_rows(geofences)):
        places = shapely.from_wkb([bytes(row.pop("wkb")) for row in chunk])
        for row in chunk:
            row["nearcast_id"] = row.pop("id")  # a GeoPackage numbers its features itself
            row["tags"] = ",".join(row["tags"])
            row["metadata"] = json.dumps(row["metadata"], ensure_ascii=False)
            row["starts_at"] = row["starts_at"] and row["starts_at"].isoformat()
            row["ends_at"] = row["ends_at"] and row["ends_at"].isoformat()
        frame = geopandas.GeoDataFrame(chunk, geometry=places, crs="EPSG:4326")
        frame = frame.astype({"dwell_s": "Int64"})  # whole, though some have none
        frame.to_file(
            path,
            driver="GPKG",
            layer="geofences",
            mode="a" if count else "w",
            engine="pyogrio",
            geometry_type="Unknown",
        )
        count += len(chunk)
    if not count:
        columns: dict[str, list[Any]] = {name: [] for name in ("nearcast_id", *PROPERTIES)}
        geopandas.GeoDataFrame(columns, geometry=[], crs="EPSG:4326").to_file(
            path, driver="GPKG", layer="geofences", engine="pyogrio", geometry_type="Unknown"
        )
    return count


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def answer(
    request: HttpRequest, geofences: GeofenceQuerySet, form: Format, *, name: str
) -> HttpResponseBase:
    """The file as a download; written first, so that a failure is an error and not half a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.{form}"
        write(geofences, path, form)
        file = path.open("rb")  # outlives its name
        size = path.stat().st_size
    if not isinstance(request, ASGIRequest):
        return FileResponse(
            file, as_attachment=True, filename=path.name, content_type=MEDIA_TYPES[form]
        )
    response = StreamingHttpResponse(_blocks(file), content_type=MEDIA_TYPES[form])
    response["Content-Length"] = str(size)
    response["Content-Disposition"] = f'attachment; filename="{path.name}"'
    return response


async def _blocks(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while block := await sync_to_async(file.read)(BLOCK_BYTES):
            yield block

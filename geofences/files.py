"""Reads vector files and tables as rows in WGS84, chunk by chunk. It judges no row and stores none.

Any format of GDAL's that is a local file, GeoParquet, and tables (CSV, Parquet, XLSX, ODS) with a
latitude and a longitude. A file whose coordinate system is missing or cannot be true is refused.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, Self

# An uploaded file must not make GDAL read other files or call out: VRT and the network drivers are
# recognised by content, whatever the file is called. GDAL reads this once, at its first import.
os.environ.setdefault(
    "GDAL_SKIP",
    "OGR_VRT,GDALG,HTTP,WFS,OAPIF,OGCAPI,CSW,EEDA,Carto,AmigoCloud,Elasticsearch,NGW,PLSCENES,"
    "ADBC,GPSBabel,PDF,PGDUMP",
)

import geopandas
import numpy as np
import pandas
import pyarrow.parquet
import pyogrio
import pyogrio.raw
import pyproj
import shapely

from brands.filejobs import FileError

CHUNK_ROWS = 1_000
SAMPLE_ROWS = 1_000  # enough to guess what a column means
MAX_UNPACKED_BYTES = 2**30  # of an archive or a workbook: a few kilobytes can say terabytes
NO_ROWS = "The file has no rows."
WGS84 = pyproj.CRS.from_epsg(4326)
DELIMITED = frozenset({".csv", ".tsv", ".txt"})
PARQUET = frozenset({".parquet", ".geoparquet", ".pq"})

Names = tuple[str, ...]
# Column names as they are met, lower case without punctuation, best first.
LAT: Names = (
    "lat",
    "latitude",
    "geolat",
    "gpslat",
    "locationlat",
    "latdd",
    "ylat",
    "breitengrad",
    "y",
)
LNG: Names = (
    *("lng", "lon", "long", "longitude", "geolng", "geolon", "gpslng", "gpslon", "locationlng"),
    *("lngdd", "londd", "xlong", "xlon", "laengengrad", "x"),
)
RADIUS: Names = ("radiusm", "radius", "radiusmeters", "radiusmetres", "geofenceradius", "rayon")
MOSTLY = 0.8  # so many rows of a column that is to tell them apart must have a value
IDENTITY: Names = (
    *("externalid", "fenceid", "placeid", "poiid", "storeid", "storenumber", "storecode"),
    *("locationid", "clientkey", "osmid", "id", "geoid", "geoid10", "code", "iatacode", "objectid"),
)
NAME: Names = (
    *("name", "nom", "title", "label", "storename", "parkname", "displayname", "identifier"),
)
TAGS: Names = ("tags", "tag", "labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column of a file means what, by name; empty: none does."""

    external_id: str = ""
    name: str = ""
    lat: str = ""
    lng: str = ""
    radius: str = ""
    tags: str = ""
    layer: str = ""
    crs: str = ""  # believed instead of what the file says

    @property
    def meant(self) -> tuple[str, ...]:
        """The columns that mean something."""
        return (self.external_id, self.name, self.lat, self.lng, self.radius, self.tags)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Those keys of a stored mapping that are columns."""
        return cls(**{f.name: str(found.get(f.name) or "") for f in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: its number from 1, its values by column, its place or the reason for none."""

    number: int
    values: dict[str, Any]
    geometry: shapely.Geometry | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a file looks like before it is imported."""

    columns: tuple[str, ...]
    layers: tuple[str, ...]
    rows: int | None  # of a text: about
    crs: str
    is_table: bool  # places come from two columns
    guess: Columns
    sample: tuple[Row, ...] = field(default=(), repr=False)
    problem: str = ""


def look(path: Path, columns: Columns | None = None) -> Layout:
    """Describe a file and guess its columns. Raises FileError where there is nothing to read.

    A coordinate system that cannot be true is told in `problem`, because a person may correct it.
    """
    wanted = columns or Columns()
    names, rows, crs, is_table = _describe(path, wanted)
    first = list(islice(_raw(path, wanted), 1))
    sample = first[0][0][:SAMPLE_ROWS] if first else []
    if not sample:
        raise FileError(NO_ROWS)
    guess = _guess(names, sample, wanted, is_table=is_table)
    problem = ""
    try:
        taken = next(read(path, guess), [])
    except FileError as error:
        problem = str(error)
        taken = [
            Row(number=number, values=values, geometry=None, problem=problem)
            for number, values in enumerate(sample, start=1)
        ]
    return Layout(
        columns=names,
        layers=_layers(path),
        rows=rows,
        crs=_title(pyproj.CRS.from_user_input(wanted.crs) if wanted.crs and not problem else crs),
        is_table=is_table,
        guess=guess,
        sample=tuple(taken[:SAMPLE_ROWS]),
        problem=problem,
    )


def read(path: Path, columns: Columns) -> Iterator[list[Row]]:
    """Yield the rows of a file in WGS84, some thousand at a time. Raises FileError."""
    _, _, crs, is_table = _describe(path, columns)
    crs = _believed(columns.crs, crs)
    if is_table and not (columns.lat and columns.lng):
        raise FileError(
            "The file has no geometry: say which columns are the latitude and the longitude."
        )
    if crs is None:
        raise FileError(
            "The file does not say in which coordinate system it is. Name it, for example "
            "EPSG:4326 for degrees of latitude and longitude."
        )
    number = 1
    for values, given in _raw(path, columns):
        places, problems = given, [""] * len(values)
        if places is None:
            places, problems = _points(values, columns)
        if number == 1:
            _check_plausible(places, crs)
        located = geopandas.GeoSeries(places, crs=crs).to_crs(WGS84).to_numpy()
        yield [
            _row(number + offset, row, located[offset], problems[offset])
            for offset, row in enumerate(values)
        ]
        number += len(values)


def describe(path: Path) -> tuple[tuple[str, ...], int | None]:
    """Column names of a table whose rows need no place, and rows where known. Raises FileError."""
    names, rows, _, _ = _describe(path, Columns())
    return names, rows


def values(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the values of a table whose rows need no place, chunk by chunk. Raises FileError."""
    for rows, _ in _raw(path, Columns()):
        yield rows


Raw = tuple[list[dict[str, Any]], Any]  # values by row; geometries, or None for a table


def _describe(
    path: Path, columns: Columns
) -> tuple[tuple[str, ...], int | None, pyproj.CRS | None, bool]:
    """Column names, rows where known, the file's own coordinate system, whether it is a table."""
    suffix = path.suffix.lower()
    try:
        if suffix in DELIMITED:
            head = pandas.read_csv(path, nrows=0, **_dialect(path))
            return tuple(map(str, head.columns)), lines(path), WGS84, True
        if suffix in PARQUET:
            return _describe_parquet(path)
        about = pyogrio.read_info(_local(path), layer=columns.layer or None)
    except FileError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    is_table = about["geometry_type"] is None
    crs = WGS84 if is_table else pyproj.CRS(about["crs"]) if about["crs"] else None
    rows = about["features"] if about["features"] >= 0 else None
    return tuple(about["fields"]), rows, crs, is_table


def _raw(path: Path, columns: Columns) -> Iterator[Raw]:
    suffix = path.suffix.lower()
    try:
        if suffix in DELIMITED:
            yield from _delimited(path)
        elif suffix in PARQUET:
            yield from _parquet(path)
        else:
            yield from _ogr(path, columns.layer)
    except FileError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> FileError:
    """What a library said of a file, but neither where that is kept nor how to call the library."""
    said = str(error)
    if path.suffix.lower() == ".shp":
        said = "a shapefile is several files: put its .shp, .shx, .dbf and .prj into one .zip."
    elif "not recognized as" in said:
        said = f"it is damaged, or not what its name says ({path.suffix.lower()})."
    for folder in (path.resolve().parent, path.parent):  # a library may name files beside it, too
        said = said.replace(f"{folder}{os.sep}", "")
    return FileError(f"The file cannot be read: {said}")


def _ogr(path: Path, layer: str) -> Iterator[Raw]:
    opened = pyogrio.raw.open_arrow(
        _local(path),
        layer=layer or None,
        batch_size=CHUNK_ROWS,
        use_pyarrow=True,
        datetime_as_string=True,
        # GDAL's own type keeps milliseconds only.
        **({"DATE_AS_STRING": "YES"} if path.suffix.lower() in {".geojson", ".json"} else {}),
    )
    with opened as (about, reader):
        geometry = about["geometry_name"] or "wkb_geometry"
        for batch in reader:
            names = batch.schema.names
            places = None
            if about["geometry_type"] is not None and geometry in names:
                places = shapely.from_wkb(
                    batch.column(geometry).to_numpy(zero_copy_only=False), on_invalid="ignore"
                )
                batch = batch.drop_columns([geometry])  # noqa: PLW2901 - the rest are values
            yield batch.to_pylist(), places


def _layers(path: Path) -> tuple[str, ...]:
    if path.suffix.lower() in DELIMITED | PARQUET:
        return ()
    return tuple(str(name) for name, _ in pyogrio.list_layers(_local(path)))


def _local(path: Path) -> str:
    """Absolute, so that GDAL takes it for a file and for nothing else. Raises FileError."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise FileError(
                f"Unpacked, the file would have {unpacked / 2**20:,.0f} MiB; "
                f"{MAX_UNPACKED_BYTES // 2**20:,} MiB are the most."
            )
    return str(path.resolve())


def _dialect(path: Path) -> dict[str, Any]:
    """Separator and encoding of a delimited text."""
    with path.open("rb") as file:
        head = file.read(64 * 1024)
    try:
        # Excel saves "Unicode text" so, and begins it with a mark.
        wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "utf-16" if wide else "utf-8-sig"
        head.decode(encoding, errors="replace" if wide else "strict")
    except UnicodeDecodeError as error:
        # A character cut by the end of the head is not an error of the file.
        encoding = "utf-8-sig" if error.start > len(head) - 4 else "cp1252"
    text = head.decode(encoding, errors="replace")
    try:
        separator = csv.Sniffer().sniff(text.partition("\n")[0], ",;\t|").delimiter
    except csv.Error:
        separator = ","
    return {"sep": separator, "encoding": encoding, "dtype": str}


def lines(path: Path) -> int:
    """About how many rows a text has; a line break inside quotes counts as a row too."""
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        file.seek(max(0, file.tell() - 1))
        return max(0, lines - (file.read(1) == b"\n"))


def _delimited(path: Path) -> Iterator[Raw]:
    # Everything as text: an id such as 007 keeps its zeros.
    opened = pandas.read_csv(
        path, chunksize=CHUNK_ROWS, keep_default_na=False, on_bad_lines="error", **_dialect(path)
    )
    with opened as chunks:
        for chunk in chunks:
            if chunk.empty:  # columns and no rows
                return
            yield chunk.astype(object).to_dict("records"), None


def _describe_parquet(
    path: Path,
) -> tuple[tuple[str, ...], int | None, pyproj.CRS | None, bool]:
    file = pyarrow.parquet.ParquetFile(path)
    geometry, crs = _geoparquet(file)
    names = tuple(name for name in file.schema_arrow.names if name != geometry)
    return names, file.metadata.num_rows, crs if geometry else WGS84, not geometry


def _geoparquet(file: pyarrow.parquet.ParquetFile) -> tuple[str, pyproj.CRS | None]:
    """The geometry column and its system as the GeoParquet metadata has them; else empty."""
    about = json.loads((file.schema_arrow.metadata or {}).get(b"geo", b"{}"))
    column = about.get("primary_column", "")
    if not column:
        return "", None
    crs = about["columns"][column].get("crs", "OGC:CRS84")  # the default of the specification
    return column, pyproj.CRS.from_user_input(crs) if crs else None


def _parquet(path: Path) -> Iterator[Raw]:
    file = pyarrow.parquet.ParquetFile(path)
    geometry, _ = _geoparquet(file)
    for batch in file.iter_batches(CHUNK_ROWS):
        if geometry:
            places = shapely.from_wkb(
                batch.column(geometry).to_numpy(zero_copy_only=False), on_invalid="ignore"
            )
            yield batch.drop_columns([geometry]).to_pylist(), places
        else:
            yield batch.to_pylist(), None


def _points(values: list[dict[str, Any]], columns: Columns) -> tuple[Any, list[str]]:
    """Points from two columns, and for each row what is wrong with it."""
    places: list[shapely.Geometry | None] = []
    problems: list[str] = []
    for row in values:
        lat, no_lat = _number(row.get(columns.lat), "latitude")
        lng, no_lng = _number(row.get(columns.lng), "longitude")
        problems.append("; ".join(filter(None, (no_lat, no_lng))))
        places.append(None if problems[-1] else shapely.Point(lng, lat))
    return np.array(places, dtype=object), problems


def _number(value: Any, what: str) -> tuple[float, str]:
    if value is None or value == "" or value != value:  # noqa: PLR0124 - NaN
        return 0.0, f"no {what}"
    try:
        return float(str(value).strip().replace(",", ".")), ""
    except ValueError:
        return 0.0, f"{what} {str(value)[:40]!r} is not a number"


def _row(number: int, values: dict[str, Any], place: Any, problem: str) -> Row:
    if not problem and place is None:
        problem = "no geometry"
    elif not problem and isinstance(place, shapely.Point) and not place.is_empty:
        problem = _unlikely(lat=place.y, lng=place.x)
    return Row(number=number, values=values, geometry=None if problem else place, problem=problem)


def _unlikely(*, lat: float, lng: float) -> str:
    if lat == lng == 0:
        return "0, 0 stands for an unknown place"
    if abs(lat) > 90:
        hint = "; is it swapped with the longitude?" if abs(lng) <= 90 and abs(lat) <= 180 else ""
        return f"latitude {lat:.6g} is outside -90 to 90{hint}"
    return ""


def _believed(named: str, own: pyproj.CRS | None) -> pyproj.CRS | None:
    if not named:
        return own
    try:
        return pyproj.CRS.from_user_input(named)
    except pyproj.exceptions.CRSError:
        raise FileError(f"{named!r} is no known coordinate system; try EPSG:4326.") from None


def _title(crs: pyproj.CRS | None) -> str:
    if crs is None:
        return ""
    code = crs.to_authority()
    return f"{crs.name} ({':'.join(code)})" if code else crs.name


def _check_plausible(places: Any, crs: pyproj.CRS) -> None:
    """Raise FileError when most of these places cannot be where their system says they are."""
    bounds = shapely.bounds(places)
    bounds = bounds[np.isfinite(bounds).all(axis=1)]
    if not len(bounds):
        return
    west, south, east, north = bounds.T
    like_degrees = (np.abs(bounds[:, [1, 3]]) <= 90).all(1) & (
        np.abs(bounds[:, [0, 2]]) <= 360
    ).all(1)
    seen = f"x {west.min():.7g} to {east.max():.7g}, y {south.min():.7g} to {north.max():.7g}"
    advice = "Export the file again with its true system, or name that system."
    if crs.is_geographic:
        if np.mean(like_degrees) < 0.5:
            raise FileError(
                f"The coordinates are outside degrees ({seen}) while the file says "
                f"{_title(crs)}: its coordinate system is wrong. {advice}"
            )
        return
    if like_degrees.all():
        raise FileError(
            f"The coordinates look like degrees ({seen}) while the file says {_title(crs)}: "
            f"its coordinate system is wrong. {advice}"
        )
    area = crs.area_of_use
    if area is None:
        return
    transformer = pyproj.Transformer.from_crs(crs, WGS84, always_xy=True)
    lng, lat = transformer.transform((west + east) / 2, (south + north) / 2)
    turned = area.west > area.east  # an area across the antimeridian
    in_lng = (lng >= area.west - 2) | (lng <= area.east + 2)
    if not turned:
        in_lng = (lng >= area.west - 2) & (lng <= area.east + 2)
    fits = np.isfinite(lat) & in_lng & (lat >= area.south - 2) & (lat <= area.north + 2)
    if np.mean(fits) < 0.5:
        raise FileError(
            f"The coordinates ({seen}) are not where {_title(crs)} is used ({area.name}): "
            f"the file's coordinate system is wrong. {advice}"
        )


def _guess(
    names: tuple[str, ...], sample: list[dict[str, Any]], wanted: Columns, *, is_table: bool
) -> Columns:
    """What the caller named, else what the names and the first values suggest."""
    by_key = {"".join(filter(str.isalnum, name.lower())): name for name in reversed(names)}
    known = {f.name: getattr(wanted, f.name) for f in fields(wanted)}
    for key, candidates in (("lat", LAT), ("lng", LNG)) if is_table else ():
        known[key] = known[key] or _first(by_key, candidates)
    for key, candidates in (("radius", RADIUS), ("name", NAME), ("tags", TAGS)):
        known[key] = known[key] or _first(by_key, candidates)
    if not known["external_id"]:
        unique = {
            key: name
            for key, name in by_key.items()
            if key in IDENTITY and _identifies([row.get(name) for row in sample])
        }
        known["external_id"] = _first(unique, IDENTITY)
    return Columns(**known)


def _first(by_key: Mapping[str, str], candidates: Names) -> str:
    return next((by_key[key] for key in candidates if key in by_key), "")


def _identifies(values: list[Any]) -> bool:
    """Whether a column tells rows from each other; the few that have none are refused by name.

    Without an id the whole file would come in anew each time.
    """
    given = [str(value) for value in values if value not in (None, "") and value == value]  # noqa: PLR0124 - NaN
    return len(given) >= MOSTLY * len(values) and len(given) == len(set(given)) > 0

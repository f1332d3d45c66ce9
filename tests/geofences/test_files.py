"""Files that cannot be read, and what is said of them."""

from __future__ import annotations

import codecs
import zipfile
from collections.abc import Callable
from pathlib import Path

import geopandas
import pytest
import shapely

from brands.filejobs import FileError
from geofences import files
from tests.geofences.uploads import SQUARE, collection, polygon


def test_it_refuses_a_file_without_a_system(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[shapely.Polygon(SQUARE)])
    path = tmp_path / "areas.shp"
    with pytest.warns(UserWarning, match="crs"):
        frame.to_file(path)

    layout = files.look(path)

    assert "does not say in which coordinate system" in layout.problem
    assert not files.look(path, files.Columns(crs="EPSG:4326")).problem


@pytest.mark.parametrize(
    ("crs", "says"),
    [(2277, "look like degrees"), (3857, "look like degrees"), (27700, "look like degrees")],
)
def test_it_refuses_degrees_that_are_called_metres(tmp_path: Path, crs: int, says: str) -> None:
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[shapely.Polygon(SQUARE)], crs=crs)
    frame.to_file(tmp_path / "areas.gpkg")

    assert says in files.look(tmp_path / "areas.gpkg").problem


def test_it_refuses_metres_of_another_country(tmp_path: Path) -> None:
    helsinki = geopandas.GeoSeries([shapely.Polygon(SQUARE)], crs=4326).to_crs(3067)
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=helsinki.to_numpy(), crs=27700)
    frame.to_file(tmp_path / "areas.gpkg")

    assert "United Kingdom" in files.look(tmp_path / "areas.gpkg").problem


def test_it_knows_no_system_of_that_name(table: Callable[..., Path]) -> None:
    path = table("id,lat,lng\n1,60.17,24.94\n")

    assert "no known coordinate system" in files.look(path, files.Columns(crs="EPSG:1")).problem


def test_it_opens_no_file_that_leads_to_another(tmp_path: Path) -> None:
    target = collection(tmp_path / "secret.geojson", (polygon(SQUARE), {"id": "a"}))
    path = tmp_path / "areas.geojson"
    path.write_text(
        '<OGRVRTDataSource><OGRVRTLayer name="secret">'
        f"<SrcDataSource>{target}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )

    with pytest.raises(FileError):
        files.look(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.geojson", b"not json"),
        ("a.csv", b""),
        ("a.parquet", b"PAR1nonsense"),
        ("a.gpkg", b"\x00" * 100),
        ("a.zip", b"PK\x03\x04nonsense"),
        ("a.xlsx", b"nothing"),
    ],
)
def test_it_says_that_a_file_cannot_be_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(FileError, match="cannot be read"):
        files.look(tmp_path / name)


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.zip", "a.xlsx"])
def test_it_says_of_another_content_neither_where_it_is_kept_nor_how_to_call_gdal(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 50)

    with pytest.raises(FileError) as told:
        files.look(tmp_path / name)

    assert str(told.value) == (
        f"The file cannot be read: it is damaged, or not what its name says ({Path(name).suffix})."
    )


def test_it_says_of_a_part_of_a_shapefile_what_is_missing_and_not_where_it_is_kept(
    tmp_path: Path,
) -> None:
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[shapely.Polygon(SQUARE)], crs=4326)
    frame.to_file(tmp_path / "areas.shp")
    (tmp_path / "areas.shx").unlink()

    with pytest.raises(FileError, match=r"one \.zip") as told:
        files.look(tmp_path / "areas.shp")

    assert str(tmp_path) not in str(told.value)


def test_it_unpacks_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "areas.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("areas.geojson", "w") as inside,
    ):
        for _ in range(files.MAX_UNPACKED_BYTES // 2**24 + 1):
            inside.write(bytes(2**24))

    with pytest.raises(FileError, match=r"Unpacked, the file would have 1,040 MiB; 1,024 MiB"):
        files.look(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
def test_it_reads_what_spreadsheets_call_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "shops.csv"
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    path.write_bytes(mark + "name\tlat\tlng\nCafé Zoé\t48.1\t-5.4\n".encode(encoding))

    layout = files.look(path)

    assert layout.columns == ("name", "lat", "lng")
    assert layout.sample[0].values["name"] == "Café Zoé"


def test_it_refuses_a_file_without_rows(table: Callable[..., Path], tmp_path: Path) -> None:
    for path in (table("id,lat,lng\n"), collection(tmp_path / "none.geojson")):
        with pytest.raises(FileError, match="no rows"):
            files.look(path)


@pytest.mark.parametrize(
    ("ids", "guess"),
    [
        (["a", "b", "c", "d", "e"], "id"),
        (["a", "b", None, "d", "e"], "id"),  # the one without is refused, and named
        (["a", None, None, "d", "e"], ""),
        (["a", "a", "c", "d", "e"], ""),
        ([None] * 5, ""),
    ],
)
def test_it_takes_for_the_id_what_tells_most_rows_apart(
    tmp_path: Path, ids: list[str | None], guess: str
) -> None:
    rows = [(polygon(SQUARE), {"id": each, "name": "x"}) for each in ids]
    assert files.look(collection(tmp_path / "a.geojson", *rows)).guess.external_id == guess

"""Files become geofences, row by row, each with its verdict."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import geopandas
import pandas
import pytest
import shapely
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.utils.timezone import now

from brands import filejobs
from brands.filejobs import FileError, ImportState, Stopped, Verdict
from brands.models import Brand
from geofences import exports, files, imports
from geofences.models import Geofence, GeofenceCover, GeofenceImport
from tests.factories import make_brand, make_circle

pytestmark = pytest.mark.django_db

SQUARE = [[24.93, 60.16], [24.95, 60.16], [24.95, 60.17], [24.93, 60.17], [24.93, 60.16]]


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "shops.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding=encoding)
        return path

    return write


def collection(path: Path, *features: tuple[Any, dict[str, Any]], **extra: Any) -> Path:
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {"type": "Feature", "geometry": geometry, "properties": properties}
                    for geometry, properties in features
                ],
            }
            | extra
        )
    )
    return path


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": rings}


def take(brand: Brand, path: Path, **plan: Any) -> GeofenceImport:
    """Import a file with guessed columns."""
    columns = files.look(path, plan.pop("columns", None)).guess
    job = GeofenceImport(
        brand=brand,
        file_name=path.name,
        mapping=imports.Plan(columns=columns, **plan).to_json(),
    )
    filejobs.begin(job, now=now())
    for _ in imports.take(job, path):
        pass
    filejobs.finish(job, ImportState.DONE, "", now=now())
    return job


def remark(job: GeofenceImport, row: int) -> str:
    return job.rows.get(row=row).remark


def test_it_imports_a_table_of_points_as_circles(brand: Brand, table: Callable[..., Path]) -> None:
    path = table("store_id,name,latitude,longitude,city\n007,Café,60.17,24.94,Helsinki\n")

    job = take(brand, path, radius_m=120.0, tags=("shops",))

    geofence = Geofence.objects.get()
    assert job.counts == {"created": 1}
    assert (geofence.external_id, geofence.name, geofence.radius_m) == ("007", "Café", 120.0)
    assert (geofence.geometry.y, geofence.geometry.x) == (60.17, 24.94)
    assert (geofence.tags, geofence.metadata) == (["shops"], {"city": "Helsinki"})
    assert GeofenceCover.objects.filter(geofence=geofence).exists()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("id;nom;lat;lon;radius\n1;Café;60,17;24,94;80\n", "utf-8"),
        ("id\tnom\ty\tx\tradius_m\n1\tCafé\t60.17\t24.94\t80\n", "cp1252"),
        ('\ufeffid,nom,GPS_Lat,GPS_Lng,rayon\n1,"Café",60.17,24.94,80\n', "utf-8"),
    ],
)
def test_it_reads_tables_as_offices_write_them(
    brand: Brand, table: Callable[..., Path], text: str, encoding: str
) -> None:
    take(brand, table(text, encoding=encoding))

    geofence = Geofence.objects.get()
    assert (geofence.name, geofence.geometry.coords, geofence.radius_m) == (
        "Café",
        (24.94, 60.17),
        80,
    )


def test_it_takes_named_columns_before_guessed_ones(
    brand: Brand, table: Callable[..., Path]
) -> None:
    path = table("id,code,lat,lng,a,b\n1,X,0,0,60.17,24.94\n")

    take(brand, path, columns=files.Columns(external_id="code", lat="a", lng="b"), radius_m=50.0)

    assert Geofence.objects.get().external_id == "X"


def test_it_refuses_rows_one_by_one_and_says_why(brand: Brand, table: Callable[..., Path]) -> None:
    rows = [
        "1,ok,60.17,24.94,100",
        "2,none,,24.94,100",
        "3,text,north,24.94,100",
        "4,swapped,-96.451,32.748,100",
        "5,nowhere,0,0,100",
        "6,radius,60.17,24.95,-5",
        "7,wide,60.17,24.95,900000",
        "8,what,60.17,24.95,abc",
        "9,nan,nan,24.95,100",
        ",no id,60.17,24.95,100",
        "1,again,60.18,24.95,100",
        "12,same place,60.17,24.94,100",
        "13,far east,60.17,999,100",
    ]
    path = table("id,name,lat,lng,radius_m\n" + "\n".join(rows) + "\n")

    job = take(brand, path, columns=files.Columns(external_id="id"))

    assert job.counts == {"created": 2, "refused": 11}
    assert remark(job, 2) == "no latitude"
    assert remark(job, 3) == "latitude 'north' is not a number"
    assert "swapped with the longitude" in remark(job, 4)
    assert "unknown place" in remark(job, 5)
    assert "radius" in remark(job, 6).lower()
    assert "radius" in remark(job, 7).lower()
    assert remark(job, 8) == "radius 'abc' is not a number"
    assert remark(job, 10) == "no id"
    assert remark(job, 11) == "repeats the id 1 of row 1"
    assert remark(job, 12) == "same place as row 1"
    assert "longitude" in remark(job, 13).lower()
    assert job.rows.get(row=12).verdict == Verdict.CREATED


def test_it_refuses_points_without_any_radius(brand: Brand, table: Callable[..., Path]) -> None:
    job = take(brand, table("id,lat,lng\n1,60.17,24.94\n"))

    assert job.counts == {"refused": 1}
    assert "radius" in remark(job, 1)


def test_it_asks_for_the_columns_of_a_table_without_them(table: Callable[..., Path]) -> None:
    layout = files.look(table("shop,street\n1,High Street\n"))

    assert "latitude" in layout.problem


def test_it_refuses_a_table_whose_columns_are_swapped(table: Callable[..., Path]) -> None:
    rows = "\n".join(f"{n},{-120 - n / 10},{40 + n / 10}" for n in range(9))

    layout = files.look(table(f"id,lat,lng\n{rows}\n"))

    assert "outside degrees" in layout.problem


def test_it_reprojects_a_table_by_the_named_system(
    brand: Brand, table: Callable[..., Path]
) -> None:
    path = table("id,x,y\n1,3140115,10035883\n")

    take(brand, path, columns=files.Columns(crs="EPSG:2277"), radius_m=50.0)

    geofence = Geofence.objects.get()
    assert geofence.geometry.x == pytest.approx(-97.66, abs=0.01)
    assert geofence.geometry.y == pytest.approx(30.17, abs=0.01)


def test_it_updates_by_external_id_and_leaves_the_same_alone(
    brand: Brand, table: Callable[..., Path]
) -> None:
    head = "id,name,lat,lng\n"
    take(brand, table(head + "1,A,60.17,24.94\n2,B,60.18,24.94\n"), radius_m=50.0)
    before = Geofence.objects.get(external_id="1").updated_at

    job = take(
        brand, table(head + "1,A,60.17,24.94\n2,B,60.19,24.94\n3,C,60.2,24.94\n"), radius_m=50.0
    )

    assert job.counts == {"unchanged": 1, "updated": 1, "created": 1}
    assert Geofence.objects.get(external_id="1").updated_at == before
    assert Geofence.objects.get(external_id="2").shape_version == 2


def test_it_adds_tags_and_keeps_settings_that_people_made(
    brand: Brand, table: Callable[..., Path]
) -> None:
    path = table("id,name,lat,lng\n1,A,60.17,24.94\n")
    take(brand, path, radius_m=50.0, tags=("list",))
    Geofence.objects.update(tags=["list", "by hand"], dwell_s=60, metadata={"manager": "Kim"})

    job = take(brand, path, radius_m=50.0, tags=("list",))

    geofence = Geofence.objects.get()
    assert job.counts == {"unchanged": 1}
    assert (geofence.tags, geofence.dwell_s) == (["list", "by hand"], 60)
    assert geofence.metadata == {"manager": "Kim"}


def test_it_never_touches_the_geofences_of_another_brand(
    brand: Brand, table: Callable[..., Path]
) -> None:
    theirs = make_circle(make_brand(), external_id="1", name="Theirs", tags=["list"])

    take(
        brand,
        table("id,name,lat,lng\n1,Ours,60.17,24.94\n"),
        radius_m=50.0,
        tags=("list",),
        retire_missing=True,
    )

    theirs.refresh_from_db()
    assert (theirs.name, theirs.retired_at) == ("Theirs", None)
    assert Geofence.objects.filter(brand=brand).count() == 1


def test_it_retires_what_a_list_no_longer_has(brand: Brand, table: Callable[..., Path]) -> None:
    head = "id,name,lat,lng\n"
    plan: dict[str, Any] = {"radius_m": 50.0, "tags": ("list",), "retire_missing": True}
    take(brand, table(head + "1,A,60.17,24.94\n2,B,60.18,24.94\n"), **plan)
    other = make_circle(brand, external_id="9")

    job = take(brand, table(head + "1,A,60.17,24.94\n"), **plan)

    assert job.counts == {"unchanged": 1, "retired": 1}
    present = Geofence.objects.present().filter(brand=brand)
    assert {geofence.external_id for geofence in present} == {"1", other.external_id}
    again = take(brand, table(head + "1,A,60.17,24.94\n2,B,60.18,24.94\n"), **plan)
    assert again.counts == {"unchanged": 1, "updated": 1, "retired": 0}


def test_it_repairs_where_that_is_safe_and_refuses_where_not(brand: Brand, tmp_path: Path) -> None:
    spike = [*SQUARE[:2], [24.95, 60.165], [24.96, 60.165], [24.95, 60.165], *SQUARE[2:]]
    bow_tie = [SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3], SQUARE[0]]
    path = collection(
        tmp_path / "areas.geojson",
        (polygon(SQUARE), {"id": "good"}),
        (polygon(spike), {"id": "spike"}),
        (polygon(bow_tie), {"id": "bow tie"}),
        ({"type": "LineString", "coordinates": SQUARE}, {"id": "line"}),
        (None, {"id": "nothing"}),
        (polygon([]), {"id": "empty"}),
        ({"type": "MultiPolygon", "coordinates": [[SQUARE]]}, {"id": "multi"}),
        (polygon([[x, y, 12.0] for x, y in SQUARE]), {"id": "with height"}),
    )

    job = take(brand, path)

    assert job.counts == {"created": 4, "refused": 4, "repaired": 1}
    assert "repaired" in remark(job, 2)
    assert "Self-intersection" in remark(job, 3)
    assert remark(job, 5) == "no geometry"
    assert all(shapely.from_wkb(bytes(g.geometry.wkb)).is_valid for g in Geofence.objects.all())


def test_it_keeps_the_areas_of_a_projected_file(brand: Brand, tmp_path: Path) -> None:
    square = shapely.Polygon(SQUARE)
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[square], crs=4326)
    path = tmp_path / "areas.gpkg"
    frame.to_crs(3067).to_file(path)

    take(brand, path)

    stored = shapely.from_wkb(bytes(Geofence.objects.get().geometry.wkb))
    assert stored.symmetric_difference(square).area < 1e-6 * square.area


@pytest.mark.parametrize("form", ["parquet", "fgb", "zip", "kml", "gml"])
def test_it_reads_the_formats_people_have(brand: Brand, tmp_path: Path, form: str) -> None:
    frame = geopandas.GeoDataFrame(
        {"id": ["a"], "name": ["Market"]}, geometry=[shapely.Polygon(SQUARE)], crs=4326
    )
    path = tmp_path / f"areas.{form}"
    if form == "parquet":
        frame.to_parquet(path)
    elif form == "zip":
        frame.to_file(tmp_path / "areas.shp.zip", driver="ESRI Shapefile")
        (tmp_path / "areas.shp.zip").rename(path)
    else:
        frame.to_file(path, driver={"fgb": "FlatGeobuf", "kml": "KML", "gml": "GML"}[form])

    job = take(brand, path)

    assert job.counts == {"created": 1}
    assert Geofence.objects.get().name == "Market"


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


def queued(brand: Brand, text: str, **plan: Any) -> GeofenceImport:
    job = GeofenceImport(brand=brand, file_name="shops.csv", state=ImportState.QUEUED)
    columns = files.Columns(external_id="id", lat="lat", lng="lng")
    job.mapping = imports.Plan(columns=columns, radius_m=50.0, **plan).to_json()
    job.file.save("shops.csv", ContentFile(text.encode()), save=False)
    job.save()
    return job


@pytest.fixture(autouse=True)
def media(tmp_path: Path, settings: Any) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


def execute(job: GeofenceImport) -> None:
    filejobs.execute(
        job, lambda job, path, stop: imports.take(job, path, stop=stop), stop=threading.Event()
    )


def shops(count: int) -> str:
    rows = (f"{n},{60 + n / 1000},{24 + n / 1000}" for n in range(1, count + 1))
    return "id,lat,lng\n" + "\n".join(rows) + "\n"


def test_it_does_a_queued_job(brand: Brand) -> None:
    job = queued(brand, shops(3))

    claimed = filejobs.claim(GeofenceImport, now=now())
    assert claimed == job
    assert filejobs.claim(GeofenceImport, now=now()) is None
    execute(claimed)

    job.refresh_from_db()
    assert (job.state, job.rows_done, job.rows_total) == (ImportState.DONE, 3, 3)
    assert job.counts == {"created": 3}
    assert job.finished_at is not None


def test_it_takes_up_the_job_of_a_dead_worker_where_it_was(
    brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    job = queued(brand, shops(5))
    first = filejobs.claim(GeofenceImport, now=now())
    assert first is not None
    steps = imports.take(first, Path(first.file.path))
    assert next(steps) == 2
    del steps  # killed here

    assert filejobs.claim(GeofenceImport, now=now()) is None
    second = filejobs.claim(GeofenceImport, now=now() + timedelta(minutes=5))
    assert second is not None
    execute(second)

    job.refresh_from_db()
    assert (job.state, job.counts) == (ImportState.DONE, {"created": 5})
    assert Geofence.objects.count() == 5


def test_it_stops_a_worker_whose_job_was_given_away(
    brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    queued(brand, shops(5))
    first = filejobs.claim(GeofenceImport, now=now())
    assert first is not None
    steps = imports.take(first, Path(first.file.path))
    next(steps)
    assert filejobs.claim(GeofenceImport, now=now() + timedelta(minutes=5)) is not None

    with pytest.raises(Stopped):
        next(steps)

    assert Geofence.objects.count() == 2


def test_it_stops_when_somebody_cancels(brand: Brand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    queued(brand, shops(5))
    job = filejobs.claim(GeofenceImport, now=now())
    assert job is not None
    steps = imports.take(job, Path(job.file.path))
    next(steps)
    GeofenceImport.objects.update(state=ImportState.CANCELLED)

    with pytest.raises(Stopped):
        next(steps)

    assert Geofence.objects.count() == 2


def test_it_fails_a_job_whose_file_cannot_be_read_and_does_the_next(brand: Brand) -> None:
    bad, good = queued(brand, "id,lat,lng\n"), queued(brand, shops(1))
    bad.file.storage.delete(str(bad.file.name))
    for _ in range(2):
        job = filejobs.claim(GeofenceImport, now=now())
        assert job is not None
        execute(job)

    bad.refresh_from_db()
    good.refresh_from_db()
    assert (bad.state, good.state) == (ImportState.FAILED, ImportState.DONE)
    assert bad.message


@pytest.mark.parametrize("form", list(exports.Format))
def test_it_reads_back_what_it_exported(
    brand: Brand, tmp_path: Path, form: exports.Format, capsys: pytest.CaptureFixture[str]
) -> None:
    make_circle(
        brand,
        external_id="7",
        tags=["a", "b"],
        metadata={"manager": {"name": "Kim"}, "floors": 2},
        dwell_s=300,
        starts_at=now(),
    )
    make_circle(brand, external_id="8")
    path = tmp_path / f"all.{form}"
    exports.write(Geofence.objects.present(), path, form)

    call_command("import_geofences", path, brand=brand.slug, verbosity=0)

    assert GeofenceImport.objects.get().counts == {"unchanged": 2}
    assert "2 unchanged" in capsys.readouterr().out


def test_it_exports_from_the_terminal(brand: Brand, tmp_path: Path) -> None:
    make_circle(brand, tags=["a"])
    make_circle(brand, tags=["b"])

    call_command("export_geofences", tmp_path / "a.geojson", brand=brand.slug, tag="a")

    assert len(geopandas.read_file(tmp_path / "a.geojson")) == 1


def test_it_names_the_brands_when_there_is_no_such(brand: Brand, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=brand.slug):
        call_command("import_geofences", tmp_path / "a.csv", brand="nobody")


@pytest.mark.shared_data
def test_it_refuses_the_file_in_a_wrong_system(brand: Brand, shared_data: Path) -> None:
    path = shared_data / "austin" / "airport_zoning.WRONG_CRS_epsg2277.geojson"

    with pytest.raises(CommandError, match=r"outside degrees.*WGS 84"):
        call_command("import_geofences", path, brand=brand.slug, verbosity=0)

    assert not Geofence.objects.exists()
    assert not GeofenceImport.objects.exists()


@pytest.mark.shared_data
def test_it_imports_that_file_when_told_the_true_system(brand: Brand, shared_data: Path) -> None:
    """The same four areas as in the file that is right, to the metre."""
    folder = shared_data / "austin"
    wrong = folder / "airport_zoning.WRONG_CRS_epsg2277.geojson"

    call_command("import_geofences", wrong, brand=brand.slug, crs="EPSG:2277", verbosity=0)

    for _, right in geopandas.read_file(folder / "airport_zoning.geojson").iterrows():
        stored = Geofence.objects.get(external_id=right.fence_id).geometry
        there = shapely.from_wkb(bytes(stored.wkb))
        assert there.hausdorff_distance(right.geometry) < 0.0001


@pytest.mark.shared_data
def test_it_repairs_the_invalid_country(brand: Brand, shared_data: Path) -> None:
    job = take(brand, shared_data / "natural_earth" / "ne_110m_countries.geojson")

    assert job.counts == {"created": 177, "repaired": 1}
    assert "Self-intersection" in job.rows.get().remark
    assert job.rows.get().name == "Sudan"


@pytest.mark.shared_data
def test_it_takes_the_published_stores_as_they_are(
    brand: Brand, shared_data: Path, tmp_path: Path
) -> None:
    """A sample with every kind of flaw: no coordinates, out of range, 0/0, repeated."""
    stores = pandas.read_parquet(shared_data / "stores" / "stores.parquet")
    flaws = stores[
        stores.lat.isna() | (stores.lat.abs() > 90) | ((stores.lat == 0) & (stores.lng == 0))
    ]
    twins = stores[stores.duplicated(["lat", "lng"], keep=False) & stores.lat.notna()].head(100)
    path = tmp_path / "stores.parquet"
    sample = pandas.concat([stores.head(300), flaws, twins]).drop_duplicates("poi_id")
    sample.to_parquet(path)

    job = take(brand, path, radius_m=150.0, tags=("stores",))

    assert job.counts["refused"] == len(flaws)
    assert job.counts["created"] == len(sample) - len(flaws)
    reasons = {row.remark.split(":")[0] for row in job.rows.filter(verdict=Verdict.REFUSED)}
    assert any("no latitude" in reason for reason in reasons)
    assert any("swapped" in reason for reason in reasons)
    assert any("0, 0" in reason for reason in reasons)
    repeated = sample[sample.lat.notna() & ~sample.index.isin(flaws.index)]
    twice = job.rows.filter(verdict=Verdict.CREATED, remark__contains="same place")
    assert twice.count() == repeated.duplicated(["lat", "lng"]).sum() > 40


@pytest.mark.shared_data
def test_it_follows_a_list_from_date_to_date(
    brand: Brand, shared_data: Path, tmp_path: Path
) -> None:
    lists = sorted((shared_data / "stores" / "dated").glob("*.csv"))
    sample = [pandas.read_csv(path, dtype=str).query("state == 'TX'") for path in lists]
    plan: dict[str, Any] = {"radius_m": 150.0, "tags": ("dollar-tree",), "retire_missing": True}
    known: set[str] = set()
    for path, rows in zip(lists, sample, strict=True):
        rows.to_csv(tmp_path / path.name, index=False)
        job = take(brand, tmp_path / path.name, **plan)
        ids = set(rows.clientkey)
        assert job.counts.get("created", 0) == len(ids - known)
        assert job.counts["retired"] == len(known - ids)
        known = ids
    present = Geofence.objects.present().filter(brand=brand)
    assert {geofence.external_id for geofence in present} == known

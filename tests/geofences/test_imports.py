"""Files become geofences, row by row, each with its verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

from brands.filejobs import Verdict
from brands.models import Brand
from geofences import files
from geofences.models import Geofence, GeofenceCover
from tests.factories import make_brand, make_circle
from tests.geofences.uploads import SQUARE, collection, polygon, remark, take

pytestmark = pytest.mark.django_db


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

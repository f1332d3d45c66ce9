"""Lists that companies and offices really published, imported as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import pandas
import pytest
import shapely
from django.core.management import CommandError, call_command

from brands.filejobs import Verdict
from brands.models import Brand
from geofences.models import Geofence, GeofenceImport
from tests.geofences.uploads import take

pytestmark = pytest.mark.django_db


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

"""What was exported can be read back."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pytest
from django.core.management import CommandError, call_command
from django.utils.timezone import now

from brands.models import Brand
from geofences import exports
from geofences.models import Geofence, GeofenceImport
from tests.factories import make_circle

pytestmark = pytest.mark.django_db


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

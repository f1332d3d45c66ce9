"""An import of places undone: to what there was before, and no further."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import shapely
from django.utils.timezone import now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brands import filejobs, undoing
from brands.filejobs import ImportState
from brands.models import Brand
from geofences import changes, imports, writing
from geofences.changes import Change
from geofences.models import Geofence, GeofenceCover, GeofenceImport
from geofences.upserts import Wanted, upsert
from tests.factories import make_brand
from tests.geofences.uploads import SQUARE, collection, polygon, take
from tests.undone import assert_undone_on_its_page, undone

pytestmark = pytest.mark.django_db

PAGES = "/admin/geofences/geofenceimport/"
SHOPS = "id,name,lat,lng,radius_m,size\na,Alpha,60.1,24.9,50,big\nb,Beta,60.2,24.8,80,small\n"


def state(geofence: Geofence) -> dict[str, Any]:
    fields = {name: getattr(geofence, name) for name in changes.KEPT_FIELDS}
    cover = GeofenceCover.objects.get(geofence=geofence)
    return fields | {
        "geometry": geofence.geometry.wkt,
        "cover": (cover.resolution, bytes(cover.blocks), bytes(cover.shape)),
    }


def states(brand: Brand) -> dict[str, Any]:
    return {each.name: state(each) for each in Geofence.objects.filter(brand=brand)}


def test_it_undoes_an_import_to_what_there_was_before(
    brand: Brand, table: Callable[..., Path], tmp_path: Path
) -> None:
    take(brand, table(SHOPS), tags=("shops",))
    before = states(brand)
    job = take(
        brand,
        collection(
            tmp_path / "outlines.geojson",
            (polygon(SQUARE), {"id": "a", "name": "Alpha", "size": "huge", "dwell_s": 60}),
            (polygon(SQUARE), {"id": "c", "name": "Gamma"}),
        ),
        tags=("shops", "outlines"),
    )
    assert states(brand) != before

    taken_back = undone(job, imports.do)

    gamma = Geofence.objects.get(external_id="c")
    assert gamma.retired_at is not None
    assert {name: told for name, told in states(brand).items() if name != "Gamma"} == before
    assert (taken_back.state, taken_back.counts) == (
        ImportState.DONE,
        {"put back": 1, "retired": 1},
    )
    assert undoing.undo(job, by=None, now=now()) is None, "once is enough"


def test_it_brings_back_what_the_import_retired_and_retires_what_it_revived(
    brand: Brand, table: Callable[..., Path]
) -> None:
    take(brand, table(SHOPS), tags=("shops",))
    beta = Geofence.objects.get(external_id="b")
    writing.retire([beta.pk], now=now())
    before = states(brand)
    job = take(
        brand,
        table("id,lat,lng,radius_m\nb,60.2,24.8,80\n"),
        tags=("shops",),
        retire_missing=True,
    )
    assert job.counts == {"updated": 1, "retired": 1}

    assert undone(job, imports.do).counts == {"put back": 2}

    assert states(brand) == before


def test_it_keeps_what_anybody_has_changed_since(brand: Brand, table: Callable[..., Path]) -> None:
    take(brand, table(SHOPS))
    job = take(
        brand,
        table(
            "id,name,lat,lng,radius_m,size\na,Alpha 2,60.3,24.9,70,big\nb,Beta 2,60.2,24.8,80,x\n"
            "c,Gamma,60.4,24.7,60,x\nd,Delta,60.5,24.7,60,x\ne,Epsilon,60.6,24.7,60,x\n"
        ),
    )
    alpha, gamma = (Geofence.objects.get(external_id=key) for key in "ac")
    alpha.radius_m, gamma.name = 90.0, "Our Gamma"
    writing.save([alpha, gamma])
    writing.retire([Geofence.objects.get(external_id="d").pk], now=now())
    Geofence.objects.get(external_id="e").delete()

    taken_back = undone(job, imports.do)

    alpha, beta, gamma = (Geofence.objects.get(external_id=key) for key in "abc")
    assert (alpha.name, alpha.radius_m, alpha.geometry.y) == ("Alpha", 90.0, 60.3), "both or none"
    assert (beta.name, beta.metadata["size"]) == ("Beta", "small")
    assert (gamma.name, gamma.retired_at) == ("Our Gamma", None)
    assert taken_back.counts == {"put back": 2, "kept": 3}
    assert list(taken_back.rows.values_list("external_id", "name", "remark")) == [
        ("a", "Alpha", "changed since: geometry, radius_m"),
        ("c", "Our Gamma", "changed since: name"),
        ("d", "Delta", "retired already"),
        ("", "", "there is no such geofence any more"),
    ]


def test_it_never_touches_another_brand(brand: Brand, table: Callable[..., Path]) -> None:
    take(brand, table(SHOPS))
    ours = Geofence.objects.get(external_id="a")
    told = changes.take_back(make_brand().pk, [Change(ours.pk, True, {}, {})], now=now())
    assert told[0][0].verdict is undoing.Undone.KEPT
    assert Geofence.objects.present().count() == 2


def test_it_goes_on_undoing_where_a_killed_worker_was(
    brand: Brand, table: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undoing, "CHUNK_ROWS", 1)
    job = take(brand, table(SHOPS))
    undoing.undo(job, by=None, now=now())
    first = filejobs.claim(GeofenceImport, now=now())
    assert first is not None
    next(undoing.take(first, imports.put_back))
    assert Geofence.objects.present().count() == 1

    again = filejobs.claim(GeofenceImport, now=now() + 2 * filejobs.LEASE)
    assert again is not None
    filejobs.execute(again, imports.do, stop=threading.Event())

    assert GeofenceImport.objects.get(undoes=job).counts == {"retired": 2}
    assert not Geofence.objects.present().exists()


def test_it_forgets_what_can_no_longer_be_undone(
    brand: Brand, table: Callable[..., Path], settings: Any
) -> None:
    job = take(brand, table(SHOPS))
    soon = now() + timedelta(days=settings.IMPORT_UNDO_DAYS - 1)
    late = now() + timedelta(days=settings.IMPORT_UNDO_DAYS + 1)
    undoing.forget(GeofenceImport, now=soon)
    assert undoing.until(job, now=soon) is not None
    assert undoing.until(job, now=late) is None
    undoing.forget(GeofenceImport, now=late)
    assert not job.changes.exists()


def test_it_undoes_on_the_page_of_the_import(brand: Brand, table: Callable[..., Path]) -> None:
    take(brand, table(SHOPS))
    job = take(brand, table("id,lat,lng,radius_m\na,60.3,24.9,50\nz,60.3,24.7,50\n"))
    assert_undone_on_its_page(job, PAGES, "It made 1 place and changed 1 place.")


names = st.sampled_from(["one", "two"])
spots = st.sampled_from([shapely.Point(24.0, 60.0), shapely.Point(25.0, 61.0)])
written = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.tuples(names, spots, st.sampled_from([50.0, 60.0]), st.sampled_from([None, 30])),
    max_size=3,
)


@given(before=written, imported=written, since=written, retired=st.sets(st.sampled_from("abc")))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_takes_back_field_by_field(
    brand: Brand,
    before: dict[str, Any],
    imported: dict[str, Any],
    since: dict[str, Any],
    retired: set[str],
) -> None:
    """The oracle: a field is as before where it is still what the import wrote."""
    owner = make_brand()

    def write(batch: dict[str, Any], **more: Any) -> dict[str, Any]:
        upsert(
            owner.pk,
            [
                Wanted(
                    number=number,
                    external_id=key,
                    geometry=spot,
                    fields={"name": name, "radius_m": radius_m, "dwell_s": dwell_s},
                )
                for number, (key, (name, spot, radius_m, dwell_s)) in enumerate(batch.items())
            ],
            **more,
        )
        return seen()

    def seen() -> dict[str, Any]:
        return {
            str(each.external_id): {
                "name": each.name,
                "spot": each.geometry.coords,
                "radius_m": each.radius_m,
                "dwell_s": each.dwell_s,
                "is_retired": each.retired_at is not None,
            }
            for each in Geofence.objects.filter(brand=owner)
        }

    kept: list[Change] = []
    first = write(before)
    told = write(imported, keep=kept.extend)
    writing.retire(
        Geofence.objects.filter(brand=owner, external_id__in=retired).values_list("pk", flat=True),
        now=now(),
    )
    last = write(since)

    changes.take_back(owner.pk, kept, now=now())

    def expected(key: str) -> dict[str, Any]:
        here: dict[str, Any] = last[key]
        if key not in told or told[key] == first.get(key):
            return here
        if key not in first:
            return here | {"is_retired": here["is_retired"] or here == told[key]}
        wrote = {field for field, value in told[key].items() if value != first[key][field]}
        stays = {field for field in wrote if here[field] != told[key][field]}
        if stays & {"spot", "radius_m"}:
            stays |= {"spot", "radius_m"}
        return here | {field: first[key][field] for field in wrote - stays}

    assert seen() == {key: expected(key) for key in last}

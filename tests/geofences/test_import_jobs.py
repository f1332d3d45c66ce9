"""Imports as jobs: queued, taken up again, stopped, cancelled."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import InterfaceError, OperationalError
from django.utils.timezone import now

from brands import filejobs, undoing
from brands.filejobs import ImportState, Stopped
from brands.models import Brand
from geofences import files, imports
from geofences.models import Geofence, GeofenceImport
from geofences.upserts import upsert

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(tmp_path: Path, settings: Any) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


def queued(brand: Brand, text: str, **plan: Any) -> GeofenceImport:
    job = GeofenceImport(brand=brand, file_name="shops.csv", state=ImportState.QUEUED)
    columns = files.Columns(external_id="id", lat="lat", lng="lng")
    job.mapping = imports.Plan(columns=columns, radius_m=50.0, **plan).to_json()
    job.file.save("shops.csv", ContentFile(text.encode()), save=False)
    job.save()
    return job


def execute(job: GeofenceImport) -> None:
    filejobs.execute(job, imports.do, stop=threading.Event())


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


def has_file(job: GeofenceImport) -> bool:
    job.refresh_from_db()
    return bool(job.file) and job.file.storage.exists(str(job.file.name))


@pytest.mark.parametrize("text", [shops(1), "id,lat,lng\n"], ids=["taken in", "refused"])
def test_it_keeps_no_file_of_a_job_that_has_ended(
    transactional_db: None, brand: Brand, text: str, tmp_path: Path
) -> None:
    job = queued(brand, text)
    assert has_file(job)
    claimed = filejobs.claim(GeofenceImport, now=now())
    assert claimed is not None
    execute(claimed)

    assert not has_file(job)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert job.file_name == "shops.csv"


def test_it_keeps_no_file_of_a_job_that_was_cancelled(
    brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = queued(brand, shops(1))
    assert filejobs.cancel(waiting, now=now())
    assert not has_file(waiting)

    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    read = queued(brand, shops(5))
    claimed = filejobs.claim(GeofenceImport, now=now())
    assert claimed is not None
    assert filejobs.cancel(read, now=now())
    assert has_file(read)  # until whoever reads it notices
    execute(claimed)
    assert not has_file(read)


def test_it_keeps_the_file_of_a_draft_for_a_time(brand: Brand, settings: Any) -> None:
    draft, under_way = queued(brand, shops(1)), queued(brand, shops(1))
    GeofenceImport.objects.filter(pk=draft.pk).update(state=ImportState.DRAFT)
    undoing.forget(GeofenceImport, now=now())
    assert has_file(draft)
    undoing.forget(GeofenceImport, now=now() + timedelta(days=settings.IMPORT_UNDO_DAYS + 1))
    assert not has_file(draft)
    assert has_file(under_way)


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


def test_who_lost_a_job_ends_nothing_of_who_has_it(brand: Brand) -> None:
    job = queued(brand, shops(1))
    first = filejobs.claim(GeofenceImport, now=now())
    assert first is not None
    second = filejobs.claim(GeofenceImport, now=now() + timedelta(minutes=5))
    assert second is not None

    filejobs.finish(first, ImportState.FAILED, "An error of mine.", now=now())
    job.refresh_from_db()
    assert (job.state, job.message) == (ImportState.RUNNING, "")

    filejobs.finish(second, ImportState.DONE, "", now=now())
    job.refresh_from_db()
    assert job.state == ImportState.DONE


class Deadlocks:
    """The database's refusal of what comes next, some times over."""

    def __init__(self, patch: pytest.MonkeyPatch, *, times: int, after: int = 0) -> None:
        self._after, self._times = after, times
        patch.setattr(imports, "upsert", self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._after -= 1
        if self._after < 0 and self._times:
            self._times -= 1
            raise OperationalError("deadlock detected")
        return upsert(*args, **kwargs)


def test_it_takes_up_a_job_that_a_deadlock_stopped(
    brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", 2)
    Deadlocks(monkeypatch, times=1, after=1)
    job = queued(brand, shops(5))
    first = filejobs.claim(GeofenceImport, now=now())
    assert first is not None
    execute(first)

    job.refresh_from_db()
    assert (job.state, job.rows_done) == (ImportState.RUNNING, 2)
    assert job.counts == {"created": 2, "interrupted": 1}
    assert filejobs.claim(GeofenceImport, now=now()) is None  # not at once again
    second = filejobs.claim(GeofenceImport, now=now() + filejobs.FIRST_WAIT)
    assert second is not None
    execute(second)

    job.refresh_from_db()
    assert (job.state, job.counts) == (ImportState.DONE, {"created": 5})


def test_it_gives_up_rows_at_which_the_database_stops_it_again_and_again(
    brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    Deadlocks(monkeypatch, times=100)
    job = queued(brand, shops(1))
    times = 0
    while claimed := filejobs.claim(GeofenceImport, now=now() + filejobs.LEASE):
        execute(claimed)
        times += 1

    assert times == filejobs.MOST_INTERRUPTIONS + 1
    job.refresh_from_db()
    assert job.state == ImportState.FAILED
    assert job.message.startswith("The database stopped it 6 times at the rows after 0.")


def test_it_gives_a_job_back_once_the_database_answers_again(
    transactional_db: None, brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filejobs, "LOOK_S", 0.0)
    Deadlocks(monkeypatch, times=1)
    give_back, away = filejobs.give_back, [OperationalError("away"), InterfaceError("closed")]

    def later(*args: Any, **kwargs: Any) -> None:
        if away:
            raise away.pop()
        give_back(*args, **kwargs)

    monkeypatch.setattr(filejobs, "give_back", later)
    job = queued(brand, shops(1))
    claimed = filejobs.claim(GeofenceImport, now=now())
    assert claimed is not None
    execute(claimed)

    job.refresh_from_db()
    assert (job.state, job.counts) == (ImportState.RUNNING, {"interrupted": 1})


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


def test_it_retires_nothing_for_a_file_without_rows(brand: Brand) -> None:
    for text in (shops(2), "id,lat,lng\n"):
        queued(brand, text, tags=("shop",), retire_missing=True)
        job = filejobs.claim(GeofenceImport, now=now())
        assert job is not None
        execute(job)

    last = GeofenceImport.objects.latest("pk")
    assert (last.state, last.message) == (ImportState.FAILED, "The file has no rows.")
    assert Geofence.objects.present().count() == 2

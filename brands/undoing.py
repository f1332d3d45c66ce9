"""Takes back what an import changed, for some days, as a job of its own.

A value goes back to what it was where it still is what the import wrote; what anybody has written
since stays. The job is watched, stopped and taken up again as an import is. What a change is, and
how it is put back, is the import's own business (`geofences.changes`, `devices.profiles`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import Model

from brands.filejobs import (
    UNDER_WAY,
    FileError,
    FileJob,
    ImportState,
    Stopped,
    Verdict,
    advance,
    counted,
    discard,
)
from brands.models import Brand

CHUNK_ROWS = 1_000
ENDED = (ImportState.DONE, ImportState.FAILED, ImportState.CANCELLED)


class Undone(StrEnum):
    """What became of one row that an import had changed."""

    PUT_BACK = "put back"
    REMOVED = "removed"
    RETIRED = "retired"
    KEPT = "kept"


class TakenBack(NamedTuple):
    """A verdict on taking back, and why where that needs saying."""

    verdict: Undone
    remark: str = ""


PutBack = Callable[[int, Sequence[Any]], list[tuple[TakenBack, dict[str, str]]]]
"""Takes back some kept changes of a brand; for each what became of it, and its id and name."""


def until(job: FileJob, *, now: datetime) -> datetime | None:
    """Until when an import can be undone; None where it cannot, or is already."""
    last = job.created_at + timedelta(days=settings.IMPORT_UNDO_DAYS)
    undone = undoing_of(job)
    is_over = undone is not None and undone.state in {*UNDER_WAY, ImportState.DONE}
    if job.undoes is not None or job.state not in ENDED or is_over or last < now:
        return None
    return last if job.changes.exists() else None


def undoing_of(job: FileJob) -> Any:
    """The job that undoes this one, or did; None where nobody has asked for one."""
    return _all(type(job)).filter(undoes=job).first()


def undo(job: FileJob, *, by: int | None, now: datetime) -> Any:
    """Queue the undoing of an import, or of the rest of one; None where it cannot be undone."""
    with transaction.atomic():
        Brand.objects.select_for_update().get(pk=job.brand_id)  # two who press at once wait
        if until(job, now=now) is None:
            return None
        undoing, _ = _all(type(job)).update_or_create(
            undoes=job,
            defaults={
                "brand_id": job.brand_id,
                "file_name": f"Undo: {job.file_name}"[:200],
                "created_by_id": by,
                "created_at": now,  # its place in the queue
                "finished_at": None,
                "message": "",
                "rows_total": job.changes.count(),
                "state": ImportState.QUEUED,
            },
        )
    return undoing


def take(job: FileJob, put_back: PutBack, *, stop: threading.Event | None = None) -> Iterator[int]:
    """Take back what `job.undoes` changed; yields the rows done after each chunk.

    Raises FileError where too late, Stopped where the job was cancelled.
    """
    assert job.undoes is not None, "asked for by its row"
    kept = job.undoes.changes.order_by("pk")
    if kept.count() < (job.rows_total or 0):
        raise FileError("What the import changed is no longer kept.")
    done = job.rows_done
    while rows := list(kept[done : done + CHUNK_ROWS]):
        if stop is not None and stop.is_set():
            raise Stopped
        with transaction.atomic():
            told = put_back(job.brand_id, rows)
            job.rows.model._default_manager.bulk_create(
                job.rows.model(
                    job=job,
                    row=done + offset,
                    verdict=Verdict.UNCHANGED if one.verdict is Undone.KEPT else Verdict.UPDATED,
                    remark=one.remark,
                    **named,
                )
                for offset, (one, named) in enumerate(told, 1)
                if one.remark
            )
            counts = counted(job.counts, (one.verdict for one, _ in told))
            done += len(rows)
            advance(job, rows_done=done, counts=counts)
        yield done
    job.rows_total = done


def forget(jobs: type[FileJob], *, now: datetime) -> None:
    """Delete what can no longer be undone, and the files of drafts that nobody began."""
    before = now - timedelta(days=settings.IMPORT_UNDO_DAYS)
    left = _all(jobs).filter(created_at__lt=before).exclude(file="")
    for job in left.exclude(state__in=UNDER_WAY):
        discard(job)
    changes = jobs.changes.rel.related_model
    _all(changes).filter(job__created_at__lt=before).exclude(
        job__undone_by__state__in=UNDER_WAY
    ).delete()


def _all(model: type[Model]) -> Any:
    """Its manager, of no type: mypy's plugin fails at a key of an abstract model."""
    return model._default_manager

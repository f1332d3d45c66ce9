"""Keeps what an import of people changed, for some days, and takes it back as a job of its own.

An attribute goes back to what it was where it still is what the import wrote; what anybody has
written since stays. The job is watched, stopped and taken up again as an import is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.utils.timezone import now as current_time

from brands.filejobs import UNDER_WAY, FileError, ImportState, Stopped, Verdict, advance
from brands.models import Brand
from devices.models import ProfileImport, ProfileImportChange, ProfileImportRow
from devices.profiles import Change, Undone, take_back

CHUNK_ROWS = 1_000
ENDED = (ImportState.DONE, ImportState.FAILED, ImportState.CANCELLED)

# Somebody who is in the file twice was what they were before the first of the two.
_KEEP = """
    INSERT INTO devices_profileimportchange (job_id, external_id, made, before, after)
    SELECT %s, u.* FROM unnest(%s::text[], %s::bool[], %s::jsonb[], %s::jsonb[]) u
    ON CONFLICT ON CONSTRAINT one_change_per_import_and_person DO UPDATE
       SET before = EXCLUDED.before || devices_profileimportchange.before,
           after = devices_profileimportchange.after || EXCLUDED.after
"""


def keep(job: ProfileImport, changes: Sequence[Change]) -> None:
    """Remember what a chunk changed; in the transaction that changed it."""
    told = [one for one in changes if one.made or one.after]
    if not told:
        return
    columns = zip(
        *((one.external_id, one.made, _text(one.before), _text(one.after)) for one in told),
        strict=True,
    )
    with connection.cursor() as cursor:
        cursor.execute(_KEEP, (job.pk, *map(list, columns)))


def until(job: ProfileImport, *, now: datetime) -> datetime | None:
    """Until when an import can be undone; None where it cannot, or is already."""
    last = job.created_at + timedelta(days=settings.IMPORT_UNDO_DAYS)
    undone = ProfileImport.objects.filter(undoes=job).first()
    is_over = undone is not None and undone.state in {*UNDER_WAY, ImportState.DONE}
    if job.undoes_id or job.state not in ENDED or is_over or last < now:
        return None
    return last if job.changes.exists() else None


def undo(job: ProfileImport, *, by: int | None, now: datetime) -> ProfileImport | None:
    """Queue the undoing of an import, or of the rest of one; None where it cannot be undone."""
    with transaction.atomic():
        Brand.objects.select_for_update().get(pk=job.brand_id)  # two who press at once wait
        if until(job, now=now) is None:
            return None
        undoing, _ = ProfileImport.objects.update_or_create(
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


def take(job: ProfileImport, *, stop: threading.Event | None = None) -> Iterator[int]:
    """Take back what `job.undoes` changed; yields the people done after each chunk.

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
            told = take_back(
                job.brand_id,
                [Change(row.external_id, row.made, row.before, row.after) for row in rows],
                now=current_time(),
            )
            ProfileImportRow.objects.bulk_create(
                ProfileImportRow(
                    job=job,
                    row=done + offset,
                    external_id=row.external_id,
                    verdict=Verdict.UPDATED
                    if one.verdict is Undone.PUT_BACK
                    else Verdict.UNCHANGED,
                    remark=one.remark,
                )
                for offset, (row, one) in enumerate(zip(rows, told, strict=True), 1)
                if one.remark
            )
            counts = dict(job.counts)
            for one in told:
                counts[one.verdict.value] = counts.get(one.verdict.value, 0) + 1
            done += len(rows)
            advance(job, rows_done=done, counts=counts)
        yield done
    job.rows_total = done


def forget(*, now: datetime) -> None:
    """Delete what can no longer be undone."""
    before = now - timedelta(days=settings.IMPORT_UNDO_DAYS)
    ProfileImportChange.objects.filter(job__created_at__lt=before).exclude(
        job__undone_by__state__in=UNDER_WAY
    ).delete()


def _text(value: dict[str, object]) -> str:
    return msgspec.json.encode(value).decode()

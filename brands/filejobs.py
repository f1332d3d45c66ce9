"""A brand's file on its way into rows, as a job that is watched, stopped and taken up again.

What a row means is the import's own business (`geofences.imports`, `devices.profile_imports`).
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, models, transaction
from django.db.models import Q
from django.utils.timezone import now as current_time

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)  # longer than any chunk; a dead worker's job waits this long
LOOK_S = 1.0
INTERRUPTED = "interrupted"  # among the counts, while the database stopped us at these rows
MOST_INTERRUPTIONS = 5  # in a row: with the waits below a minute, longer than any deadlock lasts
FIRST_WAIT = timedelta(seconds=2)  # and each time twice as long
LOST = (OperationalError, InterfaceError)
"""A deadlock, a database that is away: nothing that the file or our code is to blame for."""


class ImportState(StrEnum):
    """Where an import is; `draft` waits for a person to confirm which column means what."""

    DRAFT = "draft"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNDER_WAY = (ImportState.QUEUED, ImportState.RUNNING)


class Verdict(StrEnum):
    """What an import or a bulk request did with one row."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class FileError(ValueError):
    """A file that cannot be imported; the message says why and what to do."""


class Stopped(Exception):  # noqa: N818 - nothing is wrong: somebody cancelled, or the process ends
    """The job is no longer ours to go on with."""


class FileJob(models.Model):
    """One file on its way in, or the undoing of one (`undoes`, no file).

    Each import has a table of its own, with tables of its `FileJobRow`s and `FileJobChange`s.
    """

    brand = models.ForeignKey("brands.Brand", on_delete=models.CASCADE, related_name="+")
    file = models.FileField(upload_to="imports/%Y/%m/", max_length=300, blank=True)
    file_name = models.CharField(max_length=200)
    mapping = models.JSONField(default=dict, blank=True)
    state = models.CharField(
        max_length=16,
        choices=[(state.value, state.value.title()) for state in ImportState],
        default=ImportState.DRAFT.value,
    )
    rows_total = models.PositiveIntegerField(null=True)  # unknown where the format does not say
    rows_done = models.PositiveIntegerField(default=0)
    counts = models.JSONField(default=dict)
    message = models.TextField(blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    created_at = models.DateTimeField(default=current_time)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    leased_until = models.DateTimeField(null=True)  # past: its worker died, another takes over
    undoes = models.OneToOneField(
        "self", on_delete=models.CASCADE, null=True, related_name="undone_by"
    )
    lease_before: datetime | None = None  # what `advance` replaced, should its commit have failed
    rows: Any  # what somebody should look at
    changes: Any  # what it wrote, while that can be taken back

    class Meta:
        abstract = True
        verbose_name = "import"
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.file_name

    @classmethod
    def for_workers(cls) -> models.QuerySet[Any]:
        """Those that a worker can do: what the command line reads has no file kept."""
        jobs: Any = cls._default_manager  # mypy's plugin fails at a key of an abstract model
        kept: models.QuerySet[Any] = jobs.exclude(file="", undoes=None)
        return kept


class FileJobChange(models.Model):
    """What an import changed of one row, kept for IMPORT_UNDO_DAYS so that it can be undone.

    Subclasses name the row and the job (`job`, related name `changes`).
    """

    made = models.BooleanField()  # it was not there before
    before = models.JSONField()
    after = models.JSONField()

    class Meta:
        abstract = True


class FileJobRow(models.Model):
    """A row of a file that somebody should look at: refused, or taken in with a remark."""

    row = models.PositiveIntegerField()
    external_id = models.CharField(max_length=128, blank=True)
    verdict = models.CharField(max_length=16, choices=[(v.value, v.value.title()) for v in Verdict])
    remark = models.TextField()

    class Meta:
        abstract = True
        ordering = ("row",)

    def __str__(self) -> str:
        return f"row {self.row}: {self.verdict}"


Job = TypeVar("Job", bound=FileJob)
Take = Callable[[Job, Path, threading.Event], Iterable[int]]
"""Imports a job's file; raises FileError where it cannot, Stopped where the job is not ours.

A job without a file gets the path of nothing.
"""


def counted(counts: Mapping[str, int], verdicts: Iterable[StrEnum]) -> dict[str, int]:
    """The counts with these verdicts added."""
    found = dict(counts)
    for verdict in verdicts:
        found[verdict.value] = found.get(verdict.value, 0) + 1
    return found


def claim(jobs: type[Job], *, now: datetime) -> Job | None:
    """The next job to do, made ours for a while: a queued one, or one whose worker died."""
    with transaction.atomic():
        job = (
            jobs.for_workers()
            .select_for_update(skip_locked=True, of=("self",))
            .filter(
                Q(state=ImportState.QUEUED) | Q(state=ImportState.RUNNING, leased_until__lt=now)
            )
            .order_by("created_at")
            .first()
        )
        if job is not None:
            begin(job, now=now)
    return job


def begin(job: FileJob, *, now: datetime) -> None:
    job.state = ImportState.RUNNING
    job.started_at = job.started_at or now
    job.leased_until = now + LEASE
    job.save()


def advance(job: FileJob, **changes: Any) -> None:
    """Change a running job that is still ours, else raise Stopped; the lease is the proof."""
    counts = changes.get("counts", job.counts)
    if INTERRUPTED in counts:  # no more, now that it goes on
        changes["counts"] = {name: counts[name] for name in counts if name != INTERRUPTED}
    changes["leased_until"] = current_time() + LEASE
    mine = type(job)._default_manager.filter(
        pk=job.pk, state=ImportState.RUNNING, leased_until=job.leased_until
    )
    if not mine.update(**changes):
        raise Stopped
    job.lease_before = job.leased_until
    for name, value in changes.items():
        setattr(job, name, value)


def _held(job: FileJob) -> models.QuerySet[Any]:
    """Its row, where it is still ours: a worker that fell behind has a successor."""
    leases = [lease for lease in (job.leased_until, job.lease_before) if lease is not None]
    jobs: Any = type(job)._default_manager
    held: models.QuerySet[Any] = jobs.filter(
        pk=job.pk, state=ImportState.RUNNING, leased_until__in=leases
    )
    return held


def finish(job: FileJob, state: ImportState, message: str, *, now: datetime) -> None:
    """End a running job that is still ours; another's is left alone."""
    ended = _held(job).update(
        state=state,
        message=message,
        finished_at=now,
        rows_total=job.rows_total,
        leased_until=None,
    )
    job.refresh_from_db()
    if ended:
        discard(job)


def discard(job: FileJob) -> None:
    """Delete the file of a job that needs it no more: what it says of people is in rows alone."""
    name = job.file.name
    if name:
        type(job)._default_manager.filter(pk=job.pk).update(file="")
        transaction.on_commit(lambda: job.file.storage.delete(name))


def give_back(job: FileJob, *, now: datetime) -> None:
    """Leave a job that the database stopped to be taken up again; at the same rows not for ever."""
    with transaction.atomic():
        held = _held(job).select_for_update().first()
        if held is None:
            return
        times = held.counts.get(INTERRUPTED, 0) + 1
        if times > MOST_INTERRUPTIONS:
            problem = f"The database stopped it {times} times at the rows after {held.rows_done:,}."
            finish(held, ImportState.FAILED, f"{problem} What it took in stays.", now=now)
            return
        held.counts[INTERRUPTED] = times
        held.leased_until = now + FIRST_WAIT * 2 ** (times - 1)
        held.save(update_fields=["counts", "leased_until"])


def refuse(job: FileJob, message: str, *, now: datetime) -> None:
    """End a draft whose file cannot be read."""
    drafts = type(job)._default_manager.filter(pk=job.pk, state=ImportState.DRAFT)
    if drafts.update(state=ImportState.FAILED, message=message, finished_at=now):
        discard(job)


def cancel(job: FileJob, *, now: datetime) -> bool:
    """Stop a job that has not ended; its worker notices at the next chunk. Whether it was so."""
    jobs: Any = type(job)._default_manager
    ended = {"state": ImportState.CANCELLED, "finished_at": now, "leased_until": None}
    unread = (ImportState.DRAFT, ImportState.QUEUED)
    if jobs.filter(pk=job.pk, state__in=unread).update(**ended):
        discard(job)
        return True
    # Its worker reads the file until it notices.
    return bool(jobs.filter(pk=job.pk, state=ImportState.RUNNING).update(**ended))


def execute(job: Job, take: Take[Job], *, stop: threading.Event) -> None:
    """Do a claimed job to its end, whatever its file holds."""
    try:
        with local_copy(job.file) as path:
            for _ in take(job, path, stop):
                pass
    except Stopped:  # cancelled, or queued again for the next worker by its lease
        every: Any = type(job)._default_manager
        if every.filter(pk=job.pk, state=ImportState.CANCELLED).exists():
            discard(job)
    except FileError as error:
        finish(job, ImportState.FAILED, str(error), now=current_time())
    except LOST:
        logger.exception("import %s was interrupted", job.pk)
        _give_back_once_it_answers(job, stop)
    except Exception:  # a job must not end the loop for the others
        logger.exception("import %s failed", job.pk)
        problem = "The import stopped by an error of ours; the log has the details."
        finish(job, ImportState.FAILED, problem, now=current_time())
    else:
        finish(job, ImportState.DONE, "", now=current_time())


def _give_back_once_it_answers(job: FileJob, stop: threading.Event) -> None:
    """Where the database stays away, the lease runs out, and whoever finds that takes it up."""
    until = current_time() + LEASE
    while not stop.is_set() and current_time() < until:
        try:
            give_back(job, now=current_time())
        except LOST:
            close_old_connections()
            stop.wait(LOOK_S)
        else:
            return


def work(jobs: type[Job], take: Take[Job], stop: threading.Event) -> None:
    """Do jobs one after the other until `stop` is set."""
    while not stop.is_set():
        close_old_connections()
        job = claim(jobs, now=current_time())
        if job is None:
            stop.wait(LOOK_S)
        else:
            execute(job, take, stop=stop)


def remarks(job: Any, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """These columns of the rows to look at, streamed: a file may have refused a million."""
    rows: Iterator[tuple[Any, ...]] = job.rows.values_list(*columns).iterator(chunk_size=2000)
    return rows


@contextmanager
def local_copy(file: models.fields.files.FieldFile) -> Iterator[Path]:
    """The stored file as a path, copied first where the storage is elsewhere."""
    if not file:
        yield Path()
        return
    try:
        yield Path(file.path)
    except NotImplementedError:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(file.name or "file").name
            with path.open("wb") as copy:
                for piece in file.chunks():
                    copy.write(piece)
            yield path

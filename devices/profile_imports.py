"""Takes a CRM's file into profiles, row by row, as a job (`brands.filejobs`).

Each chunk is one transaction: its profiles, its verdicts and the progress are committed together,
so a job whose worker was killed goes on where it was. Memory holds one chunk, whatever the file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from django.db import connection, transaction
from django.utils.timezone import now as current_time

from brands import undoing
from brands.filejobs import FileError, Stopped, Verdict, advance, counted, work
from brands.undoing import TakenBack
from devices import profile_files
from devices.attributes import NAME
from devices.columns import Kind, ProfilePlan, attributes_of, instant_of, text_of
from devices.models import ProfileImport, ProfileImportChange, ProfileImportRow
from devices.profile_files import Row
from devices.profiles import MAX_AHEAD, Change, ProfileIn, Told, problem_of, take_back, upsert

REMARK_COLUMNS = ("row", "external_id", "verdict", "remark")


class _Undone(Exception):  # noqa: N818 - a trial ends like this, nothing is wrong
    pass


def problems_of(plan: ProfilePlan) -> list[str]:
    """What a plan lacks, in words."""
    found = [] if plan.external_id else ["Say which column is the person's id."]
    if not NAME.fullmatch(plan.source):
        found.append("The source is a name: a letter, then letters, digits or any of _.:-")
    used: dict[str, str] = {}
    for name, column in plan.columns.items():
        if column.kind is Kind.SKIP:
            continue
        if not NAME.fullmatch(column.attribute):
            found.append(f"{name}: {column.attribute[:70]!r} is no name of an attribute.")
        elif column.attribute in used:
            found.append(f"{name}: {used[column.attribute]} is {column.attribute} already.")
        used.setdefault(column.attribute, name)
    return found


def take(job: ProfileImport, path: Path, *, stop: threading.Event | None = None) -> Iterator[int]:
    """Import a job's file; yields the rows done after each chunk.

    Raises FileError where the file cannot be imported, Stopped where the job was cancelled.
    """
    plan = ProfilePlan.from_json(job.mapping)
    if lacking := problems_of(plan):
        raise FileError(" ".join(lacking))
    # Taken up again, the same instant: the freshness of one file's values is one.
    as_of = job.started_at or job.created_at
    done = 0
    for rows in profile_files.read(path):
        if stop is not None and stop.is_set():
            raise Stopped
        first = done + 1
        done += len(rows)
        if done <= job.rows_done:
            continue  # committed by a worker that died
        with transaction.atomic():
            judged = _judged(
                job.brand_id, rows, plan, as_of, keep=lambda changed: _keep(job, changed)
            )
            ProfileImportRow.objects.bulk_create(
                ProfileImportRow(
                    job=job,
                    row=first + offset,
                    external_id=key[:128],
                    verdict=told.verdict,
                    remark=told.remark,
                )
                for offset, (key, told) in enumerate(judged)
                if told.remark
            )
            counts = counted(job.counts, (told.verdict for _, told in judged))
            advance(job, rows_done=done, counts=counts)
        yield done
    job.rows_total = done


def trial(brand_id: int, rows: Sequence[Row], plan: ProfilePlan, *, now: datetime) -> list[Told]:
    """What would become of some rows; nothing stays written."""
    judged: list[tuple[str, Told]] = []
    try:
        with transaction.atomic():
            judged = _judged(brand_id, rows, plan, now)
            raise _Undone
    except _Undone:
        return [told for _, told in judged]


def _judged(
    brand_id: int,
    rows: Sequence[Row],
    plan: ProfilePlan,
    as_of: datetime,
    keep: Callable[[list[Change]], None] | None = None,
) -> list[tuple[str, Told]]:
    """Each row's id and what became of it."""
    asked = [_wanted(row, plan, as_of) for row in rows]
    verdicts = iter(
        upsert(
            brand_id,
            [one for _, one in asked if isinstance(one, ProfileIn)],
            source=plan.source,
            now=as_of,
            keep=keep,
        )
    )
    return [(key, one if isinstance(one, Told) else next(verdicts)) for key, one in asked]


def _wanted(row: Row, plan: ProfilePlan, as_of: datetime) -> tuple[str, ProfileIn | Told]:
    """What a row asks for, or its refusal."""
    values, why = row
    if why:
        return "", Told(Verdict.REFUSED, why)
    key = text_of(values.get(plan.external_id)) if plan.external_id in values else ""
    if not key:
        return "", Told(Verdict.REFUSED, f"no {plan.external_id}")
    try:
        item = ProfileIn(key, attributes_of(values, plan))
        if plan.as_of and (at := values.get(plan.as_of)) not in (None, ""):
            item.as_of = instant_of(at, not_after=as_of + MAX_AHEAD)
    except ValueError as error:
        return key, Told(Verdict.REFUSED, str(error))
    problem = problem_of(item, now=as_of)
    return key, item if problem is None else Told(Verdict.REFUSED, problem)


# Somebody who is in the file twice was what they were before the first of the two.
_KEEP = """
    INSERT INTO devices_profileimportchange (job_id, external_id, made, before, after)
    SELECT %s, u.* FROM unnest(%s::text[], %s::bool[], %s::jsonb[], %s::jsonb[]) u
    ON CONFLICT ON CONSTRAINT one_change_per_import_and_person DO UPDATE
       SET before = EXCLUDED.before || devices_profileimportchange.before,
           after = devices_profileimportchange.after || EXCLUDED.after
"""


def _keep(job: ProfileImport, changes: Sequence[Change]) -> None:
    """Remember what was changed, so that it can be undone; in the transaction that changed it."""
    told = [one for one in changes if one.made or one.after]
    if not told:
        return
    columns = zip(
        *((one.external_id, one.made, _text(one.before), _text(one.after)) for one in told),
        strict=True,
    )
    with connection.cursor() as cursor:
        cursor.execute(_KEEP, (job.pk, *map(list, columns)))


def _text(value: dict[str, object]) -> str:
    return msgspec.json.encode(value).decode()


def put_back(
    brand_id: int, kept: Sequence[ProfileImportChange]
) -> list[tuple[TakenBack, dict[str, str]]]:
    """Take kept changes back (`brands.undoing.PutBack`)."""
    changes = [Change(row.external_id, row.made, row.before, row.after) for row in kept]
    told = take_back(brand_id, changes, now=current_time())
    return [(one, {"external_id": row.external_id}) for one, row in zip(told, kept, strict=True)]


def run(stop: threading.Event) -> None:
    """The worker loop: jobs one after the other until `stop` is set."""
    work(ProfileImport, do, stop)


def do(job: ProfileImport, path: Path, stop: threading.Event) -> Iterator[int]:
    """Do a claimed job, whichever of the two it is."""
    return undoing.take(job, put_back, stop=stop) if job.undoes else take(job, path, stop=stop)

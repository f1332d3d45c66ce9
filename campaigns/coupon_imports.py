"""Takes files of codes into pools, line by line, by the million; every refused line is named.

A line is a code, or begins with one (`CODE,whatever`). What the brand has already is refused, in
whichever pool it is. Each piece of a file is one transaction: what was taken in stays.
"""

from __future__ import annotations

import csv
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from django.db import close_old_connections, connection, transaction
from django.db.models import Q
from django.utils import timezone

from campaigns import codes
from campaigns.models import BacktestState, CouponImport, CouponPool, PoolKind

logger = logging.getLogger(__name__)

AT_ONCE = 20_000
MOST_REMARKS = 1_000
LOOK_S = 1.0
DEAD_AFTER = timedelta(minutes=2)
DUPLICATE, TWICE = "already there", "twice in this file"
_HEADINGS = frozenset({"code", "codes", "coupon", "coupon_code", "coupon code"})

_TAKE = """
    INSERT INTO campaigns_coupon (pool_id, brand_id, code, state, reference)
    SELECT %s, %s, code, 'free', '' FROM unnest(%s::text[]) WITH ORDINALITY AS v (code, place)
     ORDER BY place
    ON CONFLICT (brand_id, code) DO NOTHING RETURNING code
"""

Remark = tuple[int, str, str]
"""Line, code, reason."""


class CouponFileError(ValueError):
    """The file cannot be read at all."""


def take(pool: CouponPool, lines: Sequence[tuple[int, str]]) -> list[Remark]:
    """Take numbered codes into a pool; answers those that were refused, and why."""
    refused: list[Remark] = []
    wanted: dict[str, int] = {}
    for line, code in lines:
        why = codes.refusal(code) or (TWICE if code in wanted else "")
        if why:
            refused.append((line, code[: codes.MAX_CHARS], why))
        else:
            wanted[code] = line
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, (pool.pk, pool.brand_id, list(wanted)))
        taken = {code for (code,) in cursor.fetchall()}
    refused += [(line, code, DUPLICATE) for code, line in wanted.items() if code not in taken]
    return sorted(refused)


def execute(
    job: CouponImport, path: Path, *, stop: threading.Event | None = None
) -> Iterator[CouponImport]:
    """Take a file in, piece by piece; yields after each, with the counts so far."""
    pool = job.pool
    if pool.kind != PoolKind.IMPORTED:
        raise CouponFileError("The codes of this pool are made by Nearcast; it takes no files.")
    lines_total = job.lines_total or _count(path)
    lines = islice(_codes(path), job.lines_done, None)  # where another worker died before
    while piece := list(islice(lines, AT_ONCE)):
        if stop is not None and stop.is_set():
            return
        with transaction.atomic():
            remarks = take(pool, piece)
            counts = {
                "lines_total": lines_total,
                "lines_done": job.lines_done + len(piece),
                "taken": job.taken + len(piece) - len(remarks),
                "refused": dict(Counter(job.refused) + Counter(why for _, _, why in remarks)),
                "remarks": [*job.remarks, *remarks][:MOST_REMARKS],
                "seen_at": timezone.now(),
            }
            CouponImport.objects.filter(pk=job.pk).update(**counts)
        # Only now: `finish` writes what the job says, also after a piece that was rolled back.
        for name, value in counts.items():
            setattr(job, name, value)
        yield job


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))


def _codes(path: Path) -> Iterator[tuple[int, str]]:
    """Every line's first cell, numbered from one; a heading and empty lines are none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, cells in enumerate(csv.reader(_without_nul(file)), 1):
                code = cells[0].strip() if cells else ""
                if (line == 1 and code.lower() in _HEADINGS) or not any(cells):
                    continue
                yield line, code
    except UnicodeDecodeError as error:
        raise CouponFileError("It is no text in UTF-8: save the list as CSV or plain text.") from (
            error
        )
    except csv.Error as error:
        raise CouponFileError(f"It cannot be read as lines: {error}.") from error


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    """PostgreSQL keeps no NUL; as a blank it is refused with its line."""
    return (line.replace("\0", "\t") for line in lines)


def claim(*, now: datetime) -> CouponImport | None:
    """The next file to take in: a queued one, or one whose worker died."""
    with transaction.atomic():
        job = (
            CouponImport.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("pool")
            .exclude(file="")
            .filter(
                Q(state=BacktestState.QUEUED)
                | Q(state=BacktestState.RUNNING, seen_at__lt=now - DEAD_AFTER)
            )
            .order_by("id")
            .first()
        )
        if job is not None:
            begin(job, now=now)
    return job


def begin(job: CouponImport, *, now: datetime) -> None:
    job.state, job.seen_at = BacktestState.RUNNING, now
    job.save()


def finish(job: CouponImport, *, now: datetime, problem: str = "") -> None:
    job.state = BacktestState.FAILED if problem else BacktestState.DONE
    job.problem, job.finished_at = problem[:400], now
    job.lines_total = job.lines_done if not problem else job.lines_total
    job.save()


def run(stop: threading.Event) -> None:
    """The worker loop: files one after the other until `stop` is set."""
    while not stop.is_set():
        close_old_connections()
        job = claim(now=timezone.now())
        if job is None:
            stop.wait(LOOK_S)
            continue
        problem = ""
        try:
            for _ in execute(job, Path(job.file.path), stop=stop):
                pass
        except CouponFileError as error:
            problem = str(error)
        except Exception:  # a job must not end the loop for the others
            logger.exception("coupon import %s failed", job.pk)
            problem = "The import stopped by an error of ours; the log has the details."
        if not stop.is_set():
            finish(job, now=timezone.now(), problem=problem)
            job.file.delete()  # codes are worth money: one place that has them is enough

"""Backtests that somebody asked for: queued as rows, run one at a time, each in its own process.

A process of its own, because a trial of a million fixes would hold up whoever shared its processor
time, and because it may be killed. It judges nothing: campaigns.backtest does.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from datetime import datetime, timedelta

import msgspec
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from campaigns import backtest
from campaigns.models import Backtest, BacktestState, Campaign

logger = logging.getLogger(__name__)

LOOK_S = 1.0
TELL_EVERY_S = 1.0
GIVEN_UP_AFTER = timedelta(minutes=2)  # without a sign of life its runner is dead
NICENESS = 10
LONGEST = timedelta(days=92)


def ask(
    campaign: Campaign, *, since: datetime, until: datetime, actor: AbstractBaseUser | None
) -> Backtest:
    """Queue a trial. ValueError where the period makes no sense."""
    if not since < until:
        raise ValueError("It must end after it begins.")
    if until - since > LONGEST:
        raise ValueError(f"At most {LONGEST.days} days at once.")
    return Backtest.objects.create(
        campaign=campaign,
        since=since,
        until=until,
        asked_by_id=None if actor is None else actor.pk,
    )


def take(now: datetime) -> Backtest | None:
    """Claim the oldest that waits, or whose runner died."""
    dead = Q(state=BacktestState.RUNNING, seen_at__lt=now - GIVEN_UP_AFTER)
    with transaction.atomic():
        found = (
            Backtest.objects.filter(Q(state=BacktestState.QUEUED) | dead)
            .order_by("id")
            .select_for_update(skip_locked=True, of=("self",))
            .first()
        )
        if found is not None:
            found.state, found.seen_at, found.progress = BacktestState.RUNNING, now, 0.0
            found.save(update_fields=["state", "seen_at", "progress"])
    return found


def perform(job: Backtest) -> Backtest:
    """Run one to its end, telling the row how far it is."""
    told = timezone.now()

    def tell(done: float) -> None:
        nonlocal told
        now = timezone.now()
        if (now - told).total_seconds() >= TELL_EVERY_S:
            told = now
            Backtest.objects.filter(pk=job.pk).update(progress=done, seen_at=now)

    try:
        source = backtest.recorded(job.campaign.brand_id, job.since, job.until)
        outcome = backtest.run(job.campaign, source, since=job.since, until=job.until, tell=tell)
    # Whatever is wrong with one trial is kept with it, and the next one runs.
    except Exception as error:
        logger.exception("backtest %s failed", job.pk)
        job.state = BacktestState.FAILED
        job.problem = f"{type(error).__name__}: {error}"[:400]
    else:
        job.state, job.progress = BacktestState.DONE, 1.0
        job.report = msgspec.to_builtins(outcome)
    job.finished_at = timezone.now()
    job.save(update_fields=["state", "progress", "report", "problem", "finished_at"])
    return job


def run(stop: threading.Event) -> None:
    """Take what is queued, one after the other, until `stop`."""
    while not stop.is_set():
        job = take(timezone.now())
        if job is None:
            stop.wait(LOOK_S)
            continue
        _in_a_process(job, stop)
    connection.close()


def _in_a_process(job: Backtest, stop: threading.Event) -> None:
    command = [sys.executable, "manage.py", "backtest", "--job", str(job.pk)]
    process = subprocess.Popen(
        ["nice", "-n", str(NICENESS), *command],
        cwd=settings.BASE_DIR,
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        if stop.wait(0.2):
            process.terminate()
            process.wait(5)
            # Somebody else takes it up again, at once.
            Backtest.objects.filter(pk=job.pk, state=BacktestState.RUNNING).update(
                state=BacktestState.QUEUED
            )
            return
    if process.returncode != 0:
        Backtest.objects.filter(pk=job.pk, state=BacktestState.RUNNING).update(
            state=BacktestState.FAILED,
            problem=f"its process ended with {process.returncode}",
            finished_at=timezone.now(),
        )

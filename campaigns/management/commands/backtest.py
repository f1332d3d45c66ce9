"""`manage.py backtest CAMPAIGN`: what its draft would have done. Nothing is written or sent."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from tqdm import tqdm

from campaigns import backtest, backtests
from campaigns.backtest import Outcome, Report, Source
from campaigns.models import Backtest, Campaign
from devices.traces import Trace, TraceError, read

PLACES_SHOWN = 15
SLICE = 20_000


def instant(text: str) -> datetime:
    """An ISO 8601 argument; without an offset it is UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not ISO 8601") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class Command(BaseCommand):
    help = "Try a campaign's draft on recorded fixes and events, beside what is live."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("campaign", nargs="?", type=int, help="its id")
        parser.add_argument("--since", type=instant, help="ISO 8601; a week ago if left out")
        parser.add_argument("--until", type=instant, help="ISO 8601; now if left out")
        parser.add_argument("--trace", type=Path, help="a recorded trace instead of the history")
        parser.add_argument("--json", action="store_true", help="the whole report as JSON")
        parser.add_argument("--job", type=int, help="perform a queued one (used by the worker)")

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["job"] is not None:
            backtests.perform(Backtest.objects.select_related("campaign").get(pk=options["job"]))
            return
        campaign = (
            Campaign.objects.select_related("live_version").filter(pk=options["campaign"]).first()
        )
        if campaign is None:
            raise CommandError("there is no such campaign; give its id")
        until = options["until"] or timezone.now()
        since = options["since"] or until - timedelta(days=7)
        if options["trace"]:
            source, since, until = self._trace(campaign, options)
        else:
            source = backtest.recorded(campaign.brand_id, since, until)
        began = time.monotonic()
        with tqdm(total=1.0, file=sys.stderr, bar_format="{percentage:3.0f}% {bar}") as bar:
            outcome = backtest.run(
                campaign, source, since=since, until=until, tell=lambda done: _show(bar, done)
            )
        if options["json"]:
            self.stdout.write(msgspec.json.encode(outcome).decode())
        else:
            self.stdout.write(described(outcome, took_s=time.monotonic() - began))

    def _trace(
        self, campaign: Campaign, options: dict[str, Any]
    ) -> tuple[Source, datetime, datetime]:
        try:
            trace = read(options["trace"])
        except (OSError, TraceError) as error:
            raise CommandError(str(error)) from error
        since = options["since"] or datetime.fromtimestamp(trace.begin_ms / 1000, UTC)
        until = options["until"] or datetime.fromtimestamp(trace.end_ms / 1000 + 1, UTC)
        return source_of(trace, campaign.brand_id, since, until), since, until


def _show(bar: Any, done: float) -> None:
    bar.update(done - bar.n)


def source_of(trace: Trace, brand_id: int, since: datetime, until: datetime) -> Source:
    """A trace's tracks as so many strangers, in time order."""
    fixes = np.concatenate(
        [
            backtest.fixes_of(
                brand_id,
                np.full(len(track), number, dtype=np.int64),
                track.at_ms,
                track.lat,
                track.lng,
                track.measures.get("accuracy_m", np.full(len(track), np.nan)),
            )
            for number, track in enumerate(trace.tracks, 1)
        ]
    )
    at = fixes["recorded_ms"]
    plausible = (
        (at >= since.timestamp() * 1000)
        & (at < until.timestamp() * 1000)
        & (np.abs(fixes["lat"]) <= 90)
        & (np.abs(fixes["lng"]) <= 180)
        & ~((fixes["lat"] == 0) & (fixes["lng"] == 0))
    )
    fixes = fixes[plausible]
    fixes = fixes[np.argsort(fixes["recorded_ms"], kind="stable")]
    return Source(
        pieces=[fixes[start : start + SLICE] for start in range(0, len(fixes), SLICE)],
        device_ids=np.arange(1, len(trace.tracks) + 1, dtype=np.int64),
        count=len(fixes),
        strangers=True,
    )


def described(outcome: Outcome, *, took_s: float) -> str:
    """The report for a terminal."""
    lines = [
        (
            f"{outcome.fixes:,} fixes of {outcome.devices:,} devices and {outcome.events:,} events,"
            f" {outcome.since:%Y-%m-%d %H:%M} to {outcome.until:%Y-%m-%d %H:%M} UTC:"
            f" {outcome.transitions:,} transitions in {took_s:.1f} s. Nothing was sent."
        ),
        "",
        *_report("draft", outcome.draft),
    ]
    if outcome.live is not None:
        lines += ["", *_report("live", outcome.live), "", "Draft against live:"]
        lines += [f"  {name:28} {change:+,}" for name, change in outcome.difference.items()]
    return "\n".join(lines)


def _report(name: str, report: Report) -> list[str]:
    lines = [
        (
            f"{name}: {report.offers:,} offers to {report.devices_reached:,} devices"
            f" ({report.considered:,} considered)"
        )
    ]
    lines += [f"  {day}  {count:8,} offers" for day, count in report.per_day.items()]
    lines += [f"  {reason:28} {count:8,}" for reason, count in report.refusals.items()]
    lines += [
        f"  {place.name[:28]:28} {place.entries:8,} entries {place.offers:8,} offers"
        for place in report.places[:PLACES_SHOWN]
    ]
    rest = len(report.places) - PLACES_SHOWN
    return lines + ([f"  and {rest:,} more places"] if rest > 0 else [])

"""`manage.py crowd`: the demo city's people walk without end, each brand's app on their phones."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from brands import demo
from devices.management.commands.replay import described, said_by_phones, summary
from devices.replay import Over, Plan, Replay, Tally
from devices.traces import Trace, read

# Brand, how its phones connect, and how many of the two hundred have its app.
APPS = (("bara", Over.WS, 200), ("ponant", Over.HTTP, 80))
SPEED = 4.0  # half an hour of walks in under eight minutes: something happens while one watches
LINE_EVERY_S = 30.0


class Command(BaseCommand):
    help = "Walk the demo city's crowd through the public doors until stopped."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--url", help="of the server (the demo's)")
        parser.add_argument("--speed", type=float, default=SPEED)

    def handle(self, *_args: Any, **options: Any) -> None:
        known = demo.read()
        url = options["url"] or known.get("base_url")
        if not url or "brands" not in known:
            raise CommandError("there is no demo: `manage.py load_demo` makes it")
        folder = Path(settings.BASE_DIR) / "fixtures"
        trace, said = read(folder / "walks.csv.gz"), said_by_phones(folder / "phones.jsonl")
        replays = [
            Replay(
                Trace(tracks=trace.tracks[:phones], unreadable=0),
                Plan(
                    base_url=url.rstrip("/"),
                    app_key=known["brands"][brand]["app_key"],
                    over=over,
                    speed=options["speed"],
                    batch=10,
                    loop=True,
                    name=f"crowd-{brand}",
                    opens=0.35,
                ),
                said,
            )
            for brand, over, phones in APPS
        ]
        asyncio.run(self._run(replays))

    async def _run(self, replays: list[Replay]) -> None:
        loop = asyncio.get_running_loop()
        for replay in replays:
            self.stdout.write(described(replay))

        def stop() -> None:
            for replay in replays:
                replay.stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        showing = asyncio.create_task(self._show([replay.tally for replay in replays]))
        tallies = await asyncio.gather(*(replay.run() for replay in replays))
        showing.cancel()
        for replay, tally in zip(replays, tallies, strict=True):
            self.stdout.write(f"{replay.plan.name}\n{summary(tally, replay.trace)}")

    async def _show(self, tallies: list[Tally]) -> None:
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            self.stdout.write(
                f"{sum(t.phones for t in tallies)} phones, "
                f"{sum(t.accepted for t in tallies)} fixes accepted, "
                f"{sum(t.rejected.total() for t in tallies)} rejected, "
                f"{sum(t.offers for t in tallies)} offers heard, "
                f"{sum(t.failures.total() for t in tallies)} given up"
            )
            self.stdout.flush()

"""`manage.py replay FILE`: sends a recorded trace through the public doors."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from brands import demo
from devices.aftermath import Aftermath, look
from devices.lines import BusyError, LostError, RefusedError
from devices.replay import Over, Plan, Replay, Stamp, Tally
from devices.traces import Trace, TraceError, read

LINE_EVERY_S = 10.0


class Command(BaseCommand):
    help = "Send a trace (CSV, Parquet, gzip) through the public doors as so many phones."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("file", type=Path)
        add("--over", choices=[each.value for each in Over], default="http")
        add(
            "--speed",
            type=float,
            default=1.0,
            help="trace seconds per second; 0: as fast as the server answers",
        )
        add("--batch", type=int, help="most fixes in a request (1; 100 with --speed 0)")
        add("--loop", action="store_true", help="begin again at the end")
        add("--limit", type=int, help="only the first so many phones of the file")
        add(
            "--file-order",
            action="store_true",
            help="send each phone's rows as the file has them, late ones late",
        )
        add("--together", action="store_true", help="let all phones' fixes end at the same moment")
        add("--as-recorded", action="store_true", help="send the recorded times, not moved to now")
        add(
            "--columns",
            type=_columns,
            default={},
            metavar="PART=COLUMN,…",
            help="where the file's names do not tell: device=track_id,time=when",
        )
        add(
            "--phones",
            type=Path,
            metavar="JSONL",
            help="what each phone says when it registers, by device_id",
        )
        add("--name", help="begins the installation ids (the file's name)")
        add("--opens", type=float, default=0.0, help="share of offers people open (over ws)")
        add("--brand", help="whose keys of the demo to use")
        add("--url", help="of the server (the demo's)")
        add("--app-key", help="publishable key (the demo's)")
        add("--server-key", help="to count what came of it (the demo's)")

    def handle(self, *_args: Any, **options: Any) -> None:
        keys = _keys(options)
        speed = options["speed"]
        if speed < 0 or (speed == 0 and options["loop"]):
            raise CommandError("--speed must be positive, or 0 without --loop")
        stamp = Stamp.LIVE if speed else Stamp.SHIFTED
        plan = Plan(
            base_url=keys["url"].rstrip("/"),
            app_key=keys["app_key"],
            over=Over(options["over"]),
            speed=speed,
            stamp=Stamp.RECORDED if options["as_recorded"] else stamp,
            batch=options["batch"] or (1 if speed else 100),
            loop=options["loop"],
            name=options["name"] or options["file"].name.partition(".")[0],
            opens=options["opens"],
        )
        try:
            trace = read(options["file"], options["columns"])
        except (TraceError, OSError) as failure:
            raise CommandError(str(failure)) from failure
        if not options["file_order"]:
            trace = trace.in_time()
        if options["limit"]:
            trace = Trace(tracks=trace.tracks[: options["limit"]], unreadable=trace.unreadable)
        if options["together"]:
            trace = trace.together()
        said = said_by_phones(options["phones"]) if options["phones"] else {}
        asyncio.run(self._run(Replay(trace, plan, said), keys.get("server_key")))

    async def _run(self, replay: Replay, server_key: str | None) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, replay.stop.set)
        after = datetime.now(UTC)
        self.stdout.write(described(replay))
        showing = asyncio.create_task(self._show(replay))
        tally = await replay.run()
        showing.cancel()
        self.stdout.write(summary(tally, replay.trace))
        if not tally.phones:
            raise CommandError("no phone could register")
        if server_key:
            try:
                found = await look(replay.plan.base_url, server_key, device_ids=tally.device_ids,
                                   after=after, within_s=30)  # fmt: skip
            except (RefusedError, BusyError, LostError) as failure:
                raise CommandError(f"cannot count what came of it: {failure}") from failure
            self.stdout.write(consequences(found))

    async def _show(self, replay: Replay) -> None:
        """A bar on a terminal, else a line now and then."""
        total = None if replay.plan.loop else len(replay.trace)
        tally = replay.tally
        if sys.stderr.isatty():
            with tqdm(total=total, unit=" fixes") as bar:
                while True:
                    bar.update(tally.sent - bar.n)
                    bar.set_postfix(accepted=tally.accepted, rejected=tally.rejected.total())
                    await asyncio.sleep(0.2)
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            of = f" of {total}" if total else ""
            self.stdout.write(
                f"{tally.phones} phones, {tally.sent}{of} fixes sent, {tally.accepted} accepted, "
                f"{tally.rejected.total()} rejected, {tally.offers} offers heard"
            )
            self.stdout.flush()


def _columns(text: str) -> dict[str, str]:
    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError("write it as part=column,part=column")
    return {part.strip(): column.strip() for part, column in pairs}


def _keys(options: dict[str, Any]) -> dict[str, str]:
    """The server and its keys: as given, else the demo's."""
    known = demo.read()
    brand = options["brand"]
    if brand and brand not in known.get("brands", {}):
        raise CommandError(f"the demo has no brand {brand}; see .nearcast/demo.json")
    of_brand = known["brands"][brand] if brand else known
    keys = {
        "url": options["url"] or known.get("base_url"),
        "app_key": options["app_key"] or of_brand.get("app_key"),
        # The demo's server key says nothing of phones registered with somebody else's app key.
        "server_key": options["server_key"]
        or (None if options["app_key"] else of_brand.get("server_key")),
    }
    if not keys["url"] or not keys["app_key"]:
        raise CommandError("say --url and --app-key, or start the demo with `make run`")
    return {name: value for name, value in keys.items() if value}


def said_by_phones(path: Path) -> dict[str, dict[str, Any]]:
    """Registration bodies by the trace's device ids, from JSON lines."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return {str(row.pop("device_id")): row for row in rows}
    except (OSError, ValueError, KeyError) as failure:
        raise CommandError(f"{path}: each line is a JSON object with a device_id") from failure


def described(replay: Replay) -> str:
    """What is about to happen, in one line."""
    trace, plan = replay.trace, replay.plan
    hours = (trace.end_ms - trace.begin_ms) / 3_600_000
    pace = f"at {plan.speed:g} times its speed" if plan.speed else "as fast as it is taken"
    unreadable = f", {trace.unreadable} rows without time or place" if trace.unreadable else ""
    return (
        f"{len(trace)} fixes of {len(trace.tracks)} phones over {hours:.1f} h{unreadable}; "
        f"to {plan.base_url} over {plan.over} {pace}"
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


def summary(tally: Tally, trace: Trace) -> str:
    """What the phones saw, in lines."""
    took_s = time.monotonic() - tally.began
    lines = [
        f"phones       {tally.phones} registered, of {len(trace.tracks)}",
        f"sent         {tally.sent} fixes in {took_s:.1f} s, {tally.sent / took_s:.0f} a second",
        f"accepted     {tally.accepted}",
        f"rejected     {_listed(tally.rejected)}",
        f"answers      p50 {tally.latency_ms(0.5):.0f} ms, p99 {tally.latency_ms(0.99):.0f} ms",
        f"told to wait {tally.throttled} times, sent again {tally.reconnected} times",
    ]
    if tally.behind_s >= 1:
        lines.append(
            f"behind       up to {tally.behind_s:.1f} s: the server is slower than the trace"
        )
    if tally.failures:
        lines.append(f"given up     {_listed(tally.failures)}")
    if tally.offers:
        lines.append(f"offers       {tally.offers} heard on sockets")
    return "\n".join(lines)


def consequences(found: Aftermath) -> str:
    """What the server made of it, in lines."""
    settled = "" if found.settled else " (still under way)"
    return (
        f"transitions  {found.transitions.total()}: {_listed(found.transitions)}\n"
        f"deliveries   {found.deliveries.total()}: {_listed(found.deliveries)}{settled}"
    )

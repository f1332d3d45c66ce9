"""P7: pushes a second from one worker to an FCM at 20 ms, beside firebase-admin's own ways to send.

Every contender is a process of its own, sends the same messages over real HTTP to the same emulator
and says how fast it was, how much memory it had and how many threads it ran.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LATENCY_MS = 20
GOAL_PER_S = 1_000
DATABASE = "nearcast_bench_push"
DEVICES = 1_000
CHUNK = 500  # what fcm-django gives to one `send_each`; the most that firebase-admin takes
UP_WITHIN_S = 30
DONE_WITHIN_S = 120

Row = dict[str, Any]


def run(quick: bool) -> list[Row]:
    """Return the rows of P7."""
    count = 1_500 if quick else 12_000
    with emulator() as (url, pid):
        cpu_before_s = cpu_s(pid)
        ours = contender("sender", url, count)
        emulator_ms = (cpu_s(pid) - cpu_before_s) / count * 1_000
        threads = contender("send_each", url, count // 2)
        stock = contender("send_each_async", url, count // 2)
        worker = outbox(url, count)
    return [
        row(
            "outbox, claim to record", worker["rate"], "pushes/s", f"goal {GOAL_PER_S}", GOAL_PER_S
        ),
        row("outbox, processor time a push", worker["cpu_ms"], "ms"),
        row("outbox, memory of the worker", worker["rss_mb"], "MB"),
        row("sender alone", ours["rate"], "pushes/s", "send_each (threads)", threads["rate"]),
        row("sender alone", ours["rate"], "pushes/s", "send_each_async (httpx)", stock["rate"]),
        row(
            "processor time a push", ours["cpu_ms"], "ms", "send_each (threads)", threads["cpu_ms"]
        ),
        row(
            "processor time a push",
            ours["cpu_ms"],
            "ms",
            "send_each_async (httpx)",
            stock["cpu_ms"],
        ),
        row("memory", ours["rss_mb"], "MB", "send_each (threads)", threads["rss_mb"]),
        row("threads", ours["threads"], "threads", "send_each (threads)", threads["threads"]),
        row("emulator, one core", 1_000 / emulator_ms, "pushes/s", "needed", 2_000),
    ]


def row(case: str, value: float, unit: str, peer: str = "", peer_value: float | None = None) -> Row:
    """Return one line of the table; a ratio is ours to theirs, whichever way is better."""
    ratio = value / peer_value if peer_value else None
    return {
        "row": "P7",
        "case": case,
        "value": round(value, 2),
        "unit": unit,
        "peer": peer,
        "peer_value": None if peer_value is None else round(peer_value, 2),
        "ratio": None if ratio is None else round(ratio, 2),
    }


@contextmanager
def emulator(*, keep: int = 100) -> Iterator[tuple[str, int]]:
    """Run an emulator on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "notifications.emulator", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--latency-ms", str(LATENCY_MS), "--keep", str(keep)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + UP_WITHIN_S
        while not is_up(url):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the emulator did not start")
            time.sleep(0.05)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=1):  # noqa: S310 - our own address
            return True
    except OSError:
        return False


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Return the most memory that a process has held."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1_024


def contender(mode: str, url: str, count: int) -> dict[str, float]:
    """Run one way to send in a process of its own; what it says of itself."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.push", mode, url, str(count)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    said: dict[str, float] = json.loads(done.stdout)
    return said


def outbox(url: str, count: int) -> dict[str, float]:
    """Owe `count` pushes in a database of its own, let one worker send them, and ask the rows."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.db import connection

    settings = connection.settings_dict
    usual, settings["TEST"]["NAME"] = settings["NAME"], DATABASE
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        owe(count)
        environment = os.environ | {
            "FCM_EMULATOR_URL": url,
            "DATABASE_URL": database_url(os.environ["DATABASE_URL"]),
        }
        worker = subprocess.Popen(
            [sys.executable, "manage.py", "work", "deliver"],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            before, _ = wait_for_sent(1)
            started_s = cpu_s(worker.pid)
            sent, took_s = wait_for_sent(count)
            return {
                "rate": sent / took_s,
                "rss_mb": rss_mb(worker.pid),
                "cpu_ms": (cpu_s(worker.pid) - started_s) / (sent - before) * 1_000,
            }
        finally:
            worker.terminate()
            worker.wait()
    finally:
        connection.creation.destroy_test_db(usual, verbosity=0)


def database_url(usual: str) -> str:
    """Return the usual address with our own database's name."""
    return f"{usual.rpartition('/')[0]}/{DATABASE}"


def owe(count: int) -> None:
    """Write devices and what is owed to them."""
    from datetime import timedelta

    from django.utils import timezone

    from brands.models import Brand
    from devices.models import Device
    from notifications.outbox import NewDelivery, enqueue

    brand = Brand.objects.create(name="Bench", slug="bench")
    devices = Device.objects.bulk_create(
        Device(
            brand=brand,
            installation_id=f"installation-{number}",
            platform="android",
            push_token=f"token{number}",
            consent_location=True,
            consent_marketing=True,
        )
        for number in range(DEVICES)
    )
    now = timezone.now()
    for start in range(0, count, CHUNK):
        enqueue(
            [
                NewDelivery(
                    brand_id=brand.pk,
                    device_id=devices[number % DEVICES].pk,
                    person=str(number % DEVICES),
                    campaign_id=1,
                    campaign_name="Bench",
                    campaign_version=1,
                    moment_kind="transition",
                    moment_id=number,
                    key=f"c1:transition:{number}",
                    content={"title": "Coffee around the corner", "body": "Half price until noon"},
                    due_at=now,
                    expires_at=now + timedelta(hours=1),
                )
                for number in range(start, min(start + CHUNK, count))
            ]
        )


def wait_for_sent(count: int) -> tuple[int, float]:
    """Wait until so many are sent; how many are, and the seconds from the first to the last."""
    from django.db import connection

    until = time.monotonic() + DONE_WITHIN_S
    sent = 0
    while time.monotonic() < until:
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT count(*), extract(epoch FROM
                         max(at) - min(at - latency_ms * interval '1 ms'))
                  FROM notifications_attempt WHERE outcome = 'sent'
                """
            )
            sent, took_s = cursor.fetchone()
        if sent >= count:
            return sent, float(took_s)
        time.sleep(0.1)
    raise RuntimeError(f"only {sent} of {count} were sent within {DONE_WITHIN_S} s")


def send(mode: str, url: str, count: int) -> dict[str, float]:
    """Send `count` pushes one way, after a few to warm up."""
    warnings.simplefilter("ignore")  # firebase-admin warns at every token
    ways = {"sender": by_sender, "send_each": by_threads, "send_each_async": by_httpx}
    clock = Clock()
    most_threads = ways[mode](url, count, clock)
    return {
        "rate": count / clock.wall_s,
        "cpu_ms": clock.cpu_s / count * 1_000,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024,
        "threads": most_threads,
    }


class Clock:
    """Measures what happens between start and stop."""

    wall_s = cpu_s = 0.0

    def start(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall_s = time.perf_counter() - self._wall_s
        self.cpu_s = time.process_time() - self._cpu_s


class ThreadWatch(threading.Thread):
    """Looks every few milliseconds how many threads there are."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self.start()

    def run(self) -> None:
        while True:
            self.most = max(self.most, threading.active_count() - 1)
            time.sleep(0.005)


def by_sender(url: str, count: int, clock: Clock) -> int:
    """Our sender, as the worker uses it."""
    import uvloop

    from notifications.firebase import sender_for

    watch = ThreadWatch()

    async def go() -> None:
        sender = sender_for(emulator_url=url, credentials_path="")
        await sender.send([push(number) for number in range(50)])
        clock.start()
        for start in range(0, count, CHUNK):
            batch = [push(number) for number in range(start, min(start + CHUNK, count))]
            outcomes = await sender.send(batch)
            if any(outcome.error for outcome in outcomes):
                raise RuntimeError("a push failed")
        clock.stop()
        await sender.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(go())
    return watch.most


def by_threads(url: str, count: int, clock: Clock) -> int:
    """`messaging.send_each`, a thread for every message of a chunk: what fcm-django does."""
    from firebase_admin import messaging

    app = stock_app(url)
    watch = ThreadWatch()
    messaging.send_each([stock_message(number) for number in range(50)], app=app)
    clock.start()
    for start in range(0, count, CHUNK):
        numbers = range(start, min(start + CHUNK, count))
        answer = messaging.send_each([stock_message(number) for number in numbers], app=app)
        if answer.failure_count:
            raise RuntimeError("a push failed")
    clock.stop()
    return watch.most


def by_httpx(url: str, count: int, clock: Clock) -> int:
    """`messaging.send_each_async` as it comes."""
    import uvloop
    from firebase_admin import messaging

    app = stock_app(url)
    watch = ThreadWatch()

    async def go() -> None:
        await messaging.send_each_async([stock_message(number) for number in range(50)], app=app)
        clock.start()
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            answer = await messaging.send_each_async(
                [stock_message(number) for number in numbers], app=app
            )
            if answer.failure_count:
                raise RuntimeError("a push failed")
        clock.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(go())
    return watch.most


def stock_app(url: str) -> Any:
    """firebase-admin as it comes, but for the address; with the pool that it gives to Google's."""
    import firebase_admin
    import requests
    from firebase_admin import messaging

    from notifications.firebase import EMULATOR_PROJECT, EmulatorCredential

    app = firebase_admin.initialize_app(EmulatorCredential(url), {"projectId": EMULATOR_PROJECT})
    service = messaging._get_messaging_service(app)
    service._fcm_url = service._fcm_url.replace("https://fcm.googleapis.com", url)
    service._client.session.mount(
        url, requests.adapters.HTTPAdapter(pool_connections=100, pool_maxsize=100)
    )
    return app


def push(number: int) -> Any:
    from notifications.push import Push

    return Push(
        delivery_id=number,
        token=f"token{number}",
        title="Coffee around the corner",
        body="Half price until noon",
        ttl_s=3_600,
        collapse_key=f"nc{number}",
    )


def stock_message(number: int) -> Any:
    from notifications.firebase import message

    return message(push(number))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", nargs="?", default="all")
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("count", nargs="?", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    if asked.mode == "all":
        for line in run(asked.quick):
            print(json.dumps(line))
    else:
        print(json.dumps(send(asked.mode, asked.url, asked.count)))

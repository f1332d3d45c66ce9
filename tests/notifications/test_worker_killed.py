"""A worker that is really killed, between the provider's yes and our record of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from django.db import connection
from django.utils import timezone

from notifications.models import Attempt, Delivery
from tests.factories import make_brand, make_device
from tests.notifications.conftest import RunningEmulator
from tests.notifications.rows import make_delivery

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import threading
import django
django.setup()
from notifications import delivering
delivering.run(threading.Event())
"""


def database_url() -> str:
    """The test's own database, as a worker's environment names it."""
    named = connection.settings_dict
    user = quote(named["USER"], safe="")
    password = quote(named["PASSWORD"], safe="")
    host = quote(named["HOST"], safe="")
    at = f"{user}:{password}@{host}:{named['PORT']}" if user or host else ""
    return f"postgis://{at}/{named['NAME']}"


@contextmanager
def worker(emulator: RunningEmulator) -> Iterator[subprocess.Popen[bytes]]:
    environment = {"DATABASE_URL": database_url(), "FCM_EMULATOR_URL": emulator.url}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], cwd=ROOT, env=os.environ | environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], object], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.django_db(transaction=True)
def test_it_loses_nothing_when_a_worker_is_killed_and_repeats_under_the_same_id(
    emulator: RunningEmulator,
) -> None:
    emulator.configure(slow_ms=5_000)
    device = make_device(make_brand(), push_token="slow-phone")
    now = timezone.now()
    delivery = make_delivery(
        device, created_at=now, due_at=now, expires_at=now + timedelta(hours=1)
    )
    with worker(emulator) as first:
        until(lambda: emulator.stats()["in_flight"] == 1)  # the provider has it
        first.send_signal(signal.SIGKILL)
    assert Delivery.objects.get().state == "sending"
    emulator.configure(slow_ms=0)
    Delivery.objects.update(lease_until=timezone.now())  # it runs out
    with worker(emulator):
        until(lambda: Delivery.objects.get().state == "sent")
    until(lambda: emulator.stats()["in_flight"] == 0)  # remembered once it is answered

    arrived = [message["message"] for message in emulator.messages("slow-phone")]
    assert [message["data"]["delivery_id"] for message in arrived] == [str(delivery.pk)] * 2
    assert {message["android"]["collapse_key"] for message in arrived} == {f"nc{delivery.pk}"}
    assert Delivery.objects.get().attempt_count == 2
    assert Attempt.objects.count() == 1  # of the first, nobody lived to tell

"""The loop that delivers: woken, several batches at a time, stopped, cut off and back again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from devices.models import Device
from notifications import delivering, outbox
from notifications.courier import Courier
from notifications.delivering import Airport, deliver_once
from notifications.firebase import sender_for
from notifications.models import Delivery, DeliveryState
from tests.factories import make_brand, make_device
from tests.notifications.conftest import RunningEmulator
from tests.notifications.rows import (
    CONTENT,
    FakeSender,
    make_delivery,
    new_delivery,
    the_delivery,
)
from tests.waiting import somebody_waits_for_us

pytestmark = pytest.mark.django_db


def until(condition: Callable[[], bool], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def loop(courier: Courier) -> Iterator[threading.Event]:
    """The worker loop on a thread, as `manage.py work` runs it."""
    stop = threading.Event()
    with running(courier, stop):
        yield stop


@contextlib.contextmanager
def running(courier: Courier, stop: threading.Event) -> Iterator[None]:
    """The loop as long as the block lasts, which may stop it by itself."""
    with contextlib.closing(Airport(courier)) as airport:
        thread = threading.Thread(target=airport.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            airport._ring_the_bell()
            thread.join(timeout=60)
    assert not thread.is_alive()


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the loop has looked and sleeps; ask for it before the loop. It sleeps for long."""
    sleeps, wait = threading.Event(), Airport._wait

    def noted(airport: Airport) -> None:
        sleeps.set()
        wait(airport)

    monkeypatch.setattr(Airport, "_wait", noted)
    monkeypatch.setattr(delivering, "NAP_S", 600.0)
    return sleeps


def fresh(**fields: Any) -> dict[str, Any]:
    now = timezone.now()
    return {"created_at": now, "due_at": now, "expires_at": now + timedelta(hours=2)} | fields


@pytest.mark.django_db(transaction=True)
def test_it_is_woken_by_what_is_enqueued(
    asleep: threading.Event, loop: threading.Event, sender: FakeSender
) -> None:
    device = make_device(make_brand())
    assert asleep.wait(60)
    make_delivery(device, **fresh())
    until(lambda: the_delivery().state == "sent")

    assert len(sender.sent) == 1


@pytest.mark.django_db(transaction=True)
def test_it_sends_what_comes_due_by_the_clock(loop: threading.Event, sender: FakeSender) -> None:
    due_at = timezone.now() + timedelta(seconds=0.3)
    make_delivery(make_device(make_brand()), **fresh(due_at=due_at))
    until(lambda: the_delivery().state == "sent")

    sent_at = the_delivery().sent_at
    assert sent_at is not None
    assert sent_at >= due_at


@pytest.mark.django_db(transaction=True)
def test_it_works_through_a_backlog_with_several_batches_in_the_air(
    loop: threading.Event, sender: FakeSender
) -> None:
    sender.may_answer.clear()
    device = make_device(make_brand())
    outbox.enqueue([new_delivery(device, **fresh()) for _ in range(850)])
    until(lambda: sender.batches == delivering.BATCHES_IN_THE_AIR)
    sender.may_answer.set()
    until(lambda: not Delivery.objects.exclude(state="sent").exists())

    assert sender.most_batches == delivering.BATCHES_IN_THE_AIR
    assert sorted(push.delivery_id for push in sender.sent) == sorted(
        Delivery.objects.values_list("pk", flat=True)
    )


@pytest.mark.django_db(transaction=True)
def test_it_sends_what_is_owed_while_what_landed_waits_to_be_recorded(
    loop: threading.Event, sender: FakeSender
) -> None:
    sender.may_answer.clear()
    device = make_device(make_brand())
    first = make_delivery(device, **fresh())
    until(lambda: the_delivery().state == "sending")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM notifications_delivery WHERE id = %s FOR UPDATE", [first.pk])
        sender.may_answer.set()
        until(somebody_waits_for_us)
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(_owe_another, device).result()
        until(lambda: len(sender.sent) == 2)
        cursor.execute("SELECT state FROM notifications_delivery WHERE id = %s", [first.pk])
        assert cursor.fetchone() == ("sending",)
    until(lambda: not Delivery.objects.exclude(state="sent").exists())


def _owe_another(device: Device) -> None:
    try:
        outbox.enqueue([new_delivery(device, **fresh())])
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_it_records_what_is_in_the_air_before_it_stops(
    courier: Courier, sender: FakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "STOP_WITHIN_S", 60.0)
    sender.may_answer.clear()
    make_delivery(make_device(make_brand()), **fresh())
    stop = threading.Event()
    with running(courier, stop):
        until(lambda: the_delivery().state == "sending")
        stop.set()
        sender.may_answer.set()

    assert the_delivery().state == "sent"


@pytest.mark.django_db(transaction=True)
def test_it_ends_with_the_error_of_its_recorder(
    courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_flights: Any, now: datetime) -> None:
        raise ArithmeticError("spoilt")

    monkeypatch.setattr(delivering, "land", broken)
    make_delivery(make_device(make_brand()), **fresh())
    with ThreadPoolExecutor(1) as elsewhere, contextlib.closing(Airport(courier)) as airport:
        ended = elsewhere.submit(airport.run, threading.Event())
        with pytest.raises(RuntimeError, match="the recorder died") as raised:
            ended.result(timeout=60)

    assert isinstance(raised.value.__cause__, ArithmeticError)


@pytest.mark.django_db(transaction=True)
def test_it_leaves_no_recorder_behind_when_it_fails(
    courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_anything: Any, **_named: Any) -> None:
        raise ArithmeticError("spoilt")

    monkeypatch.setattr(delivering, "depart", broken)
    with contextlib.closing(Airport(courier)) as airport, pytest.raises(ArithmeticError):
        airport.run(threading.Event())

    assert "recorder" not in {thread.name for thread in threading.enumerate()}


def connected() -> list[int]:
    """Who else is connected to this database, by process."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            " AND backend_type = 'client backend'"
        )
        return [pid for (pid,) in cursor.fetchall()]


@pytest.fixture
def strangers() -> list[int]:
    """Connections that other tests left open; ask for it before the loop."""
    return connected()


@pytest.mark.django_db(transaction=True)
def test_it_comes_back_when_its_connection_is_cut(
    strangers: list[int], loop: threading.Event, sender: FakeSender
) -> None:
    device = make_device(make_brand())
    until(lambda: bool(set(connected()) - set(strangers)))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid",
            (list(set(connected()) - set(strangers)),),
        )
    make_delivery(device, **fresh())
    until(lambda: the_delivery().state == "sent")

    assert len(sender.sent) == 1


@pytest.mark.django_db(transaction=True)
def test_it_takes_every_answer_of_fcm_from_the_wire_to_the_rows(
    emulator: RunningEmulator,
) -> None:
    brand = make_brand()
    expected = {
        "good-1": ("sent", "", True),
        "slow-1": ("sent", "", True),
        "unregistered-1": ("sent", "token_gone: UNREGISTERED", False),
        "mismatch-1": ("sent", "token_gone: SENDER_ID_MISMATCH", False),
        "invalid-1": ("sent", "token_gone: INVALID_TOKEN", False),
        "quota-1": ("pending", "QUOTA_EXCEEDED", True),
        "unavailable-1": ("pending", "UNAVAILABLE", True),
        "internal-1": ("pending", "INTERNAL", True),
        "thirdparty-1": ("pending", "THIRD_PARTY_AUTH_ERROR", True),
        "big-1": ("failed", "rejected: PAYLOAD_TOO_BIG", True),
    }
    devices = {token: make_device(brand, push_token=token) for token in expected}
    now = timezone.now()
    outbox.enqueue(
        [
            new_delivery(
                device,
                **fresh(content=CONTENT | ({"body": "x" * 5_000} if token == "big-1" else {})),
            )
            for token, device in devices.items()
        ]
    )
    make_sender = partial(sender_for, emulator_url=emulator.url, credentials_path="")
    with Courier(make_sender) as courier:
        assert deliver_once(courier, now=now + timedelta(seconds=1)) == len(expected)

    found = {}
    for token, device in devices.items():
        row = Delivery.objects.get(device_id=device.pk)
        device.refresh_from_db()
        found[token] = (row.state, row.reason, device.push_token == token)
    assert found == expected
    unavailable = Delivery.objects.get(device_id=devices["unavailable-1"].pk)
    assert unavailable.due_at >= now + timedelta(seconds=10)
    quota = Delivery.objects.get(device_id=devices["quota-1"].pk)
    assert quota.due_at >= now + timedelta(seconds=60)
    [arrived] = emulator.messages("good-1")
    good = Delivery.objects.get(device_id=devices["good-1"].pk)
    assert arrived["message"]["data"]["delivery_id"] == str(good.pk)
    assert good.attempts.get().provider_message_id == arrived["name"]
    assert DeliveryState(good.state) is DeliveryState.SENT

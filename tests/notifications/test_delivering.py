"""From a due row to a recorded push: every answer of FCM, every gate, every crash."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from devices import registration
from devices.models import Device, Presence
from notifications import delivering, outbox
from notifications.courier import Courier
from notifications.delivering import LEASE_S, deliver_once
from notifications.firebase import sender_for
from notifications.gates import Hold, Stop, Subject
from notifications.models import Attempt, Delivery, DeliveryState
from notifications.offers import current_offers
from notifications.push import Outcome, PushErrorKind
from notifications.retries import MAX_ATTEMPTS
from tests.factories import make_brand, make_device
from tests.notifications.conftest import RunningEmulator
from tests.notifications.rows import (
    CONTENT,
    NOON,
    FakeSender,
    failing,
    make_delivery,
    new_delivery,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def above() -> Iterator[Callable[[Any], None]]:
    """Add a gate for the length of a test."""
    before = list(delivering._gates)
    yield delivering.add_gate
    delivering._gates[:] = before


def deliver(courier: Courier, **later: float) -> int:
    return deliver_once(courier, now=NOON + timedelta(**later))


def the_delivery() -> Delivery:
    return Delivery.objects.get()


def test_it_sends_what_is_due_once(courier: Courier, sender: FakeSender) -> None:
    device = make_device(make_brand())
    make_delivery(device)

    assert deliver(courier) == 1
    assert deliver(courier) == 0

    [push] = sender.sent
    delivery = the_delivery()
    attempt = Attempt.objects.get()
    assert (push.token, push.title, push.body) == (device.push_token, *CONTENT.values())
    assert (delivery.state, delivery.attempt_count, delivery.channel) == ("sent", 1, "push")
    assert delivery.sent_at is not None
    assert (attempt.outcome, attempt.provider_message_id) == (
        "sent",
        f"projects/x/{delivery.pk}",
    )


def test_it_carries_all_of_the_content(courier: Courier, sender: FakeSender) -> None:
    make_delivery(
        make_device(make_brand()),
        content=CONTENT
        | {
            "deep_link": "app://offer",
            "image_url": "https://example.org/a.png",
            "data": {"sku": "42"},
            "push": {"urgency": "normal", "android_channel_id": "offers"},
        },
    )
    deliver(courier)

    [push] = sender.sent
    assert push.deep_link == "app://offer"
    assert push.image_url == "https://example.org/a.png"
    assert push.data == {"sku": "42"}
    assert (push.options.urgency, push.options.android_channel_id) == ("normal", "offers")


@pytest.mark.parametrize(
    ("push", "minutes_left", "ttl_s"),
    [
        ({}, 30, 1800),
        ({"ttl_s": 60}, 30, 60),
        # never longer than the offer itself
        ({"ttl_s": 86_400}, 30, 1800),
        ({"ttl_s": 0}, 30, 0),
        # nor than FCM keeps anything
        ({}, 60 * 24 * 60, 2_419_200),
    ],
)
def test_it_gives_a_push_no_longer_life_than_its_offer(
    courier: Courier, sender: FakeSender, push: dict[str, int], minutes_left: int, ttl_s: int
) -> None:
    make_delivery(
        make_device(make_brand()),
        content=CONTENT | {"push": push},
        expires_at=NOON + timedelta(minutes=minutes_left),
    )
    deliver(courier)

    assert sender.sent[0].ttl_s == ttl_s


def test_it_collapses_by_delivery_unless_the_campaign_says_by_what(
    courier: Courier, sender: FakeSender
) -> None:
    device = make_device(make_brand())
    plain = make_delivery(device)
    make_delivery(device, content=CONTENT | {"push": {"collapse_key": "offer-of-the-day"}})
    deliver(courier)

    assert [push.collapse_key for push in sender.sent] == [f"nc{plain.pk}", "offer-of-the-day"]


def test_it_asks_the_same_number_of_questions_for_one_and_for_a_hundred(
    courier: Courier, django_assert_num_queries: Any
) -> None:
    brand = make_brand()
    outbox.enqueue(
        [
            new_delivery(make_device(brand), gates={"only_while_inside": 7} if odd else {})
            for odd in (0, 1) * 50
        ]
    )

    # claim, inside, devices, stopped campaigns, charges given back, coupons held, and twice
    # (refused, sent) begin, lock, settle, attempts, commit; of the refused also charge, coupon
    # and the word to their decisions
    with django_assert_num_queries(18):
        assert deliver(courier) == 100


@pytest.mark.parametrize(
    ("outcome", "state", "reason", "due_in_s"),
    [
        (Outcome(message_id="projects/x/1"), "sent", "", None),
        (failing(PushErrorKind.TRANSIENT, "UNAVAILABLE"), "pending", "UNAVAILABLE", 10),
        (
            failing(PushErrorKind.TRANSIENT, "UNAVAILABLE", retry_after_s=120.0),
            "pending",
            "UNAVAILABLE",
            120,
        ),
        (
            failing(PushErrorKind.TRANSIENT, "QUOTA_EXCEEDED", retry_after_s=60.0),
            "pending",
            "QUOTA_EXCEEDED",
            60,
        ),
        (
            failing(PushErrorKind.REJECTED, "PAYLOAD_TOO_BIG"),
            "failed",
            "rejected: PAYLOAD_TOO_BIG",
            None,
        ),
        (
            failing(PushErrorKind.TOKEN_GONE, "UNREGISTERED"),
            "failed",
            "token_gone: UNREGISTERED",
            None,
        ),
        # the answer comes, and says later than the offer lives
        (
            failing(PushErrorKind.TRANSIENT, "UNAVAILABLE", retry_after_s=9_000.0),
            "expired",
            "expired: UNAVAILABLE",
            None,
        ),
    ],
)
def test_it_does_what_the_answer_asks(
    courier: Courier,
    sender: FakeSender,
    outcome: Outcome,
    state: str,
    reason: str,
    due_in_s: float | None,
) -> None:
    device = make_device(make_brand())
    make_delivery(device)
    assert device.push_token
    sender.answers[device.push_token] = outcome
    deliver(courier)

    delivery = the_delivery()
    assert (delivery.state, delivery.reason) == (state, reason)
    assert Attempt.objects.get().outcome == (outcome.error.kind if outcome.error else "sent")
    if due_in_s is not None:
        waits_s = (delivery.due_at - NOON).total_seconds()
        assert due_in_s <= waits_s <= due_in_s * 1.25 + 1


def test_it_tries_again_until_it_is_taken(courier: Courier, sender: FakeSender) -> None:
    device = make_device(make_brand())
    make_delivery(device)
    assert device.push_token
    sender.answers[device.push_token] = failing(PushErrorKind.TRANSIENT)
    deliver(courier)
    assert deliver(courier, seconds=9) == 0
    sender.answers.clear()
    deliver(courier, seconds=20)

    assert the_delivery().state == "sent"
    assert list(Attempt.objects.values_list("outcome", flat=True)) == ["transient", "sent"]
    # the same id and the same key: what the phone has already is replaced or dropped
    assert len({(push.delivery_id, push.collapse_key) for push in sender.sent}) == 1


def test_it_gives_up_in_the_end(courier: Courier, sender: FakeSender) -> None:
    device = make_device(make_brand())
    make_delivery(device, expires_at=NOON + timedelta(days=7))
    assert device.push_token
    sender.answers[device.push_token] = failing(PushErrorKind.TRANSIENT)
    for hour in range(MAX_ATTEMPTS + 3):
        deliver(courier, hours=hour)

    assert the_delivery().state == "failed"
    assert the_delivery().reason == "exhausted: TEST"
    assert Attempt.objects.count() == MAX_ATTEMPTS


@pytest.mark.parametrize(
    ("kind", "keeps"),
    [
        (PushErrorKind.TRANSIENT, True),
        (PushErrorKind.REJECTED, True),  # a bad payload never kills a token
        (PushErrorKind.TOKEN_GONE, False),
    ],
)
def test_it_takes_only_a_dead_token_from_a_device(
    courier: Courier, sender: FakeSender, kind: PushErrorKind, keeps: bool
) -> None:
    device = make_device(make_brand())
    make_delivery(device)
    token = device.push_token
    assert token
    sender.answers[token] = failing(kind)
    deliver(courier)

    device.refresh_from_db()
    assert device.push_token == (token if keeps else None)
    assert (device.push_token_gone_at is None) is keeps


def test_it_leaves_the_token_that_the_device_got_meanwhile(
    courier: Courier, sender: FakeSender
) -> None:
    device = make_device(make_brand())
    make_delivery(device)
    assert device.push_token

    def gone(_push: Any) -> Outcome:
        return failing(PushErrorKind.TOKEN_GONE, "UNREGISTERED")

    sender.answers[device.push_token] = gone
    claimed, flight = delivering.depart(courier, now=NOON)
    registration.change(device.pk, {"push_token": "newer"}, now=NOON)
    assert flight
    delivering.land(flight, now=NOON)

    device.refresh_from_db()
    assert claimed == 1
    assert device.push_token == "newer"
    assert device.push_token_gone_at is None


def test_it_leaves_the_token_to_the_device_that_has_it_now(
    courier: Courier, sender: FakeSender
) -> None:
    brand = make_brand()
    old, new = make_device(brand), make_device(brand)
    make_delivery(old)
    token = old.push_token
    assert token
    sender.answers[token] = failing(PushErrorKind.TOKEN_GONE, "UNREGISTERED")
    _, flight = delivering.depart(courier, now=NOON)
    registration.change(new.pk, {"push_token": token}, now=NOON)
    assert flight
    delivering.land(flight, now=NOON)

    new.refresh_from_db()
    assert new.push_token == token


def test_it_pushes_again_when_the_device_reports_a_token(
    courier: Courier, sender: FakeSender
) -> None:
    device = make_device(make_brand())
    make_delivery(device)
    assert device.push_token
    sender.answers[device.push_token] = failing(PushErrorKind.TOKEN_GONE)
    deliver(courier)
    registration.change(device.pk, {"push_token": "revived"}, now=NOON)
    second = make_delivery(device)
    deliver(courier)

    second.refresh_from_db()
    assert second.state == "sent"
    assert sender.sent[-1].token == "revived"


def test_it_leaves_an_offer_without_token_to_the_inbox(
    courier: Courier, sender: FakeSender
) -> None:
    device = make_device(make_brand(), push_token=None)
    delivery = make_delivery(device)
    deliver(courier)

    delivery.refresh_from_db()
    assert sender.sent == []
    assert (delivery.state, delivery.channel, delivery.reason) == (
        "sent",
        "inbox",
        "no_push_token",
    )
    [offer] = current_offers([device.pk], now=NOON)[device.pk]
    assert offer.delivery_id == delivery.pk


@pytest.mark.parametrize(
    ("changed", "fields", "reason"),
    [
        ({"consent_location": False}, {}, "no_location_consent"),
        ({"consent_marketing": False}, {}, "no_marketing_consent"),
        ({}, {"gates": {"only_while_inside": 7}}, "left_the_geofence"),
        (
            {"timezone": "UTC"},
            {"gates": {"quiet_hours": {"from": "11:00", "to": "13:00", "policy": "drop"}}},
            "quiet_hours",
        ),
    ],
)
def test_it_suppresses_what_is_no_longer_right_and_says_why(
    courier: Courier,
    sender: FakeSender,
    changed: dict[str, Any],
    fields: dict[str, Any],
    reason: str,
) -> None:
    device = make_device(make_brand())
    make_delivery(device, **fields)
    Device.objects.filter(pk=device.pk).update(**changed)
    deliver(courier)

    delivery = the_delivery()
    assert (delivery.state, delivery.reason) == ("suppressed", reason)
    assert delivery.attempt_count == 0
    assert sender.sent == []
    assert not Attempt.objects.exists()


@pytest.mark.parametrize(
    ("state", "sent"), [("inside", True), ("leaving", True), ("entering", False)]
)
def test_it_sends_while_inside_is_what_we_believe(courier: Courier, state: str, sent: bool) -> None:
    device = make_device(make_brand())
    make_delivery(device, gates={"only_while_inside": 7})
    Presence.objects.create(
        device_id=device.pk,
        geofence_id=7,
        brand_id=device.brand_id,
        state=state,
        visit_id=1,
        entered_at=NOON,
        since_at=NOON,
        due_at=NOON,
    )
    deliver(courier)

    assert the_delivery().state == ("sent" if sent else "suppressed")


def test_it_holds_through_quiet_hours_and_sends_at_their_end(
    courier: Courier, sender: FakeSender
) -> None:
    make_delivery(
        make_device(make_brand(), timezone="UTC"),
        gates={"quiet_hours": {"from": "11:00", "to": "12:30", "policy": "hold"}},
    )
    deliver(courier)
    assert the_delivery().due_at == NOON + timedelta(minutes=30)
    assert (the_delivery().reason, the_delivery().attempt_count) == ("quiet_hours", 0)
    deliver(courier, minutes=29)
    assert sender.sent == []
    deliver(courier, minutes=30)

    assert the_delivery().state == "sent"


def test_it_expires_what_waited_too_long(courier: Courier, sender: FakeSender) -> None:
    make_delivery(make_device(make_brand()))
    deliver(courier, hours=2)

    assert the_delivery().state == "expired"
    assert sender.sent == []


def test_it_sends_nothing_to_a_device_that_was_erased(courier: Courier, sender: FakeSender) -> None:
    device = make_device(make_brand())
    make_delivery(device)
    Device.objects.filter(pk=device.pk).delete()
    deliver(courier)

    assert (the_delivery().state, the_delivery().reason) == ("suppressed", "device_gone")
    assert sender.sent == []


def test_it_obeys_a_gate_of_an_app_above(
    courier: Courier, sender: FakeSender, above: Callable[[Any], None]
) -> None:
    device = make_device(make_brand())
    stopped, held, free = (make_delivery(device) for _ in range(3))

    def gate(deliveries: Sequence[Subject], /, *, now: datetime) -> Mapping[int, Hold | Stop]:
        assert len(deliveries) == 3
        until = now + timedelta(minutes=5)
        return {stopped.pk: Stop(reason="campaign_paused"), held.pk: Hold(until=until, reason="w")}

    above(gate)
    deliver(courier)

    states = dict(Delivery.objects.values_list("pk", "state"))
    assert states == {stopped.pk: "suppressed", held.pk: "pending", free.pk: "sent"}
    assert Delivery.objects.get(pk=stopped.pk).reason == "campaign_paused"


def test_it_waits_with_a_batch_whose_gate_fails(
    courier: Courier, sender: FakeSender, above: Callable[[Any], None]
) -> None:
    make_delivery(make_device(make_brand()))

    def gate(_deliveries: Sequence[Subject], /, *, now: datetime) -> Mapping[int, Hold | Stop]:
        raise RuntimeError("the campaign's rows are gone")

    above(gate)
    deliver(courier)

    assert sender.sent == []
    assert (the_delivery().state, the_delivery().reason) == ("pending", "gate_failed")
    assert the_delivery().due_at == NOON + timedelta(minutes=1)


@pytest.mark.parametrize(
    "broken",
    [
        {"content": {"title": "no body"}},
        {"content": []},
        {"gates": {"only_when_raining": True}},
        {"gates": {"quiet_hours": {"from": "late", "to": "07:00"}}},
    ],
)
def test_it_parks_a_row_that_it_cannot_read_and_sends_the_rest(
    courier: Courier, sender: FakeSender, broken: dict[str, Any]
) -> None:
    device = make_device(make_brand())
    good, bad = make_delivery(device), make_delivery(device)
    Delivery.objects.filter(pk=bad.pk).update(**broken)
    deliver(courier)

    bad.refresh_from_db()
    good.refresh_from_db()
    assert (bad.state, good.state) == ("parked", "sent")
    assert bad.reason
    assert len(sender.sent) == 1


def test_it_parks_the_row_whose_result_the_database_refuses(
    courier: Courier, sender: FakeSender
) -> None:
    brand = make_brand()
    good, bad = make_device(brand), make_device(brand)
    for device in (good, bad):
        make_delivery(device)
    assert bad.push_token
    sender.answers[bad.push_token] = replace(Outcome(message_id="x"), latency_ms=2**40)
    deliver(courier)

    states = dict(Delivery.objects.values_list("device_id", "state"))
    assert states == {good.pk: "sent", bad.pk: "parked"}


def test_it_parks_a_row_that_kills_every_worker_that_takes_it(
    courier: Courier, sender: FakeSender
) -> None:
    make_delivery(make_device(make_brand()), expires_at=NOON + timedelta(days=7))
    for times in range(MAX_ATTEMPTS):
        assert outbox.claim(limit=1, lease_s=LEASE_S, now=NOON + timedelta(hours=times))
    deliver(courier, days=1)

    assert the_delivery().state == "parked"
    assert "without an answer" in the_delivery().reason
    assert sender.sent == []


def test_it_sends_again_what_a_killed_worker_may_have_sent(
    courier: Courier, sender: FakeSender
) -> None:
    """The one honest gap: the provider said yes, and the worker died before it could write so."""
    make_delivery(make_device(make_brand()))
    _, flight = delivering.depart(courier, now=NOON)
    assert flight
    flight.answer.result()  # taken by the provider; and here the worker is killed
    assert deliver(courier, seconds=LEASE_S - 1) == 0
    assert deliver(courier, seconds=LEASE_S) == 1

    first, second = sender.sent
    assert (first.delivery_id, first.collapse_key) == (second.delivery_id, second.collapse_key)
    assert the_delivery().state == "sent"
    assert the_delivery().attempt_count == 2


def test_it_leaves_to_its_lease_what_was_lost_on_the_way(
    courier: Courier, sender: FakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_delivery(make_device(make_brand()))

    async def broken(_pushes: Any) -> list[Outcome]:
        raise RuntimeError("the sender broke")

    with monkeypatch.context() as patched:
        patched.setattr(sender, "send", broken)
        deliver(courier)
    assert the_delivery().state == "sending"
    deliver(courier, seconds=LEASE_S)

    assert the_delivery().state == "sent"


def test_it_closes_its_sender() -> None:
    sender = FakeSender()
    with Courier(lambda: sender):
        assert not sender.closed

    assert sender.closed


def test_it_says_at_once_when_no_sender_can_be_made() -> None:
    def broken() -> FakeSender:
        raise ValueError("no credentials")

    with pytest.raises(ValueError, match="no credentials"), Courier(broken):
        pass


def until(condition: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def loop(courier: Courier) -> Iterator[threading.Event]:
    """The worker loop on a thread, as `manage.py work` runs it."""
    stop = threading.Event()
    airport = delivering.Airport(courier)
    thread = threading.Thread(target=airport.run, args=(stop,))
    thread.start()
    yield stop
    stop.set()
    thread.join(timeout=15)
    airport.close()
    assert not thread.is_alive()


def fresh(**fields: Any) -> dict[str, Any]:
    now = timezone.now()
    return {"created_at": now, "due_at": now, "expires_at": now + timedelta(hours=2)} | fields


@pytest.mark.django_db(transaction=True)
def test_it_is_woken_by_what_is_enqueued(
    monkeypatch: pytest.MonkeyPatch, loop: threading.Event, sender: FakeSender
) -> None:
    device = make_device(make_brand())
    monkeypatch.setattr(delivering, "NAP_S", 60.0)  # it will not find it by looking
    until(is_listening)
    make_delivery(device, **fresh())
    until(lambda: the_delivery().state == "sent")
    make_delivery(device, **fresh())
    until(lambda: not Delivery.objects.exclude(state="sent").exists())

    assert len(sender.sent) == 2
    loop.set()
    outbox.wake()


def is_listening() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND datname = current_database() AND state = 'idle'"
        )
        return bool(cursor.fetchone()[0])


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
    sender.pause_s = 0.2
    device = make_device(make_brand())
    outbox.enqueue([new_delivery(device, **fresh()) for _ in range(550)])
    until(lambda: not Delivery.objects.exclude(state="sent").exists())

    assert 1 < sender.most_batches <= delivering.BATCHES_IN_THE_AIR
    assert sorted(push.delivery_id for push in sender.sent) == sorted(
        Delivery.objects.values_list("pk", flat=True)
    )


@pytest.mark.django_db(transaction=True)
def test_it_sends_what_is_owed_while_what_landed_waits_to_be_recorded(
    loop: threading.Event, sender: FakeSender
) -> None:
    sender.pause_s = 0.3
    device = make_device(make_brand())
    first = make_delivery(device, **fresh())
    until(lambda: the_delivery().state == "sending")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM notifications_delivery WHERE id = %s FOR UPDATE", [first.pk])
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


def somebody_waits_for_us() -> bool:
    """Whether another connection wants a row that this one has locked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks"
            " WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_it_records_what_is_in_the_air_before_it_stops(
    courier: Courier, sender: FakeSender
) -> None:
    sender.pause_s = 0.5
    make_delivery(make_device(make_brand()), **fresh())
    stop = threading.Event()
    airport = delivering.Airport(courier)
    thread = threading.Thread(target=airport.run, args=(stop,))
    thread.start()
    until(lambda: the_delivery().state == "sending")
    stop.set()
    thread.join(timeout=10)
    airport.close()

    assert the_delivery().state == "sent"


def connected() -> list[int]:
    """Who else is connected to this database, by process."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
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
        "unregistered-1": ("failed", "token_gone: UNREGISTERED", False),
        "mismatch-1": ("failed", "token_gone: SENDER_ID_MISMATCH", False),
        "invalid-1": ("failed", "token_gone: INVALID_TOKEN", False),
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

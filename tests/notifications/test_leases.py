"""What is being sent: claimed by one, recorded by whoever holds it, told to those who wait."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from notifications import leases, outbox
from notifications.delivering import LEASE_S
from notifications.leases import Result, Tried
from notifications.models import (
    Attempt,
    Delivery,
    DeliveryState,
)
from tests.factories import make_brand, make_device
from tests.notifications.rows import NOON, claim, make_delivery, new_delivery

pytestmark = pytest.mark.django_db
SENT = Tried(at=NOON, outcome="sent", message_id="projects/x/1", latency_ms=20)
BUSY = Tried(at=NOON, outcome="transient", error="UNAVAILABLE: try later")


def test_it_claims_what_is_due_earliest_first_and_nothing_else() -> None:
    device = make_device(make_brand())
    later = make_delivery(device, due_at=NOON + timedelta(minutes=1))
    second = make_delivery(device, due_at=NOON)
    first = make_delivery(device, due_at=NOON - timedelta(minutes=1))
    for state in set(DeliveryState) - {DeliveryState.PENDING, DeliveryState.SENDING}:
        done = make_delivery(device)
        Delivery.objects.filter(pk=done.pk).update(state=state)

    assert [one.id for one in claim()] == [first.pk, second.pk]
    assert [one.id for one in claim(minutes=1)] == [later.pk]


def test_it_claims_no_more_than_asked() -> None:
    device = make_device(make_brand())
    for _ in range(5):
        make_delivery(device)

    assert [len(claim(limit=2)) for _ in range(4)] == [2, 2, 1, 0]


def test_it_gives_nobody_a_leased_row_until_the_lease_runs_out() -> None:
    delivery = make_delivery(make_device(make_brand()))
    [first] = claim()

    assert claim(seconds=LEASE_S - 0.001) == []
    [second] = claim(seconds=LEASE_S)
    assert (first.id, second.id) == (delivery.pk, delivery.pk)
    assert (first.attempt_count, second.attempt_count) == (1, 2)


@pytest.mark.django_db(transaction=True)
def test_it_never_gives_one_row_to_two_claimers() -> None:
    device = make_device(make_brand())
    ids = outbox.enqueue([new_delivery(device) for _ in range(400)])
    start = threading.Barrier(8)

    def take() -> list[int]:
        start.wait()
        taken = []
        while batch := claim(limit=7):
            taken += [one.id for one in batch]
        connection.close()
        return taken

    with ThreadPoolExecutor(8) as pool:
        takers = [pool.submit(take) for _ in range(8)]
        taken = [delivery_id for taker in takers for delivery_id in taker.result()]

    assert sorted(taken) == sorted(filter(None, ids))


@pytest.mark.django_db(transaction=True)
def test_it_waits_for_nobody_who_holds_a_row() -> None:
    device = make_device(make_brand())
    held, free = make_delivery(device), make_delivery(device)
    with transaction.atomic():
        Delivery.objects.select_for_update().get(pk=held.pk)

        def take() -> list[int]:
            try:
                return [one.id for one in claim()]
            finally:
                connection.close()

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(take).result(timeout=10) == [free.pk]


def test_it_records_states_and_attempts_together() -> None:
    device = make_device(make_brand())
    for _ in range(3):
        make_delivery(device)
    sent, retried, held = claim()
    later = NOON + timedelta(minutes=5)

    leases.record(
        [
            Result(claimed=sent, state=DeliveryState.SENT, sent_at=NOON, tried=SENT),
            Result(
                claimed=retried,
                state=DeliveryState.PENDING,
                reason="UNAVAILABLE",
                due_at=later,
                tried=BUSY,
            ),
            Result(claimed=held, state=DeliveryState.PENDING, reason="quiet_hours", due_at=later),
        ]
    )

    rows = {row.pk: row for row in Delivery.objects.all()}
    assert rows[sent.id].state == "sent"
    assert rows[sent.id].sent_at == NOON
    assert rows[retried.id].state == "pending"
    assert rows[retried.id].due_at == later
    # a claim that sent nothing is no attempt
    assert [rows[one.id].attempt_count for one in (sent, retried, held)] == [1, 1, 0]
    assert {row.lease_until for row in rows.values()} == {None}
    assert list(Attempt.objects.values_list("delivery_id", "outcome", "error")) == [
        (sent.id, "sent", ""),
        (retried.id, "transient", "UNAVAILABLE: try later"),
    ]


def test_it_claims_in_one_query_and_records_in_five(django_assert_num_queries: Any) -> None:
    device = make_device(make_brand())
    outbox.enqueue([new_delivery(device) for _ in range(50)])
    with django_assert_num_queries(1):
        claimed = claim()

    with django_assert_num_queries(5):  # begin, lock, settle, attempts, commit
        leases.record(
            [Result(claimed=one, state=DeliveryState.SENT, tried=SENT) for one in claimed]
        )


def test_it_lets_a_late_worker_say_sent_but_nothing_else() -> None:
    device = make_device(make_brand())
    make_delivery(device)
    make_delivery(device)
    slow_sent, slow_failed = claim()
    claim(seconds=LEASE_S)  # somebody else has both by now

    leases.record(
        [
            Result(claimed=slow_sent, state=DeliveryState.SENT, sent_at=NOON, tried=SENT),
            Result(claimed=slow_failed, state=DeliveryState.PENDING, due_at=NOON, tried=BUSY),
        ]
    )

    assert Delivery.objects.get(pk=slow_sent.id).state == "sent"
    assert Delivery.objects.get(pk=slow_failed.id).state == "sending"
    assert Attempt.objects.count() == 2  # what happened, happened


def test_it_never_takes_back_that_a_push_was_sent() -> None:
    make_delivery(make_device(make_brand()))
    [first] = claim()
    [second] = claim(seconds=LEASE_S)
    leases.record([Result(claimed=first, state=DeliveryState.SENT, sent_at=NOON, tried=SENT)])

    leases.record([Result(claimed=second, state=DeliveryState.FAILED, tried=BUSY)])

    assert Delivery.objects.get().state == "sent"


def test_it_records_the_others_when_one_was_erased_meanwhile() -> None:
    device = make_device(make_brand())
    make_delivery(device)
    make_delivery(device)
    erased, kept = claim()
    Delivery.objects.filter(pk=erased.id).delete()

    leases.record(
        [Result(claimed=one, state=DeliveryState.SENT, tried=SENT) for one in (erased, kept)]
    )

    assert list(Attempt.objects.values_list("delivery_id", flat=True)) == [kept.id]


def test_it_cuts_what_a_provider_says_to_what_a_column_takes() -> None:
    make_delivery(make_device(make_brand()))
    [claimed] = claim()
    wild = "\0\ud800é" * 400

    leases.record(
        [
            Result(
                claimed=claimed,
                state=DeliveryState.FAILED,
                reason=wild,
                tried=Tried(at=NOON, outcome="rejected", error=wild, message_id=wild),
            )
        ]
    )

    assert Delivery.objects.get().reason.startswith("?é?é")
    assert len(Attempt.objects.get().error) == 400


@pytest.mark.django_db(transaction=True)
def test_it_announces_a_held_offer_when_it_goes_out(listening: Any) -> None:
    device = make_device(make_brand())
    make_delivery(device, due_at=NOON + timedelta(hours=1))
    listening()
    [claimed] = claim(hours=1)

    leases.record([Result(claimed=claimed, state=DeliveryState.SENT, tried=SENT)])

    assert listening() == [("nearcast_offers", str(device.pk))]

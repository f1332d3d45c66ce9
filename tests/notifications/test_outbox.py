"""The outbox on real rows: what is owed, who may have it, what becomes of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction

from notifications import outbox
from notifications.models import (
    Delivery,
    DeliveryActionLog,
    DeliveryState,
    Feedback,
    FeedbackEvent,
)
from notifications.outbox import MAX_NOTIFY_BYTES, NewFeedback
from tests.factories import make_brand, make_device
from tests.notifications.rows import NOON, claim, make_delivery, new_delivery

pytestmark = pytest.mark.django_db


def test_it_answers_ids_in_order_and_none_for_what_is_owed_already() -> None:
    device = make_device(make_brand())
    first, second = new_delivery(device), new_delivery(device)

    before = outbox.enqueue([first])
    ids = outbox.enqueue([second, first, second])

    assert ids[1:] == [None, None]
    assert ids[0] is not None
    assert before[0] is not None
    assert Delivery.objects.count() == 2


def test_it_owes_the_same_key_to_two_devices() -> None:
    brand = make_brand()
    rows = [new_delivery(make_device(brand), key="same") for _ in range(2)]

    assert None not in outbox.enqueue(rows)


def test_it_keeps_the_whole_snapshot() -> None:
    device = make_device(make_brand())
    delivery = make_delivery(
        device,
        variant="b",
        decision_id=5,
        geofence_id=6,
        transactional=True,
        priority=3,
        gates={"only_while_inside": 6, "timezone": "Europe/Helsinki"},
        content={"title": "Ünï\u2028code", "body": "\\ \" '", "data": {"k": "v"}},
    )

    assert delivery.state == DeliveryState.PENDING
    assert (delivery.variant, delivery.decision_id, delivery.geofence_id) == ("b", 5, 6)
    assert (delivery.transactional, delivery.priority) == (True, 3)
    assert delivery.gates == {"only_while_inside": 6, "timezone": "Europe/Helsinki"}
    assert delivery.content == {
        "title": "Ünï\u2028code",
        "body": "\\ \" '",
        "data": {"k": "v"},
    }


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"content": {"title": "no body"}}, "body"),
        ({"content": {"title": 1, "body": "b"}}, "title"),
        ({"content": {"title": "\0", "body": None}}, "body"),
        ({"gates": {"only_when_raining": True}}, "only_when_raining"),
    ],
)
def test_it_parks_a_malformed_row_with_its_reason_and_writes_the_rest(
    fields: dict[str, Any], word: str
) -> None:
    device = make_device(make_brand())
    good = new_delivery(device)

    bad_id, good_id = outbox.enqueue([new_delivery(device, **fields), good])

    assert bad_id is not None
    bad = Delivery.objects.get(pk=bad_id)
    assert bad.state == DeliveryState.PARKED
    assert word in bad.reason
    assert [one.id for one in claim()] == [good_id]


def test_it_writes_any_number_of_rows_in_three_queries(django_assert_num_queries: Any) -> None:
    device = make_device(make_brand())

    with django_assert_num_queries(3):  # insert, announce, wake
        outbox.enqueue([new_delivery(device) for _ in range(300)])


@pytest.mark.django_db(transaction=True)
def test_it_announces_at_commit_what_is_due_and_nothing_that_is_held(listening: Any) -> None:
    brand = make_brand()
    now_due, held, parked = (make_device(brand) for _ in range(3))
    with transaction.atomic():
        outbox.enqueue(
            [
                new_delivery(now_due),
                new_delivery(now_due),
                new_delivery(held, due_at=NOON + timedelta(hours=1)),
                new_delivery(parked, content={}),
            ]
        )
        assert listening() == []

    assert sorted(listening()) == [
        ("nearcast_deliveries", ""),
        ("nearcast_offers", str(now_due.pk)),
    ]


def test_it_announces_any_number_of_devices_in_payloads_that_fit() -> None:
    ids = [10**12 + number for number in range(5_000)]

    payloads = list(outbox._payloads(ids))

    assert max(map(len, payloads)) <= MAX_NOTIFY_BYTES
    assert [int(text) for payload in payloads for text in payload.split(",")] == ids
    assert len(payloads) == -(-5_000 // (MAX_NOTIFY_BYTES // 14))


def make_actor() -> Any:
    return get_user_model().objects.create_user("support")


def test_it_cancels_what_has_not_gone_out_and_says_who_did() -> None:
    actor = make_actor()
    delivery = make_delivery(make_device(make_brand()))

    assert outbox.cancel(delivery.pk, actor_id=actor.pk, note="wrong price", now=NOON)

    delivery.refresh_from_db()
    log = DeliveryActionLog.objects.get()
    assert delivery.state == "cancelled"
    assert (log.actor, log.action, log.note, log.at) == (actor, "cancel", "wrong price", NOON)
    assert claim() == []


@pytest.mark.parametrize("state", sorted(set(DeliveryState) - {DeliveryState.PENDING}))
def test_it_is_too_late_to_cancel_what_is_no_longer_pending(state: DeliveryState) -> None:
    delivery = make_delivery(make_device(make_brand()))
    Delivery.objects.filter(pk=delivery.pk).update(state=state)

    assert not outbox.cancel(delivery.pk, actor_id=None, note="", now=NOON)
    assert not DeliveryActionLog.objects.exists()


@pytest.mark.parametrize(
    "state", sorted(set(DeliveryState) - {DeliveryState.PENDING, DeliveryState.SENDING})
)
def test_it_resends_under_the_same_id_with_as_much_time_again(state: DeliveryState) -> None:
    actor = make_actor()
    delivery = make_delivery(make_device(make_brand()))
    Delivery.objects.filter(pk=delivery.pk).update(
        state=state, attempt_count=4, sent_at=NOON, reason="because"
    )
    tomorrow = NOON + timedelta(days=1)

    assert outbox.resend(delivery.pk, actor_id=actor.pk, note="", now=tomorrow)

    [claimed] = claim(days=1)
    assert (claimed.id, claimed.attempt_count) == (delivery.pk, 1)
    assert claimed.expires_at == tomorrow + timedelta(hours=2)
    assert DeliveryActionLog.objects.get().action == "resend"


@pytest.mark.parametrize("state", [DeliveryState.PENDING, DeliveryState.SENDING])
def test_it_does_not_resend_what_is_on_its_way(state: DeliveryState) -> None:
    delivery = make_delivery(make_device(make_brand()))
    Delivery.objects.filter(pk=delivery.pk).update(state=state)

    assert not outbox.resend(delivery.pk, actor_id=None, note="", now=NOON)


def test_it_never_shortens_a_life_by_resending() -> None:
    delivery = make_delivery(make_device(make_brand()))
    Delivery.objects.filter(pk=delivery.pk).update(state=DeliveryState.FAILED)

    outbox.resend(delivery.pk, actor_id=None, note="", now=NOON - timedelta(hours=1))

    assert Delivery.objects.get().expires_at == delivery.expires_at


def feedback(delivery: Delivery, device_id: int, event: FeedbackEvent) -> NewFeedback:
    return NewFeedback(delivery_id=delivery.pk, device_id=device_id, event=event, occurred_at=NOON)


def test_it_keeps_feedback_once_and_only_from_the_device_it_was_for() -> None:
    brand = make_brand()
    device, other = make_device(brand), make_device(brand)
    delivery = make_delivery(device)
    opened = feedback(delivery, device.pk, FeedbackEvent.OPENED)

    answers = outbox.record_feedback(
        [
            opened,
            feedback(delivery, other.pk, FeedbackEvent.REDEEMED),
            feedback(delivery, device.pk, FeedbackEvent.RECEIVED),
        ],
        now=NOON,
    )

    assert answers == [True, False, True]
    assert outbox.record_feedback([opened], now=NOON + timedelta(hours=1)) == [True]
    assert sorted(Feedback.objects.values_list("event", "received_at")) == [
        ("opened", NOON),
        ("received", NOON),
    ]


def test_it_keeps_one_of_two_equal_reports_in_one_call() -> None:
    device = make_device(make_brand())
    opened = feedback(make_delivery(device), device.pk, FeedbackEvent.OPENED)

    assert outbox.record_feedback([opened, opened], now=NOON) == [True, True]
    assert Feedback.objects.count() == 1

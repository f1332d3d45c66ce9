"""From a due row to a recorded push: every answer of FCM, every crash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from devices import registration
from notifications import delivering, leases, outbox
from notifications.courier import Courier
from notifications.delivering import LEASE_S
from notifications.models import Attempt, Delivery
from notifications.offers import current_offers
from notifications.push import Outcome, PushErrorKind
from notifications.retries import MAX_ATTEMPTS
from tests.factories import make_brand, make_device
from tests.notifications.rows import (
    CONTENT,
    NOON,
    FakeSender,
    deliver,
    failing,
    make_delivery,
    new_delivery,
    the_delivery,
)

pytestmark = pytest.mark.django_db


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
            "sent",
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


def test_it_leaves_an_offer_whose_token_is_dead_to_the_inbox(
    courier: Courier, sender: FakeSender
) -> None:
    device = make_device(make_brand())
    delivery = make_delivery(device)
    assert device.push_token
    sender.answers[device.push_token] = failing(PushErrorKind.TOKEN_GONE, "UNREGISTERED")
    deliver(courier)
    assert deliver(courier, minutes=30) == 0

    delivery.refresh_from_db()
    [offer] = current_offers([device.pk], now=NOON)[device.pk]
    assert offer.delivery_id == delivery.pk
    assert (delivery.channel, delivery.attempt_count) == ("inbox", 1)
    assert delivery.sent_at is not None
    assert Attempt.objects.get().outcome == "token_gone"  # what counts pushes does not count it


@pytest.mark.django_db(transaction=True)
def test_it_tells_an_open_socket_of_an_offer_held_back_whose_token_is_dead(
    courier: Courier, sender: FakeSender, listening: Any
) -> None:
    device = make_device(make_brand())
    make_delivery(device, due_at=NOON + timedelta(hours=1))
    assert device.push_token
    sender.answers[device.push_token] = failing(PushErrorKind.TOKEN_GONE)
    listening()
    deliver(courier, hours=1)

    assert listening() == [("nearcast_offers", str(device.pk))]


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


def test_it_parks_the_row_whose_answer_it_cannot_judge(
    courier: Courier, sender: FakeSender
) -> None:
    brand = make_brand()
    good, bad = make_device(brand), make_device(brand)
    for device in (bad, good):
        make_delivery(device)
    assert bad.push_token
    odd: Any = "soon"
    sender.answers[bad.push_token] = failing(PushErrorKind.TRANSIENT, retry_after_s=odd)
    deliver(courier)

    states = dict(Delivery.objects.values_list("device_id", "state"))
    assert states == {good.pk: "sent", bad.pk: "parked"}
    assert Delivery.objects.get(state="parked").reason.startswith("TypeError")


def test_it_records_the_others_where_an_app_above_fails_at_one(
    courier: Courier, sender: FakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    brand = make_brand()
    good, bad = make_device(brand), make_device(brand)
    for device in (bad, good):
        make_delivery(device)
    assert bad.push_token
    sender.answers[bad.push_token] = failing(PushErrorKind.REJECTED)

    def take_back(_delivery_ids: Sequence[int]) -> None:
        raise KeyError("a purse")

    monkeypatch.setattr(outbox, "_take_back", [take_back])
    deliver(courier)

    # it cannot be parked either: that would take back as well
    states = dict(Delivery.objects.values_list("device_id", "state"))
    assert states == {good.pk: "sent", bad.pk: "sending"}


def test_it_parks_a_row_that_kills_every_worker_that_takes_it(
    courier: Courier, sender: FakeSender
) -> None:
    make_delivery(make_device(make_brand()), expires_at=NOON + timedelta(days=7))
    for times in range(MAX_ATTEMPTS):
        assert leases.claim(limit=1, lease_s=LEASE_S, now=NOON + timedelta(hours=times))
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

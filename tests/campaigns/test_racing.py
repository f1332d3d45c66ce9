"""Many evaluators at once, and evaluators that die: promises 2 and 5 on real connections."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils.timezone import now

from campaigns import evaluation
from campaigns.evaluation import evaluate_once
from campaigns.models import Decision
from campaigns.turns import Turns
from devices.models import Transition
from notifications.models import Delivery
from tests.campaigns.racing import EVALUATORS, evaluate_all, together
from tests.campaigns.rows import make_campaign, make_transition
from tests.factories import make_brand, make_circle, make_device

pytestmark = pytest.mark.django_db(transaction=True)

DAY_S = 86_400


@pytest.mark.parametrize(
    ("scope", "of_brand"),
    [
        ("device", False),
        ("person", False),
        ("place", False),
        ("tag", False),
        ("channel", False),
        ("campaign", False),
        ("brand", False),
        ("device", True),
        ("brand", True),
    ],
)
def test_forty_evaluators_never_exceed_a_cap(scope: str, of_brand: bool) -> None:
    cap: dict[str, Any] = {"limit": 3, "window_s": DAY_S, "scope": scope}
    cap |= {"tag": {"tag": "shop"}, "channel": {"channel": "push"}}.get(scope, {})
    brand = make_brand(caps=[cap] if of_brand else [])
    shop, device = make_circle(brand, tags=["shop"]), make_device(brand, external_id="ann")
    make_campaign(brand, shop, caps=[] if of_brand else [cap])
    for number in range(EVALUATORS * 2):
        make_transition(device, shop, occurred_at=now() - timedelta(seconds=number % 60))
    together(EVALUATORS, evaluate_all)
    evaluate_all()
    assert Delivery.objects.count() == 3
    assert Decision.objects.count() == EVALUATORS * 2
    assert Decision.objects.filter(reason="cap_reached").count() == EVALUATORS * 2 - 3
    assert not Transition.objects.filter(processed_at=None).exists()


def test_a_persons_phones_share_a_cap_in_a_race() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop, caps=[{"limit": 2, "window_s": DAY_S, "scope": "person"}])
    for _ in range(EVALUATORS):
        make_transition(make_device(brand, external_id="ann"), shop)
    together(EVALUATORS, evaluate_all)
    evaluate_all()
    assert Delivery.objects.count() == 2


@pytest.mark.parametrize("per", ["hour", "day", "week", "month"])
def test_all_of_a_persons_phones_in_one_race_keep_every_cap_at_once(per: str) -> None:
    """Five phones, three campaigns, forty evaluators: rolling and calendar caps side by side."""
    person = {"limit": 4, "per": per, "scope": "person"}
    brand = make_brand(caps=[person, {"limit": 2, "window_s": DAY_S, "scope": "device"}])
    shops = [make_circle(brand, tags=["shop"]) for _ in range(3)]
    for shop in shops:
        make_campaign(brand, shop, caps=[{"limit": 2, "window_s": DAY_S, "scope": "person"}])
    make_campaign(brand, shops[0], transactional=True, group="service")
    phones = [make_device(brand, external_id="ann") for _ in range(5)]
    at = now()  # so that no calendar hour ends between
    for number in range(EVALUATORS):
        make_transition(phones[number % 5], shops[number % 3], occurred_at=at)
    together(EVALUATORS, lambda: evaluate_all(at))
    evaluate_all(at)
    made = Delivery.objects.filter(transactional=False)
    assert made.count() == 4
    for key in ("device_id", "campaign_id"):
        counts = Counter(made.values_list(key, flat=True))
        assert max(counts.values()) <= 2
    exempt = Delivery.objects.filter(transactional=True)
    assert exempt.count() == len([n for n in range(EVALUATORS) if n % 3 == 0])


def test_a_total_cap_holds_over_many_people_in_a_race() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop, caps=[{"limit": 5, "scope": "campaign"}])
    for _ in range(EVALUATORS):
        make_transition(make_device(brand), shop)
    together(EVALUATORS, evaluate_all)
    evaluate_all()
    assert Delivery.objects.count() == 5


def test_one_fix_has_one_winner_in_a_race() -> None:
    brand = make_brand()
    places = [make_circle(brand) for _ in range(10)]
    for place in places:
        make_campaign(brand, place)
    device, at = make_device(brand), now() - timedelta(seconds=1)
    for place in places:
        make_transition(device, place, occurred_at=at)
    together(10, evaluate_all)
    evaluate_all()
    assert Delivery.objects.count() == 1
    assert Decision.objects.filter(reason="lost_to_priority").count() == 9


def test_evaluators_in_parallel_settle_everything_once() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop)
    for _ in range(60):
        make_transition(make_device(brand), shop)
    together(8, evaluate_all)
    assert Decision.objects.count() == Delivery.objects.count() == 60


def settle_all() -> None:
    """As the loop does, but with a batch for each row."""
    evaluation.settle_all(threading.Event(), limit=1)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_that_overlap_are_settled_in_the_order_they_were_claimed(workers: int) -> None:
    brand = make_brand()
    device = make_device(brand)
    caps = [{"limit": 2, "window_s": DAY_S, "scope": "person"}]
    shops = [make_circle(brand) for _ in range(30)]
    places = {"on": "entered", "geofences": [shop.pk for shop in shops]}
    make_campaign(brand, trigger=places, caps=caps)
    at = now() - timedelta(minutes=1)
    ids = [
        make_transition(device, shop, occurred_at=at + timedelta(seconds=number)).pk
        for number, shop in enumerate(shops)
    ]
    together(workers, settle_all)
    judged = Decision.objects.order_by("id").values_list("moment_id", "verdict")
    assert len(judged) == 30
    assert sum(verdict == "send" for _, verdict in judged) == Delivery.objects.count() == 2
    if workers == 1:
        assert list(judged) == [(key, ("refuse", "send")[key in ids[:2]]) for key in ids]


class Watched:
    """A lock that says when somebody has to wait for it."""

    def __init__(self, wanted: threading.Event) -> None:
        self._lock, self._wanted = threading.Lock(), wanted

    def acquire(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._wanted.set()
            self._lock.acquire()

    def release(self) -> None:
        self._lock.release()


def one_then_another(turns: Turns, begun: threading.Event, met: threading.Event) -> None:
    """Settle a row, and another while that is under way (`begun`); then it is `met`."""
    waits = iter((False, True))

    def settle() -> None:
        if next(waits):
            assert begun.wait(20)
            evaluate_once(now=now(), limit=1, turns=turns)
            met.set()
        else:
            evaluate_once(now=now(), limit=1, turns=turns)

    together(2, settle)


def test_a_batch_is_not_written_before_the_one_claimed_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop)
    ids = [make_transition(make_device(brand), shop).pk for _ in range(2)]
    begun, met = threading.Event(), threading.Event()
    turns = Turns()
    turns.writing = Watched(met)  # type: ignore[assignment]
    write, calls = evaluation._write_refusals, iter(range(50))

    def slowly(*args: Any) -> None:
        if next(calls) == 0:
            begun.set()
            assert met.wait(20)
        write(*args)

    monkeypatch.setattr(evaluation, "_write_refusals", slowly)
    one_then_another(turns, begun, met)
    assert list(Decision.objects.order_by("id").values_list("moment_id", flat=True)) == ids


def test_who_was_first_is_served_first_though_its_batch_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brand = make_brand()
    shop, device = make_circle(brand), make_device(brand)
    make_campaign(brand, shop, caps=[{"limit": 1, "window_s": DAY_S, "scope": "person"}])
    at = now() - timedelta(minutes=1)
    ids = [
        make_transition(device, shop, occurred_at=at + timedelta(seconds=number)).pk
        for number in range(2)
    ]
    begun, claimed = threading.Event(), threading.Event()
    gather, apply = evaluation.gather, evaluation._apply
    gathers, applies = iter(range(50)), iter(range(50))

    def tell(*args: Any) -> Any:
        if next(gathers) == 1:
            claimed.set()
        return gather(*args)

    def fail_once(*args: Any) -> None:
        if next(applies) == 0:
            begun.set()
            assert claimed.wait(20)
            raise ValueError("the first batch fails")
        apply(*args)

    monkeypatch.setattr(evaluation, "gather", tell)
    monkeypatch.setattr(evaluation, "_apply", fail_once)
    one_then_another(Turns(), begun, claimed)
    judged = list(Decision.objects.order_by("id").values_list("moment_id", "verdict"))
    assert judged == [(ids[0], "send"), (ids[1], "refuse")]


def test_what_one_batch_completes_counts_in_the_next_that_overlaps() -> None:
    brand = make_brand()
    device = make_device(brand)
    shops = [make_circle(brand) for _ in range(20)]
    steps = [{"on": "entered", "geofences": [shop.pk for shop in shops]}]
    trigger = {"on": "sequence", "steps": steps, "within_s": DAY_S, "once": True}
    make_campaign(brand, trigger=trigger)
    at = now() - timedelta(minutes=1)
    for number, shop in enumerate(shops):
        make_transition(device, shop, occurred_at=at + timedelta(seconds=number))
    settle_all()
    assert Decision.objects.filter(verdict="send").count() == Delivery.objects.count() == 1


def test_whoever_fails_beside_another_leaves_nothing_half_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop)
    for _ in range(20):
        make_transition(make_device(brand), shop)
    apply, calls = evaluation._apply, iter(range(50))

    def die(*args: object) -> None:
        if next(calls) == 5:
            raise OperationalError("the connection is gone")
        apply(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "_apply", die)
    with pytest.raises(OperationalError):
        settle_all()
    assert 5 <= Decision.objects.count() == Delivery.objects.count() < 20
    settle_all()
    assert Decision.objects.count() == Delivery.objects.count() == 20


def test_a_crash_before_the_commit_loses_nothing_and_repeats_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop)
    for _ in range(3):
        make_transition(make_device(brand), shop)
    apply = evaluation._apply

    def die(*args: object) -> None:
        apply(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt  # no `except Exception` sees it: as a kill would

    monkeypatch.setattr(evaluation, "_apply", die)
    with pytest.raises(KeyboardInterrupt):
        evaluate_once(now=now())
    assert not Decision.objects.exists()
    assert not Delivery.objects.exists()
    monkeypatch.setattr(evaluation, "_apply", apply)
    assert evaluate_once(now=now()) == 3
    assert Decision.objects.count() == Delivery.objects.count() == 3


def test_the_loop_wakes_for_what_happens_and_stops_when_asked() -> None:
    brand = make_brand()
    shop, device = make_circle(brand), make_device(brand)
    make_campaign(brand, shop)
    stop = threading.Event()
    thread = threading.Thread(target=evaluation.run, args=(stop,))
    thread.start()
    try:
        make_transition(device, shop)
        with connection.cursor() as cursor:
            cursor.execute("NOTIFY nearcast_transitions")
        until = now() + timedelta(seconds=20)
        while not Decision.objects.exists():
            assert now() < until
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert Delivery.objects.count() == 1


def test_the_loop_hears_what_was_told_while_it_was_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, looks = threading.Event(), []

    def look(_: threading.Event) -> None:
        looks.append(1)
        if len(looks) > 1:
            stop.set()
        with connection.cursor() as cursor:
            cursor.execute("NOTIFY nearcast_transitions")  # it comes with this statement's answer

    monkeypatch.setattr(evaluation, "LOOK_S", 3_600)
    monkeypatch.setattr(evaluation, "settle_all", look)
    thread = threading.Thread(target=evaluation.run, args=(stop,))
    thread.start()
    try:
        thread.join(10)
        assert len(looks) == 2
    finally:
        stop.set()
        thread.join(10)

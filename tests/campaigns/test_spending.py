"""Budgets on real rows: reserved when decided, given back when not sent, never exceeded."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from brands.models import Brand
from campaigns import publishing, spending
from campaigns.evaluation import evaluate_once
from campaigns.experiments import is_held_out
from campaigns.models import Campaign, Charge, Decision, Spend
from devices import registration
from devices.models import Device
from geofences.models import Geofence
from notifications import leases, outbox
from notifications.courier import Courier
from notifications.delivering import decide, deliver_once, gather
from notifications.models import Delivery
from notifications.push import PushErrorKind
from tests.campaigns.racing import EVALUATORS, evaluate_all, together
from tests.campaigns.rows import make_campaign, make_transition
from tests.factories import make_brand, make_circle, make_device
from tests.notifications.rows import FakeSender, failing

HELSINKI = "Europe/Helsinki"


@pytest.fixture
def brand(db: None) -> Brand:
    return make_brand(timezone=HELSINKI)


@pytest.fixture
def shop(brand: Brand) -> Geofence:
    return make_circle(brand)


def visit(shop: Geofence, count: int = 1, **fields: Any) -> list[Device]:
    devices = [make_device(shop.brand, **fields) for _ in range(count)]
    for device in devices:
        make_transition(device, shop)
    evaluate_once(now=now())
    return devices


def spent(day: Any = None, place: int | None = None) -> tuple[int, int]:
    found = Spend.objects.filter(day=day, geofence_id=place).first()
    return (0, 0) if found is None else (found.sends, found.money)


def ledger() -> dict[tuple[Any, int | None], tuple[int, int]]:
    """What the sums must be, from the charges alone."""
    sums: dict[tuple[Any, int | None], tuple[int, int]] = {}
    for row in Charge.objects.filter(returned=False):
        for key in {(None, None), (row.day, None), (None, row.geofence_id),
                    (row.day, row.geofence_id)}:  # fmt: skip
            sends, money = sums.get(key, (0, 0))
            sums[key] = (sends + 1, money + row.money)
    return sums


def the_sums() -> dict[tuple[Any, int | None], tuple[int, int]]:
    return {(row.day, row.geofence_id): (row.sends, row.money)
            for row in Spend.objects.exclude(sends=0)}  # fmt: skip


def test_it_stops_when_the_budget_is_spent_and_says_so(brand: Brand, shop: Geofence) -> None:
    budget = {"per_day": {"money": 400}, "cost": 150, "currency": "EUR"}
    make_campaign(brand, shop, budget=budget)
    visit(shop, 3)
    assert Delivery.objects.count() == 2
    refused = Decision.objects.get(verdict="refuse")
    assert refused.reason == "budget_spent"
    trace = refused.trace
    assert (trace["whole"], trace["unit"], trace["seen"], trace["limit"]) == (
        "per_day", "money", 300, 400,
    )  # fmt: skip
    assert trace["next_at"] > now().timestamp() * 1000
    assert spent() == (2, 300)
    assert the_sums() == ledger()
    assert len(the_sums()) == 4


def test_each_place_has_its_own(brand: Brand, shop: Geofence) -> None:
    other = make_circle(brand, tags=["x"])
    make_campaign(
        brand,
        trigger={"on": "entered", "geofences": [shop.pk, other.pk]},
        budget={"per_place": {"sends": 1}},
    )
    visit(shop, 2)
    visit(other, 2)
    assert Delivery.objects.count() == 2
    assert spent(place=shop.pk) == spent(place=other.pk) == (1, 0)


def test_it_is_paced_over_the_day(brand: Brand, shop: Geofence) -> None:
    make_campaign(brand, shop, budget={"per_day": {"sends": 2}, "even": True}, max_age_s=86_400)
    start = datetime.fromisoformat("2026-06-10T00:00:00+03:00")
    reasons = []
    for hour in (1, 2, 11, 13, 14):
        at = start + timedelta(hours=hour)
        make_transition(make_device(brand), shop, occurred_at=at)
        evaluate_once(now=at)
        reasons.append(Decision.objects.order_by("-id")[0].reason)
    assert reasons == ["matched", "paced", "paced", "matched", "budget_spent"]
    trace = Decision.objects.filter(reason="paced")[0].trace
    assert trace["next_at"] == round((start + timedelta(hours=12)).timestamp() * 1000)


def test_a_push_that_fails_gives_its_share_back(
    brand: Brand, shop: Geofence, sender: FakeSender, courier: Courier
) -> None:
    make_campaign(brand, shop, budget={"total": {"sends": 1}})
    visit(shop, push_token="bad")
    sender.answers["bad"] = failing(PushErrorKind.REJECTED)
    assert spent() == (1, 0)
    deliver_once(courier, now=now())
    assert Delivery.objects.get().state == "failed"
    assert spent() == (0, 0)
    assert the_sums() == ledger() == {}
    visit(shop)
    assert Delivery.objects.filter(state="pending").count() == 1


def test_an_offer_left_to_the_inbox_keeps_its_share(
    brand: Brand, shop: Geofence, sender: FakeSender, courier: Courier
) -> None:
    make_campaign(brand, shop, budget={"total": {"sends": 1}})
    visit(shop, push_token="gone")
    sender.answers["gone"] = failing(PushErrorKind.TOKEN_GONE)
    deliver_once(courier, now=now())
    assert Delivery.objects.get().state == "sent"
    assert spent() == (1, 0)


def test_what_expires_or_is_suppressed_or_cancelled_gives_it_back(
    brand: Brand, shop: Geofence, courier: Courier
) -> None:
    make_campaign(brand, shop, budget={"total": {"sends": 3}})
    late, withdrawn, called = visit(shop, 3)
    Delivery.objects.filter(device_id=late.pk).update(expires_at=now())
    Device.objects.filter(pk=withdrawn.pk).update(consent_marketing=False)
    outbox.cancel(Delivery.objects.get(device_id=called.pk).pk, actor_id=None, note="", now=now())
    assert spent() == (2, 0)
    deliver_once(courier, now=now())
    assert sorted(Delivery.objects.values_list("state", flat=True)) == [
        "cancelled", "expired", "suppressed",
    ]  # fmt: skip
    assert spent() == (0, 0)


def test_what_is_tried_again_keeps_its_share(
    brand: Brand, shop: Geofence, sender: FakeSender, courier: Courier
) -> None:
    make_campaign(brand, shop, budget={"total": {"sends": 1}})
    visit(shop, push_token="busy")
    sender.answers["busy"] = failing(PushErrorKind.TRANSIENT)
    deliver_once(courier, now=now())
    assert Delivery.objects.get().state == "pending"
    assert spent() == (1, 0)


def test_a_repeat_asked_for_by_support_is_charged_again_or_stopped(
    brand: Brand, shop: Geofence, courier: Courier
) -> None:
    make_campaign(brand, shop, budget={"total": {"sends": 1}})
    visit(shop)
    first = Delivery.objects.get()
    outbox.cancel(first.pk, actor_id=None, note="", now=now())
    outbox.resend(first.pk, actor_id=None, note="", now=now())
    deliver_once(courier, now=now())
    first.refresh_from_db()
    assert (first.state, spent()) == ("sent", (1, 0))
    outbox.resend(first.pk, actor_id=None, note="", now=now())  # paid for already
    deliver_once(courier, now=now())
    assert spent() == (1, 0)

    Delivery.objects.update(state="pending")
    outbox.cancel(first.pk, actor_id=None, note="", now=now())
    visit(shop)
    assert spent() == (1, 0)
    outbox.resend(first.pk, actor_id=None, note="", now=now())
    deliver_once(courier, now=now())
    first.refresh_from_db()
    assert (first.state, first.reason) == ("suppressed", "budget_spent")
    assert the_sums() == ledger()


def test_a_person_erased_before_the_push_gives_their_share_back(
    brand: Brand, shop: Geofence, courier: Courier
) -> None:
    make_campaign(brand, shop, budget={"total": {"sends": 2}})
    (waits,) = visit(shop)
    registration.erase(waits.pk)
    assert spent() == (0, 0)
    (claimed,) = visit(shop)
    deliver_once(courier, now=now())
    registration.erase(claimed.pk)
    assert spent() == (1, 0)  # it was sent: whom it reached is forgotten, that it cost is not
    visit(shop, 2)
    assert Delivery.objects.count() == 1
    assert the_sums() == ledger()


def test_a_person_erased_while_the_offer_is_looked_at_gives_it_back_as_well(
    brand: Brand, shop: Geofence
) -> None:
    make_campaign(brand, shop, budget={"total": {"sends": 1}})
    (device,) = visit(shop)
    (claimed,) = leases.claim(limit=9, lease_s=60, now=now())
    registration.erase(device.pk)
    assert spent() == (1, 0)  # it may be in the air
    plan = decide([claimed], gather([claimed]), {}, now=now())
    leases.record(plan.settled)
    assert [one.reason for one in plan.settled] == ["device_gone"]
    assert spent() == (0, 0)
    assert the_sums() == ledger() == {}


def test_a_ghost_meets_the_budget_and_takes_nothing_of_it(brand: Brand, shop: Geofence) -> None:
    campaign = make_campaign(brand, shop, holdout=0.5, budget={"total": {"sends": 3}})
    names = [f"person {number}" for number in range(40)]
    held = {name for name in names if is_held_out(name, campaign_id=campaign.pk, share=0.5)}
    reasons: dict[str, str] = {}
    for name in names:
        (device,) = visit(shop, external_id=name)
        reasons[name] = Decision.objects.get(device_id=device.pk).reason
    treated = [name for name in names if name not in held]
    assert [reasons[name] for name in treated] == ["matched"] * 3 + ["budget_spent"] * (
        len(treated) - 3
    )
    last = names.index(treated[2])
    for place, name in enumerate(names):
        if name in held:
            assert reasons[name] == ("held_out" if place < last else "budget_spent")


def test_a_batch_asks_the_budget_once(brand: Brand, shop: Geofence) -> None:
    for number in range(5):
        make_campaign(brand, shop, name=f"C{number}", group=f"g{number}",
                      budget={"total": {"sends": 100}, "per_place": {"sends": 90}})  # fmt: skip

    def queries(count: int) -> int:
        for _ in range(count):
            make_transition(make_device(brand), shop)
        with CaptureQueriesContext(
            connection,
        ) as seen:
            evaluate_once(now=now())
        return len(seen)

    queries(1)
    assert queries(1) == queries(20)
    assert spent() == (22, 0)


def republish(campaign: Campaign, budget: dict[str, Any] | None) -> None:
    raw = {name: value for name, value in campaign.draft.items() if name != "budget"}
    edited = publishing.edit(campaign, raw=raw | ({"budget": budget} if budget else {}), actor=None)
    publishing.publish(edited, actor=None, now=now())


def test_what_was_sent_before_there_was_a_budget_counts(
    brand: Brand, shop: Geofence, sender: FakeSender, courier: Courier
) -> None:
    campaign = make_campaign(brand, shop)
    visit(shop, 2)
    deliver_once(courier, now=now())
    (waits,) = visit(shop, push_token="bad")
    called = visit(shop)[0]
    outbox.cancel(Delivery.objects.get(device_id=called.pk).pk, actor_id=None, note="", now=now())
    budget = {"total": {"sends": 4}, "per_place": {"sends": 9}, "cost": 25, "currency": "EUR"}
    republish(campaign, budget)
    assert spent() == (3, 75)
    assert spent(place=shop.pk) == (3, 75)
    assert spent(day=datetime.now(ZoneInfo(HELSINKI)).date()) == (3, 75)
    visit(shop, 3)
    assert spent() == (4, 100)
    assert Decision.objects.filter(reason="budget_spent").count() == 2
    sender.answers["bad"] = failing(PushErrorKind.REJECTED)
    deliver_once(courier, now=now())  # one of those before fails: its share is free again
    assert Delivery.objects.get(device_id=waits.pk).state == "failed"
    assert spent() == (3, 75)
    assert the_sums() == ledger()


def test_a_budget_that_comes_and_goes_counts_everything_once(brand: Brand, shop: Geofence) -> None:
    campaign = make_campaign(brand, shop)
    for number in range(3):
        visit(shop)
        republish(campaign, {"total": {"sends": 100}} if number % 2 == 0 else None)
    visit(shop)
    republish(campaign, {"total": {"sends": 100}})
    assert spent() == (4, 0)
    publishing.roll_back(campaign, number=1, actor=None, now=now())
    visit(shop)
    publishing.roll_back(campaign, number=2, actor=None, now=now())
    assert spent() == (5, 0)
    assert the_sums() == ledger()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "budget",
    [
        {"total": {"sends": 7}},
        {"per_day": {"money": 1100}, "cost": 150, "currency": "EUR"},
        {"per_place": {"sends": 7}},
        {"per_place_and_day": {"sends": 7}},
    ],
)
def test_forty_evaluators_never_exceed_a_budget(budget: dict[str, Any]) -> None:
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop, budget=budget)
    make_campaign(brand, shop, name="Other", group="x", budget={"total": {"sends": 5}})
    for _ in range(EVALUATORS * 2):
        make_transition(make_device(brand), shop)
    together(EVALUATORS, evaluate_all)
    evaluate_all()
    assert Delivery.objects.filter(campaign_name="Coffee").count() == 7
    assert Delivery.objects.filter(campaign_name="Other").count() == 5
    assert Decision.objects.filter(reason="budget_spent").count() == EVALUATORS * 4 - 12


@pytest.mark.django_db(transaction=True)
def test_a_budget_published_while_evaluators_race_is_never_exceeded() -> None:
    """Some offers are made before it, some after; what is made in between counts, too."""
    brand = make_brand()
    shop = make_circle(brand)
    campaign = make_campaign(brand, shop)
    devices = [make_device(brand) for _ in range(EVALUATORS * 4)]
    for device in devices[: EVALUATORS * 2]:
        make_transition(device, shop)
    most = EVALUATORS * 5 // 2
    turns = iter(range(EVALUATORS))

    def work() -> None:
        if next(turns) == EVALUATORS // 2:
            until = now() + timedelta(seconds=30)
            while Delivery.objects.count() < 5:
                assert now() < until
            republish(campaign, {"total": {"sends": most}})
            for device in devices[EVALUATORS * 2 :]:
                make_transition(device, shop)
        evaluate_all()

    together(EVALUATORS, work)
    evaluate_all()
    made = Delivery.objects.values_list("campaign_version", flat=True)
    assert set(made) == {1, 2}
    assert len(made) == most
    assert Charge.objects.count() == most
    assert the_sums() == ledger()


@pytest.mark.django_db(transaction=True)
def test_shares_given_back_in_a_race_are_given_out_once() -> None:
    """Evaluators, cancellations and repeats all at once; sums stay what the charges say."""
    brand = make_brand()
    shop = make_circle(brand)
    campaign = make_campaign(brand, shop, budget={"total": {"sends": 10}})
    for _ in range(10):
        make_transition(make_device(brand), shop)
    evaluate_all()
    first = list(Delivery.objects.order_by("id"))
    for _ in range(60):
        make_transition(make_device(brand), shop)
    todo = list(first)

    def stir() -> None:
        while todo:
            try:
                one = todo.pop()
            except IndexError:
                break
            outbox.cancel(one.pk, actor_id=None, note="", now=now())
            outbox.resend(one.pk, actor_id=None, note="", now=now())
            spending.still_paid([one], now=now())
            evaluate_once(now=now(), limit=1)
        evaluate_all()

    together(12, stir)
    kept = Charge.objects.filter(campaign_id=campaign.pk, returned=False).count()
    assert kept <= 10
    sums = {(row.day, row.geofence_id): row.sends for row in Spend.objects.exclude(sends=0)}
    assert {key: sends for key, (sends, _) in ledger().items()} == sums


@pytest.mark.django_db
def test_no_charge_outlives_a_batch_that_fails(brand: Brand, shop: Geofence) -> None:
    make_campaign(brand, shop, budget={"total": {"sends": 1}})
    make_transition(make_device(brand), shop)
    try:
        with transaction.atomic():
            evaluate_once(now=now())
            raise InterruptedError
    except InterruptedError:
        pass
    assert spent() == (0, 0)
    assert evaluate_once(now=now()) == 1
    assert spent() == (1, 0)

"""Hold-outs, variants, what is learnt and what an offer was worth."""

from __future__ import annotations

import hashlib
import itertools
from datetime import timedelta
from fractions import Fraction

import numpy as np
import pytest
from django.utils.timezone import now
from hypothesis import given, settings
from hypothesis import strategies as st

from brands.models import Role
from campaigns import experiments, learning, results
from campaigns.evaluation import evaluate_once
from campaigns.experiments import Arm, Guard, allocate, is_control, is_held_out, variant_of
from campaigns.lift import lift, share
from campaigns.models import Allocation, ControlGroup, Decision
from devices.models import Device
from geofences.models import Geofence
from notifications.models import Delivery, Feedback
from tests.campaigns.rows import make_campaign, make_event, make_transition
from tests.campaigns.test_api import caller
from tests.factories import make_brand, make_circle, make_device, make_key
from tests.staff import logged_in, make_member

PEOPLE = [f"person {number}" for number in range(20_000)]
DAY_S = 86_400


@pytest.mark.parametrize("wanted", [0.0, 0.01, 0.1, 0.5, 0.9])
def test_it_leaves_out_as_many_as_asked(wanted: float) -> None:
    held = sum(is_held_out(one, campaign_id=7, share=wanted) for one in PEOPLE)
    assert (
        abs(held / len(PEOPLE) - wanted) < 4 * (wanted * (1 - wanted) / len(PEOPLE)) ** 0.5 + 1e-9
    )


@given(st.text(max_size=20), st.integers(1, 10**9), st.floats(0, 0.9), st.floats(0, 0.9))
def test_a_larger_hold_out_holds_the_same_people_and_more(
    person: str, campaign_id: int, one: float, other: float
) -> None:
    small, large = sorted((one, other))
    held = is_held_out(person, campaign_id=campaign_id, share=small)
    assert not held or is_held_out(person, campaign_id=campaign_id, share=large)
    assert held == is_held_out(person, campaign_id=campaign_id, share=small)


def test_groups_of_one_campaign_say_nothing_of_anothers() -> None:
    both = sum(
        is_held_out(one, campaign_id=1, share=0.5) and is_held_out(one, campaign_id=2, share=0.5)
        for one in PEOPLE
    )
    assert abs(both / len(PEOPLE) - 0.25) < 0.015
    control = sum(
        is_control(one, brand_id=1, share=0.5, salt="a")
        and is_control(one, brand_id=1, share=0.5, salt="b")
        for one in PEOPLE
    )
    assert abs(control / len(PEOPLE) - 0.25) < 0.015


@pytest.mark.parametrize(
    "weights", [{"a": 0.5, "b": 0.5}, {"a": 0.7, "b": 0.2, "c": 0.1}, {"a": 1.0, "b": 0.0}]
)
def test_variants_get_their_shares(weights: dict[str, float]) -> None:
    got = [variant_of(one, campaign_id=7, weights=weights) for one in PEOPLE]
    for name, wanted in weights.items():
        assert abs(got.count(name) / len(PEOPLE) - wanted) < 0.015


def test_only_those_move_who_must_when_shares_change() -> None:
    before = {"a": 0.5, "b": 0.3, "c": 0.2}
    after = {"a": 0.6, "b": 0.2, "c": 0.2}
    for one in PEOPLE[:5_000]:
        was = variant_of(one, campaign_id=7, weights=before)
        became = variant_of(one, campaign_id=7, weights=after)
        assert was == became or (became == "a" or was == "b")


GUARD = Guard(burn_in=100, floor=0.05, freeze_at=0.99)


def test_nothing_is_learnt_before_everybody_had_a_turn() -> None:
    found = allocate({"a": Arm(5_000, 900), "b": Arm(99, 0)}, guard=GUARD, seed=1)
    assert found.weights == {"a": 0.5, "b": 0.5}
    assert found.best is None


def test_the_better_one_gets_more_and_none_less_than_the_floor() -> None:
    arms = {"a": Arm(200, 30), "b": Arm(200, 20), "c": Arm(200, 4)}
    found = allocate(arms, guard=GUARD, seed=1)
    assert found.weights["a"] > found.weights["b"] > found.weights["c"] >= 0.05
    assert sum(found.weights.values()) == pytest.approx(1)


def test_it_freezes_on_one_that_is_surely_the_best() -> None:
    found = allocate({"a": Arm(2_000, 400), "b": Arm(2_000, 200)}, guard=GUARD, seed=1)
    assert (found.best, found.weights) == ("a", {"a": 1.0, "b": 0.0})


def test_the_same_rows_and_step_give_the_same_shares() -> None:
    arms = {"a": Arm(300, 31), "b": Arm(300, 28)}
    seed = learning.seed_of(7, 1, 3)
    assert allocate(arms, guard=GUARD, seed=seed) == allocate(arms, guard=GUARD, seed=seed)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2_000), st.floats(0, 1)), min_size=2, max_size=6))
def test_shares_always_add_up_and_keep_the_floor(told: list[tuple[int, float]]) -> None:
    arms = {f"v{n}": Arm(shown, int(shown * rate)) for n, (shown, rate) in enumerate(told)}
    found = allocate(arms, guard=GUARD, seed=5)
    assert sum(found.weights.values()) == pytest.approx(1)
    if found.best is None:
        assert min(found.weights.values()) >= min(0.05, 1 / len(arms)) - 1e-9
    else:
        assert found.weights[found.best] == 1


def test_it_earns_more_than_sharing_alike() -> None:
    rates = {"a": 0.05, "b": 0.10}
    random = np.random.default_rng(3)
    arms = {name: Arm(0, 0) for name in rates}
    earned = 0
    for step in range(40):
        weights = allocate(arms, guard=GUARD, seed=step).weights
        for name, rate in rates.items():
            shown = round(200 * weights[name])
            converted = int(random.binomial(shown, rate))
            arms[name] = Arm(arms[name].shown + shown, arms[name].converted + converted)
            earned += converted
    assert earned > 1.2 * 40 * 200 * 0.075


@pytest.mark.parametrize(
    ("treated", "control", "low", "high"),
    [  # Newcombe 1998, table II, method 10
        (Arm(70, 56), Arm(80, 48), 0.0524, 0.3339),
        (Arm(10, 9), Arm(10, 3), 0.1705, 0.8090),
        (Arm(7, 6), Arm(7, 2), 0.0582, 0.8062),
        (Arm(56, 5), Arm(29, 0), -0.0381, 0.1926),
        (Arm(10, 0), Arm(20, 0), -0.1611, 0.2775),
        (Arm(10, 0), Arm(10, 0), -0.2775, 0.2775),
        (Arm(10, 10), Arm(20, 0), 0.6791, 1.0000),
        (Arm(10, 10), Arm(10, 0), 0.6075, 1.0000),
    ],
)
def test_its_intervals_are_the_published_ones(
    treated: Arm, control: Arm, low: float, high: float
) -> None:
    assert lift(treated, control).interval == pytest.approx((low, high), abs=0.00006)


def test_its_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(11)
    inside = 0
    for _ in range(600):
        treated = Arm(400, int(random.binomial(400, 0.12)))
        control = Arm(60, int(random.binomial(60, 0.08)))
        found = lift(treated, control)
        inside += found.interval.low <= 0.04 <= found.interval.high
    assert 0.92 < inside / 600 < 0.985


def test_nobody_says_nothing() -> None:
    assert tuple(share(Arm(0, 0))) == (0.0, 1.0)
    assert lift(Arm(5, 1), Arm(5, 0)).relative is None


def crowd(shop: Geofence, count: int) -> list[Device]:
    devices = [make_device(shop.brand, external_id=f"p{shop.pk}-{n}") for n in range(count)]
    for device in devices:
        make_transition(device, shop)
    evaluate_once(now=now())
    return devices


@pytest.mark.django_db
def test_who_is_held_out_passes_every_gate_but_gets_nothing() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    campaign = make_campaign(brand, shop, holdout=0.5, audience={"platform": "android"})
    devices = crowd(shop, 40)
    held = [
        one for one in devices
        if is_held_out(one.external_id or "", campaign_id=campaign.pk, share=0.5)
    ]  # fmt: skip
    assert 8 < len(held) < 32
    ghosts = Decision.objects.filter(reason="held_out")
    assert set(ghosts.values_list("device_id", flat=True)) == {one.pk for one in held}
    assert ghosts[0].trace["group"] == "holdout"
    assert Delivery.objects.count() == 40 - len(held)
    ios = make_device(brand, platform="ios")
    make_transition(ios, shop)
    evaluate_once(now=now())
    assert Decision.objects.get(device_id=ios.pk).reason == "not_in_audience"


@pytest.mark.django_db
def test_both_groups_meet_the_same_caps_and_winners() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    caps = [{"limit": 2, "window_s": DAY_S, "scope": "person"}]
    campaign = make_campaign(brand, shop, holdout=0.5, caps=caps, priority=3)
    make_campaign(brand, shop, name="Other")
    devices = [make_device(brand, external_id=f"p{n}") for n in range(8)]
    for _ in range(3):
        for device in devices:
            make_transition(device, shop)
        evaluate_once(now=now())
    for device in devices:
        mine = Decision.objects.filter(device_id=device.pk, campaign_id=campaign.pk)
        reasons = list(mine.order_by("id").values_list("reason", flat=True))
        first = "held_out" if "held_out" in reasons else "matched"
        assert reasons == [first, first, "cap_reached"]
        other = Decision.objects.filter(device_id=device.pk).exclude(campaign_id=campaign.pk)
        assert list(other.order_by("id").values_list("reason", flat=True)) == [
            "lost_to_priority", "lost_to_priority", "matched",
        ]  # fmt: skip


@pytest.mark.django_db
def test_the_control_group_is_reached_by_no_campaign() -> None:
    brand = make_brand()
    ControlGroup.objects.create(brand=brand, share=0.5, salt="x")
    one, two = make_circle(brand), make_circle(brand)
    make_campaign(brand, one)
    make_campaign(brand, two)
    make_campaign(brand, two, name="Service", transactional=True)
    device = next(
        make_device(brand, external_id=name)
        for name in PEOPLE
        if is_control(name, brand_id=brand.pk, share=0.5, salt="x")
    )
    for shop, minutes_ago in ((one, 2), (two, 1)):
        make_transition(device, shop, occurred_at=now() - timedelta(minutes=minutes_ago))
    evaluate_once(now=now())
    assert list(Delivery.objects.values_list("campaign_name", flat=True)) == ["Service"]
    ghosts = Decision.objects.filter(reason="held_out")
    assert [row.trace["group"] for row in ghosts] == ["control", "control"]


VARIANTS = [{"name": "short", "content": {"title": "Hi"}}, {"name": "long", "weight": 3.0}]


@pytest.mark.django_db
def test_each_person_keeps_one_variant() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    campaign = make_campaign(brand, shop, variants=VARIANTS)
    devices = crowd(shop, 30)
    for device in devices:
        make_transition(device, shop)
    evaluate_once(now=now())
    for device in devices:
        offers = Delivery.objects.filter(device_id=device.pk)
        (variant,) = {offer.variant for offer in offers}
        wanted = {"short": 0.25, "long": 0.75}
        assert variant == variant_of(
            device.external_id or "", campaign_id=campaign.pk, weights=wanted
        )
        titles = {offer.content["title"] for offer in offers}
        assert titles == {"Hi" if variant == "short" else "Coffee"}
        assert Decision.objects.filter(device_id=device.pk)[0].trace["variant"] == variant


@pytest.mark.django_db
def test_what_is_learnt_changes_who_gets_what() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    campaign = make_campaign(
        brand,
        shop,
        variants=VARIANTS,
        goal={"feedback": "opened"},
        optimise={"burn_in": 10, "freeze_at": 0.95},
    )
    crowd(shop, 120)
    for offer in Delivery.objects.filter(variant="short"):
        Feedback.objects.create(delivery=offer, event="opened", occurred_at=now())
    assert learning.learn_all(now=now()) == 1
    allocation = Allocation.objects.get()
    assert allocation.best == "short"
    assert allocation.arms["short"][0] == allocation.arms["short"][1] > 10
    again = experiments.allocate(
        {name: Arm(*arm) for name, arm in allocation.arms.items()},
        guard=Guard(burn_in=10, freeze_at=0.95),
        seed=learning.seed_of(campaign.pk, 1, 1),
    )
    assert again.weights == allocation.weights
    assert learning.learn_all(now=now() + timedelta(hours=1)) == 0  # it is decided
    before = set(Delivery.objects.values_list("id", flat=True))
    crowd(make_circle(brand, external_id="x"), 0)
    for device in Device.objects.filter(brand=brand):
        make_transition(device, shop)
    evaluate_once(now=now())
    later = Delivery.objects.exclude(pk__in=before)
    assert set(later.values_list("variant", flat=True)) == {"short"}


@pytest.mark.django_db
def test_results_compare_offers_with_ghosts_by_place_and_in_all() -> None:
    brand = make_brand()
    shops = [make_circle(brand, name=name, tags=["shop"]) for name in ("North", "South")]
    campaign = make_campaign(
        brand,
        trigger={"on": "entered", "tags": ["shop"]},
        holdout=0.5,
        goal={"event": "purchase", "within_s": DAY_S},
    )
    devices = list(itertools.chain(*(crowd(shop, 60) for shop in shops)))
    offered = set(Delivery.objects.values_list("device_id", flat=True))
    for device in devices:
        if device.pk in offered:
            make_event(
                None, brand, "purchase", external_id=device.external_id,
                occurred_at=now() + timedelta(minutes=1),
            )  # fmt: skip
    late = next(device for device in devices if device.pk not in offered)
    make_event(late, brand, "purchase", occurred_at=now() + timedelta(days=2))
    found = results.results(campaign)
    assert found.lift is not None
    assert found.lift.treated == [len(offered), len(offered)]
    assert found.lift.control == [120 - len(offered), 0]
    assert found.lift.difference == 1.0
    assert found.lift.low > 0.8
    assert {place["name"] for place in found.places} == {"North", "South"}
    answer = caller(make_key(brand))("GET", f"campaigns/{campaign.pk}/results").json()
    assert answer["lift"]["treated_share"] == 1.0
    stranger = caller(make_key(make_brand()))
    assert stranger("GET", f"campaigns/{campaign.pk}/results").status_code == 404


@pytest.mark.django_db
def test_footfall_is_a_goal_too() -> None:
    brand = make_brand()
    shop, till = make_circle(brand), make_circle(brand, tags=["till"])
    campaign = make_campaign(brand, shop, holdout=0.5, goal={"tags": ["till"]})
    devices = crowd(shop, 30)
    till.refresh_from_db()
    assert till.armed_until is not None
    for device in devices[:10]:
        make_transition(device, till, occurred_at=now() + timedelta(minutes=5))
    found = results.results(campaign)
    assert found.lift is not None
    assert found.lift.treated[1] + found.lift.control[1] == 10


@pytest.mark.django_db
def test_the_control_group_is_set_by_the_back_office() -> None:
    brand, other = make_brand(), make_brand()
    office = caller(make_key(brand))
    assert office("GET", "control-group").json() == {"share": 0.0, "salt": "1"}
    answer = office("PUT", "control-group", {"share": 0.05})
    assert (answer.status_code, answer.json()) == (200, {"share": 0.05, "salt": "1"})
    assert office("PUT", "control-group", {"share": 0.6}).status_code == 422
    assert office("GET", "control-group").json()["share"] == 0.05
    assert caller(make_key(other))("GET", "control-group").json()["share"] == 0.0


@pytest.mark.django_db
@pytest.mark.parametrize("role", [Role.SUPPORT, Role.MARKETER])
def test_the_control_group_is_read_by_all_staff_and_set_by_admins(role: Role) -> None:
    client = logged_in(make_member(make_brand(), role))
    assert client.get("/v1/control-group").json() == {"share": 0.0, "salt": "1"}
    answer = client.put("/v1/control-group", {"share": 0.05}, "application/json")
    assert answer.status_code == 403
    assert not ControlGroup.objects.exists()


@given(
    st.lists(st.text(max_size=8), unique=True, max_size=30), st.integers(1, 99), st.floats(0, 0.9)
)
def test_hold_outs_are_who_a_plain_hash_says(
    people: list[str], campaign_id: int, share: float
) -> None:
    """The oracle: the first 53 bits of BLAKE2b as a fraction, written out in words of two."""
    for person in people:
        digest = hashlib.blake2b(
            f"holdout:{campaign_id}\0{person}".encode(), digest_size=8
        ).hexdigest()
        bits = "".join(f"{int(letter, 16):04b}" for letter in digest)[:53]
        place = sum(Fraction(int(bit), 2**number) for number, bit in enumerate(bits, 1))
        assert is_held_out(person, campaign_id=campaign_id, share=share) is (
            place < Fraction(share)
        )

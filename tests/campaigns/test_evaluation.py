"""From rows to decisions and deliveries, on a real database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from campaigns import evaluation, history, judging, places, publishing, rules
from campaigns.content import Scene
from campaigns.evaluation import evaluate_once
from campaigns.models import Campaign, CampaignVersion, Decision, Segment
from campaigns.moments import Happening
from devices.models import Profile, Transition
from notifications.models import Delivery
from tests.campaigns.rows import COFFEE, a_definition, make_campaign, make_event, make_transition
from tests.factories import make_brand, make_circle, make_device

pytestmark = pytest.mark.django_db

DAY_S = 86_400
HELSINKI = ZoneInfo("Europe/Helsinki")
DIVIDED = {"title": "{{ 1 | divided_by: device.attributes.n }}", "body": "b"}


def reasons() -> list[str]:
    return list(Decision.objects.order_by("id").values_list("reason", flat=True))


def test_it_turns_an_entry_into_a_decision_and_a_delivery() -> None:
    brand = make_brand()
    shop, device = make_circle(brand, name="Corner"), make_device(brand, external_id="ann")
    campaign = make_campaign(brand, shop, only_while_inside=True, expires_after_s=600, priority=4)
    entry = make_transition(device, shop)
    at = now()

    assert evaluate_once(now=at) == 1

    decision = Decision.objects.get()
    assert (decision.verdict, decision.reason) == ("send", "matched")
    assert (decision.brand_id, decision.device_id) == (brand.pk, device.pk)
    assert (decision.campaign_id, decision.campaign_version) == (campaign.pk, 1)
    assert (decision.moment_kind, decision.moment_id) == ("transition", entry.pk)
    assert decision.geofence_id == shop.pk
    delivery = Delivery.objects.get()
    assert delivery.content["body"] == "One for you at Corner"
    assert (delivery.decision_id, delivery.person) == (decision.pk, "ann")
    assert (delivery.state, delivery.priority) == ("pending", 4)
    assert delivery.gates == {"timezone": "Europe/Helsinki", "only_while_inside": shop.pk}
    assert abs((delivery.expires_at - at).total_seconds() - 600) < 0.01
    entry.refresh_from_db()
    assert entry.processed_at == at


def test_it_decides_a_moment_once() -> None:
    brand = make_brand()
    shop, device = make_circle(brand), make_device(brand)
    make_campaign(brand, shop)
    make_transition(device, shop)
    assert evaluate_once(now=now()) == 1
    assert evaluate_once(now=now()) == 0
    Transition.objects.update(processed_at=None)  # as if the mark had been lost
    evaluate_once(now=now())
    assert Decision.objects.count() == 1
    assert Delivery.objects.count() == 1
    assert not Transition.objects.filter(processed_at=None).exists()


@pytest.mark.parametrize(
    ("reason", "definition", "transition", "device"),
    [
        ("too_late", {}, {"occurred_at": now() - timedelta(hours=1)}, {}),
        ("initial_state", {}, {"reason": "initial"}, {}),
        ("no_marketing_consent", {}, {}, {"consent_marketing": False}),
        ("no_location_consent", {}, {}, {"consent_location": False}),
        ("not_in_audience", {"audience": {"platform": "ios"}}, {}, {}),
        ("cap_reached", {"caps": [{"limit": 0}]}, {}, {}),
        ("content_error", {"content": DIVIDED}, {}, {"attributes": {"n": 0}}),
    ],
)
def test_it_keeps_the_reason_of_every_refusal(
    reason: str, definition: dict[str, Any], transition: dict[str, Any], device: dict[str, Any]
) -> None:
    brand = make_brand()
    shop = make_circle(brand)
    campaign = make_campaign(brand, shop)
    CampaignVersion.objects.filter(campaign=campaign).update(
        definition=a_definition(shop, **definition)
    )
    make_transition(make_device(brand, **device), shop, **transition)
    evaluate_once(now=now())
    assert reasons() == [reason]
    assert not Delivery.objects.exists()


def test_a_campaign_is_considered_only_where_its_trigger_fits() -> None:
    brand, other = make_brand(), make_brand()
    shop, elsewhere = make_circle(brand, tags=["food"]), make_circle(brand)
    theirs = make_circle(other, tags=["food"])
    fits = [
        make_campaign(brand, shop, name="by id"),
        make_campaign(brand, name="by tag", trigger={"on": "entered", "tags": ["food"]}),
    ]
    make_campaign(brand, elsewhere)
    make_campaign(brand, name="leaving", trigger={"on": "exited", "geofences": [shop.pk]})
    make_campaign(other, name="theirs", trigger={"on": "entered", "tags": ["food"]})
    assert theirs.pk
    make_transition(make_device(brand), shop)
    evaluate_once(now=now())
    assert set(Decision.objects.values_list("campaign_id", flat=True)) == {c.pk for c in fits}


@pytest.mark.parametrize(
    ("wanted", "own", "seen", "considered"),
    [
        (600, None, 600, True),
        (600, None, 300, False),
        (None, 300, 300, True),
        (600, 300, 300, False),
    ],
)
def test_a_dwell_counts_at_its_own_threshold(
    wanted: int | None, own: int | None, seen: int, considered: bool
) -> None:
    brand = make_brand()
    shop = make_circle(brand, dwell_s=own)
    trigger = {"on": "dwelled", "geofences": [shop.pk]} | ({"dwell_s": wanted} if wanted else {})
    make_campaign(brand, trigger=trigger)
    make_transition(make_device(brand), shop, kind="dwelled", dwell_s=seen)
    evaluate_once(now=now())
    assert Decision.objects.exists() is considered


def test_what_was_there_before_must_leave_first_where_the_campaign_says_so() -> None:
    brand = make_brand()
    shop, device = make_circle(brand, dwell_s=60), make_device(brand)
    trigger = {"on": "dwelled", "geofences": [shop.pk]}
    make_campaign(brand, trigger=trigger, initial_state="require_exit")
    make_transition(device, shop, visit_id=1, reason="initial", processed_at=now())
    make_transition(device, shop, visit_id=1, kind="dwelled", dwell_s=60)
    make_transition(device, shop, visit_id=2, processed_at=now())
    make_transition(device, shop, visit_id=2, kind="dwelled", dwell_s=60)
    evaluate_once(now=now())
    assert sorted(reasons()) == ["initial_state", "matched"]
    assert Delivery.objects.count() == 1


def test_one_campaign_wins_a_moment_and_the_others_know_whom_they_lost_to() -> None:
    brand = make_brand()
    shop, device = make_circle(brand), make_device(brand)
    make_campaign(brand, shop, name="Low")
    high = make_campaign(brand, shop, name="High", priority=10)
    make_campaign(brand, shop, name="Service", transactional=True)
    make_transition(device, shop)
    evaluate_once(now=now())
    assert set(Delivery.objects.values_list("campaign_name", flat=True)) == {"High", "Service"}
    lost = Decision.objects.get(reason="lost_to_priority")
    assert (lost.trace["winner_id"], lost.trace["winner"]) == (high.pk, "High")


def test_one_campaign_wins_what_one_fix_brought_about_even_in_two_batches() -> None:
    brand = make_brand()
    one, two, device = make_circle(brand), make_circle(brand), make_device(brand)
    make_campaign(brand, one, name="One")
    make_campaign(brand, two, name="Two")
    at = now() - timedelta(seconds=1)
    for place in (one, two):
        make_transition(device, place, occurred_at=at)
    evaluate_once(now=now(), limit=1)
    evaluate_once(now=now(), limit=1)
    assert sorted(reasons()) == ["lost_to_priority", "matched"]


def test_a_loser_may_speak_where_the_winner_is_capped() -> None:
    brand = make_brand()
    shop, device = make_circle(brand), make_device(brand)
    make_campaign(brand, shop, name="High", priority=10, caps=[{"limit": 1, "window_s": DAY_S}])
    make_campaign(brand, shop, name="Low")
    make_transition(device, shop, occurred_at=now() - timedelta(seconds=5))
    make_transition(device, shop)
    evaluate_once(now=now())
    assert set(Delivery.objects.values_list("campaign_name", flat=True)) == {"High", "Low"}
    assert sorted(reasons()) == ["cap_reached", "lost_to_priority", "matched", "matched"]


@pytest.mark.parametrize("scope", ["device", "person", "place", "campaign", "brand"])
def test_a_cap_holds_within_a_batch_and_over_batches(scope: str) -> None:
    brand = make_brand()
    shop, device = make_circle(brand), make_device(brand, external_id="ann")
    make_campaign(brand, shop, caps=[{"limit": 2, "window_s": DAY_S, "scope": scope}])
    for second in range(5):
        make_transition(device, shop, occurred_at=now() - timedelta(seconds=10 + second))
    assert evaluate_once(now=now(), limit=3) == 3
    assert evaluate_once(now=now(), limit=3) == 2
    assert Delivery.objects.count() == 2
    assert reasons().count("cap_reached") == 3


def test_a_person_with_two_phones_is_one_person() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop, caps=[{"limit": 1, "window_s": DAY_S, "scope": "person"}])
    for _ in range(2):
        make_transition(make_device(brand, external_id="ann"), shop)
    evaluate_once(now=now())
    assert Delivery.objects.count() == 1


def test_what_a_phone_was_offered_before_its_owner_logged_in_counts_for_it() -> None:
    brand = make_brand()
    shop, device = make_circle(brand), make_device(brand)
    make_campaign(brand, shop, caps=[{"limit": 1, "window_s": DAY_S}])
    make_transition(device, shop)
    evaluate_once(now=now())
    device.external_id = "ann"
    device.save()
    make_transition(device, shop)
    evaluate_once(now=now())
    assert reasons() == ["matched", "cap_reached"]


def test_the_brands_caps_count_over_its_campaigns() -> None:
    brand = make_brand(caps=[{"limit": 1, "window_s": DAY_S, "scope": "device"}])
    one, two, device = make_circle(brand), make_circle(brand), make_device(brand)
    make_campaign(brand, one)
    make_campaign(brand, two)
    make_transition(device, one, occurred_at=now() - timedelta(seconds=5))
    make_transition(device, two)
    evaluate_once(now=now())
    assert reasons().count("cap_reached") == 1
    assert Decision.objects.get(reason="cap_reached").trace["of"] == "brand"


def test_the_brands_cap_on_everybody_counts_over_its_campaigns() -> None:
    cap = {"limit": 2, "window_s": DAY_S, "scope": "brand"}
    for brand in (make_brand(caps=[cap]), make_brand(caps=[cap])):
        shops = [make_circle(brand) for _ in range(3)]
        for shop in shops:
            make_campaign(brand, shop)
            make_transition(make_device(brand), shop)
            evaluate_once(now=now())
    assert reasons() == ["matched", "matched", "cap_reached"] * 2


def test_the_brands_cap_is_read_by_its_campaigns_not_over_all_it_sent() -> None:
    brand = make_brand()
    campaigns = [make_campaign(brand, make_circle(brand)).pk for _ in range(3)]
    device = make_device(brand)
    Delivery.objects.bulk_create(
        Delivery(
            brand_id=brand.pk,
            device_id=device.pk,
            person=f"device:{device.pk}",
            campaign_id=campaigns[number % 3],
            campaign_name="Coffee",
            moment_kind="transition",
            key=str(number),
            content=COFFEE,
            state="sent",
            created_at=(at := now() - timedelta(minutes=number)),
            due_at=at,
            expires_at=at,
            sent_at=at,
        )
        for number in range(2_000)
    )
    asked = ([brand.pk], [now() - timedelta(days=10)], [100], list(history.COUNTED))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE notifications_delivery, campaigns_campaign")
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {history._SHARED_OF_BRANDS}", asked)
        ((plan,),) = cursor.fetchall()
    looks = [one for one in nodes(plan[0]["Plan"]) if one.get("Alias") == "d"]
    assert [one.get("Index Name") for one in looks] == ["deliveries_by_campaign"]
    assert looks[0]["Actual Loops"] == 3
    assert looks[0]["Actual Rows"] == 100, "no more than could change a verdict"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's node and all below it."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def test_an_offer_that_was_not_made_gives_its_place_back() -> None:
    brand = make_brand()
    shop, device = make_circle(brand), make_device(brand)
    make_campaign(brand, shop, caps=[{"limit": 1, "window_s": DAY_S}])
    make_transition(device, shop)
    evaluate_once(now=now())
    Delivery.objects.update(state="failed")
    make_transition(device, shop)
    evaluate_once(now=now())
    assert reasons() == ["matched", "matched"]


def test_a_cap_on_a_tag_counts_over_places_and_campaigns() -> None:
    brand = make_brand(caps=[{"limit": 1, "window_s": DAY_S, "scope": "tag", "tag": "food"}])
    one, two = make_circle(brand, tags=["food"]), make_circle(brand, tags=["food", "late"])
    device = make_device(brand)
    make_campaign(brand, one)
    make_campaign(brand, two)
    make_transition(device, one)
    evaluate_once(now=now())
    make_transition(device, two)
    evaluate_once(now=now())
    assert reasons() == ["matched", "cap_reached"]


def test_quiet_hours_hold_an_offer_until_they_end() -> None:
    brand = make_brand(quiet_hours={"from": "00:00", "to": "23:59"})
    shop = make_circle(brand)
    make_campaign(brand, shop, quiet_hours="hold")
    noon = (now().astimezone(HELSINKI) + timedelta(days=1)).replace(hour=12)
    make_transition(make_device(brand), shop, occurred_at=noon - timedelta(seconds=1))
    evaluate_once(now=noon)
    assert reasons() == ["held"]
    delivery = Delivery.objects.get()
    assert delivery.due_at == noon.replace(hour=23, minute=59, second=0, microsecond=0)
    assert delivery.gates["quiet_hours"] == {"from": "00:00", "to": "23:59", "policy": "hold"}


def test_what_the_back_office_knows_counts_unless_the_device_said_it_later() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop, audience={"attribute": "plan", "value": "prepaid"})
    Profile.objects.create(
        brand=brand,
        external_id="ann",
        attributes={"plan": "prepaid"},
        attribute_facts={"plan": {"source": "crm", "at": "2026-02-01T00:00:00+00:00"}},
    )
    for at in ("2026-01-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00"):
        device = make_device(
            brand,
            external_id="ann",
            attributes={"plan": "postpaid"},
            attribute_facts={"plan": {"source": "app", "at": at}},
        )
        make_transition(device, shop)
        evaluate_once(now=now())
    assert reasons() == ["matched", "not_in_audience"]


def test_an_audience_may_ask_for_past_events_and_visits() -> None:
    brand = make_brand()
    shop, rival = make_circle(brand), make_circle(brand, tags=["rival"])
    audience = {
        "all": [
            {"visits": {"tags": ["rival"]}, "op": "gte", "value": 2, "within_s": 14 * DAY_S},
            {"event": "purchase", "op": "lt", "value": 1, "within_s": DAY_S},
        ]
    }
    make_campaign(brand, shop, audience=audience)
    keen, buyer, loyal = (make_device(brand, external_id=name) for name in ("a", "b", "c"))
    for device in (keen, buyer):
        for days in (3, 9):
            at = now() - timedelta(days=days)
            make_transition(device, rival, occurred_at=at, processed_at=at)
    make_event(None, brand, "purchase", external_id="b", processed_at=now())
    for device in (keen, buyer, loyal):
        make_transition(device, shop)
    evaluate_once(now=now())
    found = dict(Decision.objects.values_list("device_id", "reason"))
    assert found == {
        keen.pk: "matched",
        buyer.pk: "not_in_audience",
        loyal.pk: "not_in_audience",
    }


def test_an_event_sets_a_campaign_off_on_the_device_heard_of_last() -> None:
    brand = make_brand()
    make_device(brand, external_id="ann")
    newer = make_device(brand, external_id="ann")
    type(newer.state).objects.filter(pk=newer.pk).update(received_at=now())
    trigger = {"on": "event", "event": "balance_low", "where": {"level": 1}}
    content = {"title": "Top up", "body": "{{ event.properties.left }} left"}
    make_campaign(brand, trigger=trigger, content=content)
    make_event(None, brand, "balance_low", external_id="ann", properties={"level": 1, "left": 2})
    make_event(newer, brand, "balance_low", properties={"level": 2})
    make_event(newer, brand, "other")
    make_event(None, brand, "balance_low", external_id="nobody", properties={"level": 1})
    assert evaluate_once(now=now()) == 4
    assert sorted(reasons()) == ["event_differs", "matched"]
    delivery = Delivery.objects.get()
    assert (delivery.device_id, delivery.content["body"]) == (newer.pk, "2 left")


def test_a_broken_campaign_refuses_by_itself_and_stops_no_other() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    broken, unreadable, sound = (make_campaign(brand, shop, name=n) for n in "abc")
    CampaignVersion.objects.filter(campaign=broken).update(
        definition=a_definition(shop, audience={"colour": "red"})
    )
    CampaignVersion.objects.filter(campaign=unreadable).update(definition={"trigger": 3})
    make_transition(make_device(brand), shop)
    assert evaluate_once(now=now()) == 1
    found = dict(Decision.objects.values_list("campaign_id", "reason"))
    assert found == {broken.pk: "malformed", sound.pk: "matched"}


def test_a_brand_with_broken_caps_says_nothing_rather_than_too_much() -> None:
    brand, other = make_brand(caps=[{"limit": "many"}]), make_brand()
    for one in (brand, other):
        shop = make_circle(one)
        campaign = Campaign.objects.create(brand=one, name="x", state="live")
        campaign.live_version = CampaignVersion.objects.create(
            campaign=campaign, number=1, name="x", definition=a_definition(shop)
        )
        campaign.save()
        make_transition(make_device(one), shop)
    evaluate_once(now=now())
    assert dict(Decision.objects.values_list("brand_id", "reason")) == {
        brand.pk: "malformed",
        other.pk: "matched",
    }


def test_a_row_that_breaks_the_batch_is_parked_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop)
    make_campaign(brand, name="Thanks", trigger={"on": "event", "event": "purchase"})
    poison = make_transition(make_device(brand, locale="poison"), shop)
    sound = [make_transition(make_device(brand), shop) for _ in range(3)]
    bought = make_event(make_device(brand), brand, "purchase")
    scene_of = judging.scene_of

    def explode(happening: Happening, campaign: rules.Campaign) -> Scene:
        if happening.moment.subject.locale == "poison":
            raise ArithmeticError("spoilt")
        return scene_of(happening, campaign)

    monkeypatch.setattr(judging, "scene_of", explode)
    assert evaluate_once(now=now()) == 5
    poison.refresh_from_db()
    bought.refresh_from_db()
    assert (poison.parked_reason, bought.parked_reason) == ("spoilt", "")
    assert Delivery.objects.count() == 4
    assert {row.pk for row in Transition.objects.filter(parked_reason="")} == {
        row.pk for row in sound
    }


def test_what_a_large_batch_refuses_is_written_piece_by_piece_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "COPIED_ROWS", 3)
    brand = make_brand()
    shop = make_circle(brand)
    make_campaign(brand, shop, audience={"attribute": "tier", "value": "gold"})
    for _ in range(3):
        make_campaign(brand, shop)
    moments = [make_transition(make_device(brand), shop).pk for _ in range(5)]
    assert evaluate_once(now=now()) == 5
    by_moment = {moment: Counter[str]() for moment in moments}
    for moment, reason in Decision.objects.values_list("moment_id", "reason"):
        by_moment[moment][reason] += 1
    wanted = {"not_in_audience": 1, "matched": 1, "lost_to_priority": 2}
    assert list(by_moment.values()) == [wanted] * 5


def test_a_change_is_seen_by_the_next_batch() -> None:
    brand = make_brand()
    shop, device = make_circle(brand), make_device(brand)
    segment = Segment.objects.create(
        brand=brand, name="Gold", slug="gold", tree={"attribute": "tier", "value": "gold"}
    )
    campaign = make_campaign(brand, shop, audience={"segment": "gold"})
    make_transition(device, shop)
    evaluate_once(now=now())
    segment.tree = {}
    segment.save()
    make_transition(device, shop)
    evaluate_once(now=now())
    publishing.pause(campaign, actor=None)
    make_transition(device, shop)
    evaluate_once(now=now())
    assert reasons() == ["not_in_audience", "matched"]


def test_a_device_that_was_erased_leaves_no_decision() -> None:
    brand = make_brand()
    shop, device = make_circle(brand), make_device(brand)
    make_campaign(brand, shop)
    make_transition(device, shop)
    device.delete()
    assert evaluate_once(now=now()) == 1
    assert not Decision.objects.exists()


def queries(transitions: int) -> list[str]:
    brand = make_brand(caps=[{"limit": 9, "window_s": DAY_S, "scope": "brand"}])
    shops = [make_circle(brand, tags=["food"]) for _ in range(3)]
    audience = {
        "any": [
            {"event": "purchase", "op": "missing"},
            {"event": "purchase", "value": 0},
            {"visits": {"tags": ["food"]}, "value": 1},
        ]
    }
    for number in range(10):
        make_campaign(
            brand,
            name=f"campaign {number}",
            trigger={"on": "entered", "tags": ["food"]},
            audience=audience,
            caps=[{"limit": 5, "window_s": DAY_S, "scope": "campaign"}],
        )
    for number in range(transitions):
        make_transition(make_device(brand, external_id=f"p{number}"), shops[number % 3])
    places._places.clear()  # publishing has looked at some of them in this very process
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert evaluate_once(now=now()) == transitions
    return [query["sql"] for query in captured.captured_queries]


def test_it_asks_the_same_number_of_questions_for_one_row_and_for_many() -> None:
    few, many = queries(2), queries(60)
    assert len(few) == len(many)
    # savepoint, 2 claims, mark, 6 catalogue, 2 places, devices, 2 behaviour, person locks,
    # 2 shared caps with their locks, offers, siblings, ids, 2 copies, enqueue and notices, done.
    assert len(many) <= 31
    assert Delivery.objects.filter(campaign_name="campaign 0").count() == 2 + 5

"""The support desk: lists that page by an index, stories that are whole, why and why not."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.urls import reverse
from django.utils.timezone import now

from campaigns import lookup, publishing, story, timeline, whynot
from campaigns.admin.support import DeliveryDesk
from campaigns.entries import Entry
from campaigns.models import Campaign, Decision
from devices.models import Device, DeviceState, Fix, Presence, Transition
from devices.presence import CERTAINTY, Sighting, classify
from notifications.models import Delivery
from tests.campaigns.rows import a_definition, make_campaign, make_event, make_transition
from tests.factories import make_circle, make_device
from tests.notifications.rows import make_delivery
from tests.places import AT_THE_DOOR
from tests.staff import World, logged_in, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    return make_world("Bara")


def make_decision(world: World, **fields: Any) -> Decision:
    number = 1_000_000 + Decision.objects.count()  # beyond the ids of real moments
    return Decision.objects.create(
        **{
            "brand_id": world.brand.pk,
            "device_id": world.device.pk,
            "campaign_id": world.campaign.pk,
            "campaign_version": 1,
            "moment_kind": "transition",
            "moment_id": number,
            "verdict": "refuse",
            "reason": "quiet_hours",
            "trace": {"local": "2026-11-22T23:00+01:00"},
            "decided_at": now(),
        }
        | fields
    )


def test_it_pages_through_rows_of_one_instant_without_losing_any(world: World) -> None:
    at = now() - timedelta(hours=1)
    other = make_campaign(world.brand, world.geofence, name="Other")
    for number in range(25):
        campaign = world.campaign if number % 2 else other
        make_decision(world, decided_at=at, campaign_id=campaign.pk)
    seen: list[int] = []
    older = None
    while True:
        page = lookup.find(Decision, brand_id=world.brand.pk, older=older, limit=7, now=now())
        seen += [row.pk for row in page.rows]
        if page.older is None:
            break
        older = lookup.Place.read(str(page.older))
    wanted = Decision.objects.order_by("-decided_at", "-id").values_list("pk", flat=True)
    assert seen == list(wanted)


def test_it_finds_the_newest_of_a_kind_however_far_back(world: World) -> None:
    """The tries of one hour, one day and one week answer as one look at everything would."""
    ages = [timedelta(minutes=5), timedelta(hours=3), timedelta(days=3), timedelta(days=40)]
    wanted = [make_decision(world, decided_at=now() - age, reason="held").pk for age in ages * 2]
    for limit in (1, 3, 5, 50):
        seen: list[int] = []
        older = None
        while True:
            page = lookup.find(
                Decision,
                brand_id=world.brand.pk,
                equal={"reason": "held"},
                older=older,
                limit=limit,
                now=now(),
            )
            seen += [row.pk for row in page.rows]
            if page.older is None:
                break
            older = page.older
        assert sorted(seen) == sorted(wanted)
        assert len(seen) == len(set(seen))


def test_it_finds_deliveries_by_device_person_campaign_state_and_time(world: World) -> None:
    stranger = make_device(world.brand, external_id="stranger")
    old = now() - timedelta(days=9)
    other = make_delivery(
        stranger,
        campaign_id=world.campaign.pk,
        person="stranger",
        created_at=old,
        due_at=old,
        expires_at=old + timedelta(hours=1),
    )
    client = logged_in(world.admin)
    address = reverse("admin:notifications_delivery_changelist")

    def found(**query: Any) -> set[int]:
        return {row.pk for row in client.get(address, query).context["rows"]}

    mine = world.delivery.pk
    assert found() == {mine, other.pk}
    assert found(q="Bara-person") == {mine}
    assert found(q=world.device.pk) >= {mine}
    assert found(q=mine) >= {mine}
    assert found(campaign=world.campaign.pk) == {mine, other.pk}
    assert found(state="sent") == {mine}
    assert found(state="pending") == {other.pk}
    assert found(when="day") == {mine}
    assert found(until=f"{now() - timedelta(days=1):%Y-%m-%dT%H:%M:%S}") == {other.pk}
    assert found(q="nobody") == set()


def test_it_says_in_which_zone_a_time_is_meant(world: World) -> None:
    world.brand.timezone = "Asia/Tokyo"
    world.brand.save()
    page = logged_in(world.admin).get(reverse("admin:campaigns_decision_changelist"))
    assert "Before, in Asia/Tokyo" in page.content.decode()


def test_it_finds_decisions_by_verdict_and_reason(world: World) -> None:
    refused = make_decision(world)
    client = logged_in(world.admin)
    address = reverse("admin:campaigns_decision_changelist")

    def found(**query: Any) -> set[int]:
        return {row["decision"].pk for row in client.get(address, query).context["rows"]}

    assert found(verdict="refuse") == {refused.pk}
    assert found(verdict="send") == {world.decision.pk}
    assert found(reason="quiet_hours", when="hour") == {refused.pk}


@pytest.mark.parametrize(
    "query", ["state=nonsense", "campaign=x", "until=never", "older=1-x", "q=%00"]
)
def test_it_answers_nonsense_with_a_page(world: World, query: str) -> None:
    for page in ("notifications_delivery", "campaigns_decision"):
        answer = logged_in(world.admin).get(f"{reverse(f'admin:{page}_changelist')}?{query}")
        assert answer.status_code == 200


def test_it_says_what_to_narrow_where_a_search_takes_too_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(*_args: object, **_kwargs: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(5)")

    monkeypatch.setattr(DeliveryDesk, "limit_ms", 50)
    monkeypatch.setattr(DeliveryDesk, "find", sleep)
    answer = logged_in(world.admin).get(reverse("admin:notifications_delivery_changelist"))
    assert "too much to search through" in answer.content.decode()


def test_it_searches_no_longer_where_the_page_asked_for_is_not_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_args: object, older: str | None, **_kwargs: object) -> None:
        if older is not None:
            raise ValueError(older)
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("50ms",)
            cursor.execute("SELECT pg_sleep(5)")

    monkeypatch.setattr(DeliveryDesk, "limit_ms", 50)
    monkeypatch.setattr(DeliveryDesk, "find", slow)
    address = reverse("admin:notifications_delivery_changelist")
    page = logged_in(world.admin).get(address, {"older": "garbage"}).content.decode()
    assert "That page is not there" in page
    assert "too much to search through" in page


def test_it_shows_what_it_found_before_a_search_took_too_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = lookup._Question.answer

    def slow(self: lookup._Question, since: datetime | None) -> list[int]:
        if since is None:
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)")
        return answer(self, since)

    monkeypatch.setattr(lookup._Question, "answer", slow)
    address = reverse("admin:notifications_delivery_changelist")
    page = logged_in(world.admin).get(address, {"state": "sent"})
    assert [row.pk for row in page.context["rows"]] == [world.delivery.pk]
    assert "Searched back to" in page.content.decode()


def test_it_tells_a_delivery_from_the_position_to_what_the_phone_said(world: World) -> None:
    told = story.of_one_delivery(world.delivery)
    kinds = [entry.kind for entry in told.entries]
    assert kinds == ["transition", "decision", "delivery", "attempt", "feedback"]
    page = logged_in(world.admin).get(
        reverse("admin:notifications_delivery_change", args=[world.delivery.pk])
    )
    body = page.content.decode()
    assert "Entered Bara shop" in body
    assert '<svg class="nc-sketch"' in body
    assert 'class="entered"' in body


def test_it_tells_nothing_before_what_led_to_it(world: World) -> None:
    late = world.delivery.created_at + timedelta(seconds=30)
    world.delivery.attempts.update(at=late)  # noted after the phone has answered
    Delivery.objects.filter(pk=world.delivery.pk).update(
        created_at=world.delivery.created_at - timedelta(minutes=1)
    )
    world.delivery.refresh_from_db()
    told = story.of_one_delivery(world.delivery)
    kinds = [entry.kind for entry in told.entries]
    assert kinds == ["transition", "decision", "delivery", "attempt", "feedback"]


def test_it_does_not_say_when_an_offer_was_due_that_was_sent_again(world: World) -> None:
    def facts() -> set[str]:
        told = story.of_one_delivery(world.delivery).entries
        (written,) = (entry for entry in told if entry.kind == "delivery")
        return {name for name, _ in written.facts}

    assert {"due", "expires"} <= facts()
    world.delivery.actions.create(action="resend", at=now())
    assert not {"due", "expires"} & facts()


def test_it_names_what_other_campaigns_decided_at_the_same_moment(world: World) -> None:
    rival = make_campaign(world.brand, world.geofence, name="Rival")
    make_decision(
        world,
        campaign_id=rival.pk,
        moment_id=world.transition.pk,
        reason="lost_to_priority",
        trace={"winner": "Bara campaign"},
    )
    [other] = story.of_one_delivery(world.delivery).others
    assert other.title.startswith("Rival")
    assert "Bara campaign" in other.text


def history(device: Device, limit: int, **wanted: Any) -> list[Entry]:
    entries: list[Entry] = []
    older = None
    while True:
        page, older = timeline.of_device(
            device, timeline.Wanted(**wanted, older=older), limit=limit
        )
        entries += page
        if older is None:
            return entries
        older = timeline.Spot.read(str(older))


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_it_pages_a_timeline_without_losing_or_repeating_an_entry(world: World, limit: int) -> None:
    at = now() - timedelta(hours=1)
    for number in range(6):
        make_decision(world, decided_at=at)
        make_event(world.device, world.brand, f"event-{number}", occurred_at=at)
    make_transition(world.device, world.geofence, occurred_at=at)
    found = history(world.device, limit)
    assert len(found) == 6 + 6 + 1 + 3  # and what the world itself began with
    assert len({(entry.kind, entry.id) for entry in found}) == len(found)
    assert [entry.at for entry in found] == sorted((e.at for e in found), reverse=True)


def test_it_narrows_a_timeline_to_a_campaign_and_a_verdict(world: World) -> None:
    make_event(world.device, world.brand, "purchase")
    rival = make_campaign(world.brand, world.geofence, name="Rival")
    make_decision(world, campaign_id=rival.pk)
    assert {e.kind for e in history(world.device, 50, campaign_id=world.campaign.pk)} == {
        "decision",
        "delivery",
    }
    [entry] = history(world.device, 50, verdict="refuse")
    assert entry.title.startswith("Rival")


def test_it_keeps_another_brands_rows_out_of_a_timeline(world: World) -> None:
    make_decision(world, brand_id=world.brand.pk + 1000)
    assert len(history(world.device, 50)) == 3


def reasons(world: World, campaign: Campaign | None = None) -> str:
    campaign = campaign or world.campaign
    campaign.refresh_from_db()
    world.device.refresh_from_db()
    said = whynot.in_words_of(world.device, campaign, now=now())
    return " ".join(f"{words.title} {words.text}" for words in said)


def never_decided(world: World, **fields: Any) -> Campaign:
    """A live campaign that has not considered the device."""
    return make_campaign(world.brand, world.geofence, name="New", **fields)


def test_it_answers_why_with_the_decisions(world: World) -> None:
    address = reverse("admin:devices_device_change", args=[world.device.pk])
    body = logged_in(world.admin).get(address, {"why": world.campaign.pk}).content.decode()
    assert "the offer was made" in body
    assert "never considered" not in body


def test_it_answers_why_not_where_nothing_was_decided(world: World) -> None:
    campaign = never_decided(world)
    address = reverse("admin:devices_device_change", args=[world.device.pk])
    body = logged_in(world.admin).get(address, {"why": campaign.pk}).content.decode()
    assert "never considered this device" in body


def test_it_says_that_a_campaign_is_a_draft(world: World) -> None:
    draft = publishing.create(
        brand=world.brand, name="Draft", raw=a_definition(world.geofence), actor=None
    )
    assert "never published" in reasons(world, draft)


def test_it_says_that_a_campaign_is_paused(world: World) -> None:
    publishing.pause(campaign := never_decided(world), actor=None)
    assert "paused" in reasons(world, campaign)


def test_it_says_that_consent_is_missing(world: World) -> None:
    campaign = never_decided(world)
    Device.objects.filter(pk=world.device.pk).update(consent_location=False)
    assert "has not agreed" in reasons(world, campaign)


def test_it_says_that_a_device_never_reported(world: World) -> None:
    campaign = never_decided(world)
    DeviceState.objects.filter(pk=world.device.pk).update(received_at=None)
    assert "never reported a position" in reasons(world, campaign)


def test_it_says_that_a_device_is_silent_since_the_campaign_began(world: World) -> None:
    assert "has not reported a position since" in reasons(world, never_decided(world))


def seen_now(world: World, **fields: Any) -> None:
    DeviceState.objects.filter(pk=world.device.pk).update(
        **{"received_at": now(), "recorded_at": now()} | fields
    )


def test_it_says_that_no_geofence_is_armed(world: World) -> None:
    campaign = never_decided(world)
    seen_now(world)
    world.geofence.retired_at = now()
    world.geofence.save()
    assert "is armed" in reasons(world, campaign)


def test_it_names_the_nearest_miss_in_metres(world: World) -> None:
    campaign = never_decided(world)
    seen_now(world, lat=60.1750, lng=24.9384)  # some 470 m from the edge of the shop
    said = reasons(world, campaign)
    found = re.search(r"nearest it came: (\d+) m from Bara shop", said)
    assert found, said
    assert 440 < int(found[1]) < 500


def test_it_says_with_which_accuracy_a_miss_would_have_counted(world: World) -> None:
    campaign = never_decided(world)
    Fix.objects.all().delete()
    seen_now(world, lat=AT_THE_DOOR.lat, lng=AT_THE_DOOR.lng, accuracy_m=5_000.0)
    said = reasons(world, campaign)
    found = re.search(r"would have counted with an accuracy under (\d+) m", said)
    assert found, said
    enough_m = float(found[1])
    # As the road judges it: with that accuracy it is inside, with what was reported unsure.
    for accuracy_m, sighting in ((enough_m, Sighting.INSIDE), (5_000.0, Sighting.UNSURE)):
        judged = classify(
            np.array([CERTAINTY * enough_m]),
            np.array([accuracy_m]),
            believed_inside=np.array([False]),
            exit_buffer_m=np.array([20.0]),
        )
        assert judged.tolist() == [sighting]


def test_it_speaks_french_to_those_who_do(world: World) -> None:
    Decision.objects.update(verdict="refuse", reason="no_marketing_consent", trace={})
    client = logged_in(world.admin)
    page = client.get("/admin/campaigns/decision/", headers={"accept-language": "fr"})
    assert "n’a pas accepté la prospection" in page.content.decode()
    page = client.get("/admin/campaigns/decision/", headers={"accept-language": "de"})
    assert "has not agreed to marketing" in page.content.decode()


def test_reasons_change_language_by_a_switch_and_nothing_else_does(world: World) -> None:
    Decision.objects.update(verdict="refuse", reason="no_marketing_consent", trace={})
    client = logged_in(world.admin)
    why = Campaign.objects.get().pk
    pages = {
        "the list": reverse("admin:campaigns_decision_changelist"),
        "a decision": reverse("admin:campaigns_decision_change", args=[world.decision.pk]),
        "a delivery": reverse("admin:notifications_delivery_change", args=[world.delivery.pk]),
        "a device": reverse("admin:devices_device_change", args=[world.device.pk]) + f"?why={why}",
    }

    def read(address: str) -> str:
        return client.get(address, headers={"accept-language": "fr-FR,fr;q=0.9"}).content.decode()

    for title, address in pages.items():
        page = read(address)
        assert "n’a pas accepté la prospection" in page, title
        assert '<html lang="en"' in page, title
        # Words of Django's and of the theme's that their French catalogues would put in.
        assert not re.findall("Déconnexion|Thème|Rechercher|Accueil|Historique", page), title

    change = reverse("admin:campaigns_reading")
    answer = client.post(change, {"language": "en", "next": pages["a device"] + "#why"})
    assert (answer.status_code, answer["Location"]) == (303, pages["a device"] + "#why")
    for title, address in pages.items():
        page = read(address)
        assert "has not agreed to marketing" in page, title
        assert "prospection" not in page, title


@pytest.mark.parametrize("elsewhere", ["https://example.com/", "//example.com", "javascript:1", ""])
def test_the_switch_between_languages_leads_nowhere_else(world: World, elsewhere: str) -> None:
    answer = logged_in(world.admin).post(
        reverse("admin:campaigns_reading"), {"language": "tlh", "next": elsewhere}
    )
    assert answer["Location"] == reverse("admin:campaigns_decision_changelist")
    assert not answer.cookies


def test_it_says_that_more_positions_must_agree(world: World) -> None:
    campaign = never_decided(world)
    seen_now(world)
    Presence.objects.create(
        device_id=world.device.pk,
        geofence_id=world.geofence.pk,
        brand_id=world.brand.pk,
        state="entering",
        visit_id=1,
        entered_at=now(),
        since_at=now(),
        due_at=now(),
    )
    assert "more positions must agree" in reasons(world, campaign)


def test_it_says_that_a_stay_was_too_short(world: World) -> None:
    campaign = never_decided(
        world, trigger={"on": "dwelled", "geofences": [world.geofence.pk], "dwell_s": 900}
    )
    seen_now(world)
    at = now() + timedelta(seconds=1)
    make_transition(world.device, world.geofence, occurred_at=at, visit_id=77)
    make_transition(
        world.device,
        world.geofence,
        kind="exited",
        visit_id=77,
        entered_at=at,
        occurred_at=at + timedelta(minutes=4),
    )
    said = reasons(world, campaign)
    assert "did not stay for 15 min" in said
    assert "4 min" in said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"processed_at": None}, "waits to be decided"),
        ({"processed_at": None, "parked_reason": "broken"}, "set aside as broken"),
    ],
)
def test_it_says_what_became_of_the_moment(world: World, fields: dict[str, Any], said: str) -> None:
    campaign = never_decided(world)
    seen_now(world)
    make_transition(
        world.device, world.geofence, occurred_at=now() + timedelta(seconds=1), **fields
    )
    assert said in reasons(world, campaign)


def test_it_says_that_an_event_has_not_come(world: World) -> None:
    campaign = never_decided(world, trigger={"on": "event", "event": "balance_low"})
    assert "balance_low" in reasons(world, campaign)


def test_it_always_says_something(world: World) -> None:
    elsewhere = make_circle(world.brand, name="Elsewhere")
    for trigger in ("entered", "dwelled", "exited"):
        raw: dict[str, Any] = {"on": trigger, "geofences": [elsewhere.pk]}
        raw |= {"dwell_s": 60} if trigger == "dwelled" else {}
        campaign = make_campaign(world.brand, name=trigger, trigger=raw)
        seen_now(world)
        assert reasons(world, campaign)


def test_it_asks_of_a_story_no_more_rows_than_its_page(
    world: World, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        make_decision(world)
    client = logged_in(world.admin)
    with django_assert_max_num_queries(30):
        client.get(reverse("admin:devices_device_change", args=[world.device.pk]))
    assert Transition.objects.count() == 1
    assert Delivery.objects.count() == 1

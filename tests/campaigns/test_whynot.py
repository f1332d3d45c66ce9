"""Why a campaign never considered a device, where a schedule or a sequence is to set it off."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Brand, Role
from campaigns import scheduling, whynot
from campaigns.evaluation import evaluate_once
from campaigns.models import Campaign, Decision, Occurrence
from campaigns.obstacles import _WORDS, Obstacle, in_words
from devices.models import Device, DeviceState
from geofences.models import Geofence
from tests.campaigns.rows import make_campaign, make_event, make_transition
from tests.factories import make_brand, make_circle, make_device
from tests.staff import logged_in, make_member

HELSINKI = ZoneInfo("Europe/Helsinki")
AT = datetime(2026, 6, 10, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize("obstacle", Obstacle)
def test_every_obstacle_has_words_in_both_languages(obstacle: Obstacle) -> None:
    english, french = _WORDS[obstacle]
    names = [
        {name for part in words for _, name, *_ in string.Formatter().parse(part) if name}
        for words in (english, french)
    ]
    assert names[0] == names[1]
    values: dict[str, Any] = dict.fromkeys(names[0] - {"how_sure", "next"}, "7")
    for language in ("en", "fr"):
        said = in_words(obstacle, language, HELSINKI, **values)
        assert said.title
        assert "{" not in f"{said.title}{said.text}"
    assert (
        in_words(obstacle, "de", HELSINKI, **values).title
        == in_words(obstacle, "en", HELSINKI, **values).title
    )


def test_times_are_those_of_the_devices_clock_and_say_so() -> None:
    said = in_words(
        Obstacle.EDGE_ACCURACY, "fr", HELSINKI, place="Bara", at=AT, accuracy_m=60.2, enough_m=35
    )
    assert said.text == (
        "Le 2026-06-10 12:00 Europe/Helsinki, avec une précision de 60 m : l’incertitude dépassait "
        "le bord. Cela aurait compté avec une précision meilleure que 35 m."
    )
    useless = in_words(Obstacle.USELESS_FIXES, "fr", HELSINKI, count=9, of=9, why="mocked")
    assert (
        useless.title
        == "9 de ses 9 dernières positions étaient simulées par un outil sur l’appareil."
    )
    needed = in_words(
        Obstacle.TOO_SHORT, "fr", HELSINKI, needed=None, longest_min=1, place="x", at=AT
    )
    assert "le temps de séjour demandé" in needed.title


pytestmark = pytest.mark.django_db


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def shop(brand: Brand) -> Geofence:
    return make_circle(brand, name="Stadium", tags=["stadium"])


@pytest.fixture
def ann(brand: Brand) -> Device:
    device = make_device(brand, external_id="ann")
    DeviceState.objects.filter(pk=device.pk).update(received_at=now() - timedelta(days=1))
    return device


def at_nine(brand: Brand, **fields: Any) -> Campaign:
    """Every day at nine, on the phone's clock."""
    trigger = {"on": "schedule", "tags": ["stadium"], "times": ["09:00"]}
    return make_campaign(brand, trigger=trigger | fields)


def came_round(campaign: Campaign, at: datetime, **fields: Any) -> Occurrence:
    values = {"key": 1, "due_at": at, "finished_at": at, "members": 3} | fields
    return Occurrence.objects.create(campaign=campaign, brand_id=campaign.brand_id, **values)


def why(device: Device, campaign: Campaign, language: str = "en") -> str:
    device.refresh_from_db()
    campaign.refresh_from_db()
    said = whynot.in_words_of(device, campaign, now=now() + timedelta(hours=1), language=language)
    return " ".join(f"{words.title} {words.text}" for words in said)


def test_a_schedule_whose_time_has_not_come_says_when_it_does(
    brand: Brand, shop: Geofence, ann: Device
) -> None:
    campaign = at_nine(brand)
    assert "Its time has not come" in why(ann, campaign)
    at = now() + timedelta(hours=30)
    came_round(campaign, at, finished_at=None)
    clock = f"{at.astimezone(HELSINKI):%Y-%m-%d %H:%M} Europe/Helsinki"
    assert f"It comes round at {clock}." in why(ann, campaign)
    assert f"Elle viendra le {clock}." in why(ann, campaign, "fr")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"missed": True}, "nobody was asked"),
        ({"finished_at": None}, "are being asked"),
        ({}, "was not at the campaign's geofences when the time came"),
        ({"zones": ["Asia/Tokyo"]}, "Its time has not come"),  # elsewhere it has
    ],
)
def test_a_schedule_says_what_became_of_its_time(
    brand: Brand, shop: Geofence, ann: Device, fields: dict[str, Any], said: str
) -> None:
    campaign = at_nine(brand)
    came_round(campaign, now() + timedelta(minutes=1), **fields)
    assert said in why(ann, campaign)


def test_who_was_there_before_the_campaign_was_published_need_not_report_again(
    brand: Brand, shop: Geofence, ann: Device
) -> None:
    assert "has not reported" not in why(ann, at_nine(brand))


def test_one_that_told_of_its_coming_too_late_is_told_so(
    brand: Brand, shop: Geofence, ann: Device
) -> None:
    campaign = at_nine(brand)
    due = now() + timedelta(minutes=10)
    came_round(campaign, due)
    before = due - timedelta(minutes=5)
    make_transition(ann, shop, occurred_at=before, recorded_at=due + timedelta(minutes=1))
    assert "It was at Stadium when the time came, but that was not known" in why(ann, campaign)


def test_a_schedule_without_consent_says_so_first(
    brand: Brand, shop: Geofence, ann: Device
) -> None:
    Device.objects.filter(pk=ann.pk).update(consent_location=False)
    assert why(ann, at_nine(brand)).startswith("The person has not agreed")


def test_a_real_round_that_passed_a_device_by_is_explained(
    brand: Brand, shop: Geofence, ann: Device
) -> None:
    at = now() + timedelta(seconds=30)
    campaign = at_nine(brand, times=[], at=at.isoformat())
    scheduling.plan(now=at)
    while scheduling.run_due(now=at + timedelta(seconds=1)):
        pass
    assert "0 devices were asked" in why(ann, campaign)


SEQUENCE = {
    "on": "sequence",
    "steps": [{"on": "event", "event": "cart"}, {"on": "entered", "tags": ["stadium"]}],
}


def test_a_sequence_is_explained_by_its_last_step(
    brand: Brand, shop: Geofence, ann: Device
) -> None:
    DeviceState.objects.filter(pk=ann.pk).update(received_at=None)
    assert "has never reported a position" in why(ann, make_campaign(brand, trigger=SEQUENCE))
    turned = SEQUENCE | {"steps": list(reversed(SEQUENCE["steps"]))}
    assert "No event “cart” has come" in why(ann, make_campaign(brand, trigger=turned))


def test_a_complete_sequence_that_waits_says_until_when(brand: Brand, ann: Device) -> None:
    trigger = {
        "on": "sequence",
        "steps": [{"on": "event", "event": "cart"}],
        "unless": {"on": "event", "event": "purchase"},
        "for_s": 7_200,
    }
    campaign = make_campaign(brand, trigger=trigger)
    make_event(ann, brand, "cart")
    evaluate_once(now=now())
    assert "waits to see that nothing calls it off" in why(ann, campaign)


def test_the_page_speaks_french_to_those_who_do(brand: Brand, shop: Geofence, ann: Device) -> None:
    campaign = at_nine(brand)
    address = reverse("admin:devices_device_change", args=[ann.pk])
    desk = logged_in(make_member(brand, Role.SUPPORT))
    page = desk.get(address, {"why": campaign.pk}, headers={"accept-language": "fr"})
    assert "Son heure n’est pas venue" in page.content.decode()


def test_a_decision_of_a_round_or_of_a_wait_shows_its_moment(
    brand: Brand, shop: Geofence, ann: Device
) -> None:
    desk = logged_in(make_member(brand, Role.SUPPORT))

    def page(decision: Decision) -> str:
        address = reverse("admin:campaigns_decision_change", args=[decision.pk])
        return desk.get(address).content.decode()

    trigger = {
        "on": "sequence",
        "steps": [{"on": "event", "event": "cart"}],
        "unless": {"on": "event", "event": "purchase"},
        "for_s": 60,
    }
    make_campaign(brand, trigger=trigger)
    make_event(ann, brand, "cart")
    evaluate_once(now=now())
    evaluate_once(now=now() + timedelta(minutes=2))
    assert "its wait was over" in page(Decision.objects.get(moment_kind="timer"))
    at = now() + timedelta(minutes=1)
    Decision.objects.update(moment_kind="schedule", decided_at=at)
    assert "time came round" in page(Decision.objects.get())

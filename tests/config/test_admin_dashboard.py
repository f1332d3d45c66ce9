"""The admin's first page: figures of one brand's day, at a bounded cost."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.core.cache import cache
from django.urls import reverse
from django.utils import timezone
from django.utils.timezone import now
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from brands.models import Role
from campaigns.models import Decision
from config import dashboard, navigation
from devices.models import DeviceState, Transition
from notifications.models import Delivery
from tests.campaigns.rows import make_transition
from tests.factories import make_brand, make_device
from tests.staff import World, logged_in, make_member, make_world

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)  # far from midnight in the zone of the pages


@pytest.fixture
def world() -> World:
    cache.clear()
    world = make_world("Bara")
    for model, column in ((Delivery, "created_at"), (Decision, "decided_at")):
        model._default_manager.update(**{column: NOON})
    Transition.objects.update(occurred_at=NOON, recorded_at=NOON)
    DeviceState.objects.update(received_at=NOON)
    return world


def today(world: World) -> dashboard.Today:
    return dashboard.today(world.brand, at=NOON + timedelta(seconds=1))


def test_it_counts_what_happened_to_the_brand_today(world: World) -> None:
    make_world("Other")
    found = today(world)
    assert (found.entered, found.sent, found.opened, found.devices) == (1, 1, 1, 1)
    assert sum(found.entered_by_hour) == 1
    assert found.states == {"sent": 1}
    assert found.estimated == set()


def test_it_counts_why_offers_were_not_made(world: World) -> None:
    for number in range(3):
        Decision.objects.create(
            brand_id=world.brand.pk,
            device_id=world.device.pk,
            campaign_id=world.campaign.pk,
            campaign_version=1,
            moment_kind="event",
            moment_id=number,
            verdict="refuse",
            reason="cap_reached" if number else "quiet_hours",
            decided_at=NOON,
        )
    found = today(world)
    assert found.refusals == [("cap_reached", 2), ("quiet_hours", 1)]
    assert found.refused == 3


@pytest.mark.parametrize("role", list(Role))
def test_the_first_page_of_an_empty_brand_leads_only_where_one_may_go(role: Role) -> None:
    client = logged_in(make_member(make_brand(), role))
    page = client.get(reverse("admin:index")).content.decode()
    links = set(re.findall(r'<a [^>]*href="(/admin/[^"#?]*)"', page))
    assert reverse("admin:campaigns_campaign_changelist") in links
    refused = {link for link in links if client.get(link).status_code == 403}
    assert not refused


def test_it_leaves_yesterday_out(world: World) -> None:
    yesterday = NOON - timedelta(days=1)
    Delivery.objects.update(created_at=yesterday)
    Transition.objects.update(occurred_at=yesterday, recorded_at=yesterday)
    found = today(world)
    assert (found.entered, found.sent) == (0, 0)


def test_it_begins_the_day_at_the_brands_own_midnight() -> None:
    brand = make_brand(timezone="Pacific/Auckland")
    with timezone.override("Pacific/Auckland"):
        found = dashboard.today(brand, at=datetime(2026, 1, 5, 12, 30, tzinfo=UTC))
    assert found.since.astimezone(UTC) == datetime(2026, 1, 5, 11, tzinfo=UTC)
    assert (found.hours[0], found.hours[-1], len(found.hours)) == ("00:00", "23:00", 24)


def test_it_estimates_from_runs_of_ids_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(99):
        make_transition(world.device, world.geofence, occurred_at=NOON)
    monkeypatch.setattr(dashboard, "SAMPLE_ROWS", 20)
    monkeypatch.setattr(dashboard, "RUN_ROWS", 2)
    found = today(world)
    assert "entered" in found.estimated
    assert found.entered == pytest.approx(100, rel=0.2)


def test_it_says_where_a_sample_of_pages_was_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "sample_share", lambda *_: 50.0)
    assert today(world).estimated == {"fixes", "devices"}


def test_it_leaves_out_a_figure_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "LIMIT_MS", 1)
    assert dashboard._ask("SELECT pg_sleep(1)", []) is None


def test_it_shows_a_page_without_its_figures(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "_ask", lambda *_: None)
    assert logged_in(world.admin).get(reverse("admin:index")).status_code == 200


class FirstId(TestCase):
    """`first_id` against looking at every row."""

    @settings(max_examples=25)
    @given(st.lists(st.integers(0, 5_000), max_size=12), st.integers(-100, 5_100))
    def test_it_finds_the_first_id_since_an_instant(self, minutes: list[int], since: int) -> None:
        Transition.objects.all().delete()
        device = make_device(make_brand())
        start = datetime(2026, 1, 1, tzinfo=UTC)
        from tests.factories import make_circle

        shop = make_circle(device.brand)
        for minute in sorted(minutes):
            at = start + timedelta(minutes=minute)
            make_transition(device, shop, recorded_at=at, occurred_at=at)
        asked = start + timedelta(minutes=since)
        found = dashboard.first_id("devices_transition", "recorded_at", asked)
        wanted = Transition.objects.filter(recorded_at__gte=asked)
        # It may look back further, never less far.
        assert set(wanted) <= set(Transition.objects.filter(pk__gte=found))
        earlier = Transition.objects.filter(recorded_at__lt=asked - timedelta(minutes=10))
        assert not earlier.filter(pk__gt=found).exists()


def test_it_says_what_waits_and_for_how_long(world: World) -> None:
    at = now()
    make_transition(world.device, world.geofence, recorded_at=at - timedelta(minutes=11))
    Delivery.objects.update(state="parked")
    found = {queue.name: queue for queue in dashboard.queues(at=at)}
    transitions = found["Deciding on transitions"]
    assert transitions.waiting == 1
    assert transitions.oldest_s == pytest.approx(660, abs=1)
    assert transitions.health == "bad"
    assert found["Sending"].parked == 1
    assert found["Deciding on events"].health == "good"


@pytest.mark.parametrize(
    ("role", "missing"),
    [
        (Role.SUPPORT, {"Staff", "App keys", "Accounts"}),
        (Role.MARKETER, {"Staff", "App keys", "Accounts"}),
        (Role.ADMIN, {"Accounts"}),
    ],
)
def test_it_offers_each_role_the_pages_it_may_open(role: Role, missing: set[str]) -> None:
    client = logged_in(make_member(make_brand(), role))
    groups = client.get(reverse("admin:index")).context["sidebar_navigation"]
    shown = {item["title"]: item["link"] for group in groups for item in group["items"]}
    every = {title for _, entries in navigation._GROUPS for title, _, _ in entries}
    assert every - shown.keys() == missing
    for title, link in shown.items():
        assert client.get(link).status_code == 200, title


def test_it_asks_who_has_no_brand_to_be_added() -> None:
    user = make_member(brand := make_brand())
    brand.memberships.all().delete()
    body = logged_in(user).get(reverse("admin:index")).content.decode()
    assert "not part of a brand yet" in body

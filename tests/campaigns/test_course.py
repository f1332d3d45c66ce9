"""How a campaign went, by day and by place: against a count of each delivery by hand."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.urls import reverse

from brands.models import Brand, Role
from campaigns.admin import results
from campaigns.course import Came, Period, by_day_and_place, course
from campaigns.models import Campaign, Decision
from notifications.models import Delivery, Feedback
from tests.campaigns.rows import make_campaign
from tests.factories import make_brand, make_circle, make_device
from tests.notifications.rows import make_delivery
from tests.staff import logged_in, make_member

pytestmark = pytest.mark.django_db

HELSINKI = ZoneInfo("Europe/Helsinki")
MARCH = Period(date(2026, 3, 28), date(2026, 3, 30), HELSINKI)  # clocks go forward on the 29th


@pytest.fixture
def brand() -> Brand:
    return make_brand(timezone="Europe/Helsinki")


@pytest.fixture
def campaign(brand: Brand) -> Campaign:
    return make_campaign(brand, make_circle(brand, name="The shop"))


def offer(campaign: Campaign, at: datetime, *said: str, **fields: Any) -> Delivery:
    delivery: Delivery = make_delivery(make_device(campaign.brand), campaign_id=campaign.pk)
    Delivery.objects.filter(pk=delivery.pk).update(
        **{"state": "sent", "created_at": at, "geofence_id": None} | fields
    )
    for event in said:
        Feedback.objects.create(delivery=delivery, event=event, occurred_at=at)
    return delivery


def refuse(campaign: Campaign, at: datetime, reason: str) -> None:
    Decision.objects.create(
        brand_id=campaign.brand_id,
        device_id=1,
        campaign_id=campaign.pk,
        campaign_version=1,
        moment_kind="event",
        moment_id=Decision.objects.count() + 1,
        verdict="refuse",
        reason=reason,
        decided_at=at,
    )


def endless(*_: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(60)")


def test_it_counts_by_the_brands_days(campaign: Campaign) -> None:
    before = datetime(2026, 3, 27, 21, 59, tzinfo=UTC)  # one minute to midnight
    offer(campaign, before, "opened")
    offer(campaign, before + timedelta(minutes=1), "opened", "received")
    offer(campaign, datetime(2026, 3, 28, 22, 30, tzinfo=UTC), "redeemed")
    offer(campaign, datetime(2026, 3, 30, 20, 59, tzinfo=UTC), state="failed")
    offer(campaign, datetime(2026, 3, 30, 21, 0, tzinfo=UTC))  # summer time: the 31st
    offer(campaign, datetime(2026, 3, 29, 12, tzinfo=UTC), moment_kind="test")

    found = course(campaign, MARCH)

    assert found.days == {
        date(2026, 3, 28): Came(offers=1, sent=1, received=1, opened=1),
        date(2026, 3, 29): Came(offers=1, sent=1, received=1, opened=1, redeemed=1),
        date(2026, 3, 30): Came(offers=1),
    }
    assert found.whole == Came(offers=3, sent=2, received=2, opened=2, redeemed=1)


def test_it_counts_by_place_and_by_reason(campaign: Campaign, brand: Brand) -> None:
    at = datetime(2026, 3, 29, 12, tzinfo=UTC)
    shop = brand.geofences.get()
    for _ in range(2):
        offer(campaign, at, geofence_id=shop.pk)
    offer(campaign, at, geofence_id=None)
    other = make_campaign(brand, shop, name="Other")
    offer(other, at, geofence_id=shop.pk)
    for reason in ("cap_reached", "outside_hours", "cap_reached"):
        refuse(campaign, at, reason)
    refuse(campaign, at - timedelta(days=9), "too_late")
    refuse(other, at, "too_late")

    found = course(campaign, MARCH)

    assert found.places == [
        (shop.pk, "The shop", Came(offers=2, sent=2)),
        (None, "", Came(offers=1, sent=1)),
    ]
    assert found.silences == [("cap_reached", 2), ("outside_hours", 1)]
    assert list(by_day_and_place(campaign, MARCH)) == [
        ["2026-03-29", shop.pk, "The shop", "", 2, 2, 0, 0, 0],
        ["2026-03-29", "", "", "", 1, 1, 0, 0, 0],
    ]


def test_the_page_shows_it_and_gives_it_as_a_table(campaign: Campaign, brand: Brand) -> None:
    shop = brand.geofences.get()
    shop.name = "=cmd|' /C calc'!A0"
    shop.save()
    offer(campaign, datetime.now(UTC), "opened", geofence_id=shop.pk)
    offer(campaign, datetime.now(UTC) - timedelta(days=40), geofence_id=shop.pk)
    refuse(campaign, datetime.now(UTC), "cap_reached")
    page = reverse("admin:campaigns_campaign_results", args=[campaign.pk])
    table = reverse("admin:campaigns_campaign_results_csv", args=[campaign.pk])
    support = logged_in(make_member(brand, Role.SUPPORT))

    shown = support.get(page)
    assert [step["count"] for step in shown.context["funnel"]] == [1, 1, 1, 0]
    assert len(shown.context["days"]) == 30
    assert "=cmd" in shown.content.decode()
    assert f"{table}?days=30" in shown.content.decode()
    assert sum(support.get(page, {"days": 90}).context["days"]) == 2
    assert len(support.get(page, {"days": "x"}).context["days"]) == 30

    answer = support.get(table, {"days": 90})
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    head, *rows = csv.reader(StringIO(answer.content.decode()))
    assert head[:4] == ["day", "geofence_id", "geofence", "variant"]
    assert [row[1:3] + row[4:] for row in rows] == [
        [str(shop.pk), "'=cmd|' /C calc'!A0", "1", "1", "0", "0", "0"],
        [str(shop.pk), "'=cmd|' /C calc'!A0", "1", "1", "1", "1", "0"],
    ]
    stranger = logged_in(make_member(make_brand(), Role.ADMIN))
    assert stranger.get(table).status_code in {302, 403, 404}


def test_the_list_says_what_came_of_each_of_late(
    campaign: Campaign, brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_campaign(brand, brand.geofences.get(), name="Silent")
    for said in (["opened"], []):
        offer(campaign, datetime.now(UTC), *said)
    offer(campaign, datetime.now(UTC) - timedelta(days=31))
    listed = reverse("admin:campaigns_campaign_changelist")
    support = logged_in(make_member(brand, Role.SUPPORT))

    rows = support.get(listed).context["cl"].result_list
    assert {row.name: row.lately for row in rows} == {
        campaign.name: "2 sent, 50.0% opened",
        "Silent": "–",
    }

    monkeypatch.setattr(results, "of_each", endless)
    monkeypatch.setattr(results, "LIST_LIMIT_MS", 20)
    assert {row.lately for row in support.get(listed).context["cl"].result_list} == {"–"}


def test_the_page_comes_though_there_is_too_much_to_count(
    campaign: Campaign, brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "course", endless)
    monkeypatch.setattr(results, "LIMIT_MS", 20)
    page = reverse("admin:campaigns_campaign_results", args=[campaign.pk])
    shown = logged_in(make_member(brand)).get(page).content.decode()
    assert "too much to count" in shown
    assert "Why it stayed silent" not in shown

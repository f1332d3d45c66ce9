"""A campaign tried on the past: asked for on a page, watched, read."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Brand, Role
from campaigns import backtests, publishing
from campaigns.models import Backtest, BacktestState, Campaign
from tests.campaigns.rows import a_definition, make_campaign
from tests.factories import make_brand, make_circle
from tests.staff import logged_in, make_member

pytestmark = pytest.mark.django_db


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def marketer(brand: Brand) -> Client:
    return logged_in(make_member(brand, Role.MARKETER))


def page(campaign: Campaign, name: str = "backtest") -> str:
    return reverse(f"admin:campaigns_campaign_{name}", args=[campaign.pk])


def test_it_is_asked_for_watched_and_read(brand: Brand, marketer: Client) -> None:
    shop = make_circle(brand, name="Kallio")
    campaign = make_campaign(brand, shop)
    assert "Not tried yet" in marketer.get(page(campaign)).content.decode()

    for _ in range(2):  # a second press asks for nothing more
        marketer.post(page(campaign), {"days": "30"})
    job = Backtest.objects.get()
    assert (job.until - job.since).days == 30
    told = marketer.get(page(campaign, "backtest_progress")).json()
    assert (told["under_way"], told["overdue"]) == (True, False)
    assert "backtest-bar" in marketer.get(page(campaign)).content.decode()

    taken = backtests.take(now())
    assert taken is not None
    backtests.perform(taken)
    read = marketer.get(page(campaign)).content.decode()
    assert "offers · live: 0" in read
    assert not marketer.get(page(campaign, "backtest_progress")).json()["under_way"]


def test_it_says_what_the_draft_lacks(brand: Brand, marketer: Client) -> None:
    campaign = publishing.create(brand=brand, name="Empty", raw={}, actor=None)
    marketer.post(page(campaign), {"days": "7"})
    assert not Backtest.objects.exists()
    assert "Say what sets it off" in marketer.get(page(campaign)).content.decode()


def test_it_shows_why_one_failed(brand: Brand, marketer: Client) -> None:
    raw = a_definition(make_circle(brand))
    campaign = publishing.create(brand=brand, name="Coffee", raw=raw, actor=None)
    Backtest.objects.create(
        campaign=campaign,
        since=now(),
        until=now(),
        state=BacktestState.FAILED,
        problem="no disk left",
    )
    assert "no disk left" in marketer.get(page(campaign)).content.decode()


def test_support_may_read_and_not_ask(brand: Brand) -> None:
    campaign = make_campaign(brand, make_circle(brand))
    support = logged_in(make_member(brand, Role.SUPPORT))
    assert support.get(page(campaign)).status_code == 200
    assert support.post(page(campaign), {"days": "7"}).status_code == 403

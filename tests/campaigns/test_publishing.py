"""The life of a campaign, and what it arms."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils.timezone import now

from campaigns import publishing
from campaigns.models import Campaign, CampaignVersion, Segment
from campaigns.publishing import NotPublishableError, WrongStateError
from geofences import writing
from geofences.models import FOREVER, Arming, Geofence
from tests.campaigns.rows import a_definition, make_campaign
from tests.factories import make_brand, make_circle
from tests.waiting import Late

pytestmark = pytest.mark.django_db


def armed_until(geofence: Geofence) -> datetime | None:
    geofence.refresh_from_db()
    return geofence.armed_until


def test_publishing_arms_what_the_campaign_names_and_nothing_else() -> None:
    brand = make_brand()
    by_id = make_circle(brand)
    by_external_id = make_circle(brand, external_id="x")
    by_tag = make_circle(brand, tags=["food", "late"])
    other = make_circle(brand)
    theirs = make_circle(make_brand(), tags=["food"], external_id="x")
    trigger = {"on": "entered", "geofences": [by_id.pk, "x"], "tags": ["food"]}
    campaign = make_campaign(brand, trigger=trigger)
    assert campaign.state == "live"
    assert [armed_until(one) for one in (by_id, by_external_id, by_tag)] == [FOREVER] * 3
    assert armed_until(other) is None
    assert armed_until(theirs) is None


def test_a_geofence_made_later_is_armed_by_its_tag() -> None:
    brand = make_brand()
    make_circle(brand, tags=["food"])
    make_campaign(brand, trigger={"on": "entered", "tags": ["food"]})
    assert armed_until(make_circle(brand, tags=["food"])) == FOREVER


def test_it_arms_until_the_campaign_ends_with_its_dwell() -> None:
    brand = make_brand()
    shop, ends = make_circle(brand), now() + timedelta(days=3)
    trigger = {"on": "dwelled", "geofences": [shop.pk], "dwell_s": 600}
    make_campaign(brand, trigger=trigger, ends_at=ends.isoformat())
    assert armed_until(shop) == ends
    assert shop.dwell_thresholds == [600]


@pytest.mark.parametrize("stop", [publishing.pause, publishing.end])
def test_stopping_disarms_what_no_other_campaign_needs(stop: Any) -> None:
    brand = make_brand()
    shared, own = make_circle(brand), make_circle(brand)
    make_campaign(brand, shared)
    campaign = make_campaign(
        brand, trigger={"on": "entered", "geofences": [shared.pk, own.pk]}, name="both"
    )
    stop(campaign, actor=None)
    assert armed_until(shared) == FOREVER
    assert armed_until(own) is None


def test_it_can_be_paused_and_resumed() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    campaign = make_campaign(brand, shop)
    publishing.pause(campaign, actor=None)
    assert armed_until(shop) is None
    assert publishing.resume(campaign, actor=None, now=now()).state == "live"
    assert armed_until(shop) == FOREVER
    with pytest.raises(WrongStateError):
        publishing.resume(campaign, actor=None, now=now())


def test_what_has_ended_stays_ended() -> None:
    brand = make_brand()
    campaign = make_campaign(brand, make_circle(brand))
    publishing.end(campaign, actor=None)
    for order in (publishing.publish, publishing.resume):
        with pytest.raises(WrongStateError):
            order(campaign, actor=None, now=now())


def test_what_is_live_is_a_version_and_an_edit_changes_only_the_draft() -> None:
    brand = make_brand()
    one, two = make_circle(brand), make_circle(brand)
    campaign = make_campaign(brand, one)
    publishing.edit(campaign, raw=a_definition(two), actor=None)
    assert armed_until(two) is None
    publishing.publish(campaign, actor=None, now=now())
    assert armed_until(one) is None
    assert armed_until(two) == FOREVER
    publishing.roll_back(campaign, number=1, actor=None, now=now())
    assert armed_until(one) == FOREVER
    assert armed_until(two) is None
    numbers = CampaignVersion.objects.filter(campaign=campaign).values_list("number", flat=True)
    assert list(numbers) == [3, 2, 1]
    campaign.refresh_from_db()
    assert campaign.draft == a_definition(one)


def test_publishing_the_same_again_leaves_the_geofences_alone() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    campaign = make_campaign(brand, shop)
    shop.refresh_from_db()
    before = (shop.changed_xid, shop.armed_at, Arming.objects.get().pk)
    publishing.publish(campaign, actor=None, now=now())
    shop.refresh_from_db()
    assert (shop.changed_xid, shop.armed_at, Arming.objects.get().pk) == before


def test_it_says_who_did_what() -> None:
    brand = make_brand()
    user = get_user_model().objects.create_user("mia")
    campaign = publishing.create(
        brand=brand, name="x", raw=a_definition(make_circle(brand)), actor=user
    )
    version = publishing.publish(campaign, actor=user, now=now())
    publishing.pause(campaign, actor=None)
    assert version.published_by == user
    log = campaign.log.order_by("id").values_list("action", "version", "actor__username")
    assert list(log) == [("created", None, "mia"), ("published", 1, "mia"), ("paused", 1, None)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"trigger": {"on": "entered", "geofences": ["nowhere"]}}, "trigger.geofences[0]"),
        ({"trigger": {"on": "entered", "geofences": [999_999_999]}}, "trigger.geofences[0]"),
        ({"trigger": {"on": "entered", "tags": ["nothing"]}}, "trigger.tags[0]"),
        ({"trigger": {"on": "dwelled", "geofences": ["shop"]}}, "trigger.dwell_s"),
        ({"content": {"title": "{{ nobody }}", "body": "b"}}, "content.title"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
    ],
)
def test_it_publishes_nothing_that_could_not_work(change: dict[str, Any], field: str) -> None:
    brand = make_brand()
    shop = make_circle(brand, external_id="shop")
    campaign = publishing.create(brand=brand, name="x", raw=a_definition(shop) | change, actor=None)
    with pytest.raises(NotPublishableError) as caught:
        publishing.publish(campaign, actor=None, now=now())
    assert [one.field for one in caught.value.missing] == [field]
    assert armed_until(shop) is None
    assert not CampaignVersion.objects.exists()


def test_another_brands_geofence_cannot_be_named() -> None:
    theirs = make_circle(make_brand())
    brand = make_brand()
    campaign = publishing.create(brand=brand, name="x", raw=a_definition(theirs), actor=None)
    with pytest.raises(NotPublishableError):
        publishing.publish(campaign, actor=None, now=now())
    assert armed_until(theirs) is None


def test_a_segment_that_went_away_stops_the_publishing() -> None:
    brand = make_brand()
    segment = Segment.objects.create(brand=brand, name="VIP", slug="vip", tree={})
    raw = a_definition(make_circle(brand), audience={"segment": "vip"})
    campaign = publishing.create(brand=brand, name="x", raw=raw, actor=None)
    assert publishing.users_of_segment(segment) == ["x"]
    segment.delete()
    assert [one.field for one in publishing.missing(campaign, now=now())] == ["audience.segment"]
    assert Campaign.objects.get().state == "draft"


@pytest.fixture
def for_shops(transactional_db: None) -> Campaign:
    """A draft whose tag one geofence has already."""
    brand = make_brand()
    make_circle(brand, tags=["shop"], track_visits=False)
    raw = a_definition(trigger={"on": "entered", "tags": ["shop"]})
    return publishing.create(brand=brand, name="Shops", raw=raw, actor=None)


def test_publishing_waits_for_geofences_that_are_being_written(for_shops: Campaign) -> None:
    with transaction.atomic():
        new = make_circle(for_shops.brand, tags=["shop"], track_visits=False)
        late = Late(lambda: publishing.publish(for_shops, actor=None, now=now()))
    late.answer()
    assert armed_until(new) == FOREVER


def test_geofences_wait_for_what_is_being_published(for_shops: Campaign) -> None:
    with transaction.atomic():
        publishing.publish(for_shops, actor=None, now=now())
        late = Late(lambda: make_circle(for_shops.brand, tags=["shop"], track_visits=False))
    assert armed_until(late.answer()) == FOREVER


def test_it_says_of_a_retired_geofence_that_it_is() -> None:
    brand = make_brand()
    shop = make_circle(brand, name="The shop", external_id="shop")
    trigger = {"on": "entered", "geofences": [shop.pk, "shop", 999_999_999]}
    campaign = make_campaign(brand, trigger=trigger | {"geofences": [shop.pk]})
    publishing.edit(campaign, raw=a_definition(trigger=trigger), actor=None)
    campaign.refresh_from_db()
    writing.retire([shop.pk], now=now())
    retired = "“The shop” is retired: bring it back, or take another place."
    assert [one.message for one in publishing.missing(campaign, now=now())] == [
        retired,
        retired,
        "There is no geofence 999999999.",
    ]

"""The demo city loads once, keeps its secrets and stays out of production."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.utils.timezone import now

from brands.models import AppKey, Brand, KeyKind
from campaigns.demo import load
from campaigns.models import Campaign, CampaignState
from geofences.models import Geofence, GeofenceCover

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"

pytestmark = pytest.mark.django_db


def test_it_loads_every_geofence_with_its_cover_and_every_campaign() -> None:
    load(FIXTURES, {}, now=now())

    assert Geofence.objects.count() == GeofenceCover.objects.count() == 48
    assert Geofence.objects.armed(now()).filter(brand__slug="bara").count() > 20
    states = sorted(Campaign.objects.values_list("state", flat=True))
    assert states == [CampaignState.DRAFT, *[CampaignState.LIVE] * 10]


def test_it_tells_keys_and_log_ins_that_work() -> None:
    found = load(FIXTURES, {}, now=now())

    key = AppKey.objects.live().get(digest=AppKey.digest_of(found["server_key"]))
    assert (key.brand.slug, key.kind) == ("bara", KeyKind.SERVER)
    for person in found["staff"]:
        user = authenticate(username=person["username"], password=person["password"])
        assert user is not None
        assert user.memberships.get().role == person["role"]


def test_it_changes_nothing_when_loaded_again() -> None:
    first = load(FIXTURES, {}, now=now())
    Brand.objects.filter(slug="bara").update(name="Renamed by its owner")
    Campaign.objects.filter(state=CampaignState.DRAFT).delete()

    second = load(FIXTURES, first, now=now())

    assert second == first
    assert Brand.objects.get(slug="bara").name == "Renamed by its owner"
    assert Campaign.objects.count() == 10
    assert AppKey.objects.count() == 4


def test_it_makes_new_secrets_where_the_old_ones_are_lost() -> None:
    first = load(FIXTURES, {}, now=now())

    second = load(FIXTURES, {}, now=now())

    assert AppKey.objects.live().count() == 4
    assert not AppKey.objects.live().filter(digest=AppKey.digest_of(first["app_key"])).exists()
    support = next(person for person in second["staff"] if person["username"] == "support")
    assert authenticate(username="support", password=support["password"]) is not None
    assert get_user_model().objects.count() == 4


def test_it_refuses_production(settings: Any) -> None:
    settings.PRODUCTION = True

    with pytest.raises(ImproperlyConfigured, match="not for NEARCAST_ENV=production"):
        load(FIXTURES, {}, now=now())

    assert not Brand.objects.exists()

"""What the promises share: a brand with a live campaign on a shop, and phones of its people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from brands.models import Brand
from campaigns.models import Campaign
from devices import auth
from devices.models import Device
from geofences.models import Geofence
from tests.campaigns.rows import make_campaign
from tests.factories import make_brand, make_circle, make_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A shop of a brand, and its campaign for whoever comes in."""

    brand: Brand
    place: Geofence
    campaign: Campaign


@pytest.fixture
def shop() -> Shop:
    brand = make_brand()
    place = make_circle(brand, external_id="shop-1", tags=["shop"])
    # `fire`: that the shop was armed a moment ago is no reason against an offer here.
    campaign = make_campaign(brand, place, initial_state="fire")
    return Shop(brand=brand, place=place, campaign=campaign)


@pytest.fixture
def bearer() -> Callable[[Device], dict[str, str]]:
    """The authorization of a device, as registration would answer it."""
    return lambda device: {"Authorization": f"Bearer {auth.issue(device.pk, device.brand_id, 1)}"}


def make_devices(brand: Brand, count: int) -> list[Device]:
    return [make_device(brand) for _ in range(count)]

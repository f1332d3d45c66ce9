"""Rows for tests: plain functions, the boring case as default."""

from __future__ import annotations

import itertools
from typing import Any

from django.contrib.gis.geos import GEOSGeometry, Point
from django.utils.timezone import now

from brands.models import AppKey, Brand, KeyKind
from devices.models import Device, DeviceState
from geofences.models import Geofence
from tests.places import SHOP, SHOP_RADIUS_M

_numbers = itertools.count(1)


def make_brand(**fields: Any) -> Brand:
    number = next(_numbers)
    return Brand.objects.create(**{"name": f"Brand {number}", "slug": f"brand-{number}"} | fields)


def make_key(brand: Brand, kind: KeyKind = KeyKind.SERVER) -> str:
    """The secret of a new key."""
    return AppKey.issue(brand=brand, kind=kind, name="test")[1]


def make_device(brand: Brand, **fields: Any) -> Device:
    """A device whose person agreed to everything, with its hot row."""
    number = next(_numbers)
    device = Device.objects.create(
        **{
            "brand": brand,
            "installation_id": f"installation-{number}",
            "platform": "android",
            "push_token": f"token-{number}",
            "push_token_at": now(),
            "locale": "en",
            "timezone": "Europe/Helsinki",
            "consent_location": True,
            "consent_marketing": True,
            "consent_version": "1",
            "consent_at": now(),
        }
        | fields
    )
    DeviceState.objects.create(
        device=device, brand_id=brand.pk, consent_location=device.consent_location
    )
    return device


def make_circle(brand: Brand, **fields: Any) -> Geofence:
    """The shop: a circle that tracks visits, with its cover."""
    from geofences.writing import save

    number = next(_numbers)
    geofence = Geofence(
        **{
            "brand": brand,
            "name": f"Shop {number}",
            "geometry": Point(SHOP.lng, SHOP.lat, srid=4326),
            "radius_m": SHOP_RADIUS_M,
            "track_visits": True,
        }
        | fields
    )
    save([geofence])
    return geofence


def make_polygon(brand: Brand, geojson: str, **fields: Any) -> Geofence:
    return make_circle(
        brand, **{"geometry": GEOSGeometry(geojson, srid=4326), "radius_m": None} | fields
    )

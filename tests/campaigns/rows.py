"""Rows for the tests of campaigns: plain functions, the boring case as default."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

from django.utils.timezone import now

from brands.models import Brand
from campaigns import publishing
from campaigns.models import Campaign
from devices.models import Device, Event, Transition
from geofences.models import Geofence

_numbers = itertools.count(1)

COFFEE = {"title": "Coffee", "body": "One for you at {{ place.name }}"}


def a_definition(geofence: Geofence | None = None, **fields: Any) -> dict[str, Any]:
    trigger: dict[str, Any] = {"on": "entered"}
    if geofence is not None:
        trigger["geofences"] = [geofence.pk]
    return {"trigger": trigger, "content": COFFEE} | fields


def make_campaign(
    brand: Brand, geofence: Geofence | None = None, *, name: str = "Coffee", **fields: Any
) -> Campaign:
    """A live campaign, published through the front door."""
    campaign = publishing.create(
        brand=brand, name=name, raw=a_definition(geofence, **fields), actor=None
    )
    publishing.publish(campaign, actor=None, now=now())
    campaign.refresh_from_db()
    return campaign


def make_transition(device: Device, geofence: Geofence, **fields: Any) -> Transition:
    """The device has just entered."""
    number = next(_numbers)
    at: datetime = fields.get("occurred_at", now() - timedelta(seconds=1))
    return Transition.objects.create(
        **{
            "brand_id": device.brand_id,
            "device_id": device.pk,
            "geofence_id": geofence.pk,
            "kind": "entered",
            "visit_id": number,
            "entered_at": at,
            "occurred_at": at,
            "recorded_at": at,
            "lat": 60.1702,
            "lng": 24.9386,
        }
        | fields
    )


def make_event(device: Device | None, brand: Brand, name: str, **fields: Any) -> Event:
    at: datetime = fields.get("occurred_at", now() - timedelta(seconds=1))
    return Event.objects.create(
        **{
            "brand_id": brand.pk,
            "device_id": None if device is None else device.pk,
            "key": next(_numbers),
            "name": name,
            "occurred_at": at,
            "received_at": at,
        }
        | fields
    )

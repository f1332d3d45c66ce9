"""Staff for tests of the admin, and a brand in which everything has happened once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import timedelta

from django.contrib.auth.models import User
from django.test import Client
from django.utils.timezone import now

from brands.models import AppKey, Brand, KeyKind, Membership, Role
from campaigns import publishing
from campaigns.models import Campaign, Decision, Segment
from devices.models import Device, DeviceState, Fix, Transition
from geofences.models import Geofence
from notifications.models import Attempt, Delivery, DeliveryState, Feedback
from tests.campaigns.rows import a_definition, make_transition
from tests.factories import make_brand, make_circle, make_device
from tests.places import AT_THE_DOOR

_numbers = itertools.count(1)


def make_member(
    brand: Brand, role: Role = Role.ADMIN, *, password: str = "", **fields: str
) -> User:
    """Somebody who works for the brand; without a password, which takes long to hash."""
    user = User(**{"username": f"{role}-{next(_numbers)}"} | fields, is_staff=True)
    user.set_password(password or None)
    user.save()
    Membership.objects.create(user=user, brand=brand, role=role)
    return user


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A brand with one row of everything, all of whose names begin with its own."""

    brand: Brand
    admin: User
    geofence: Geofence
    device: Device
    campaign: Campaign
    segment: Segment
    transition: Transition
    decision: Decision
    delivery: Delivery
    key: AppKey


def make_world(name: str) -> World:
    """A brand in which a phone has entered a shop and got an offer."""
    brand = make_brand(name=name, slug=name.lower())
    geofence = make_circle(
        brand, name=f"{name} shop", tags=[f"{name}-tag"], external_id=f"{name}-place"
    )
    device = make_device(brand, external_id=f"{name}-person", attributes={f"{name}_tier": "gold"})
    at = now() - timedelta(minutes=5)
    Fix.objects.create(
        device_id=device.pk,
        key=next(_numbers),
        received_at=at,
        recorded_at=at,
        lat=AT_THE_DOOR.lat,
        lng=AT_THE_DOOR.lng,
        accuracy_m=9,
        verdict=0,
    )
    DeviceState.objects.filter(pk=device.pk).update(
        recorded_at=at, received_at=at, lat=AT_THE_DOOR.lat, lng=AT_THE_DOOR.lng, accuracy_m=9
    )
    campaign = publishing.create(
        brand=brand, name=f"{name} campaign", raw=a_definition(geofence), actor=None
    )
    publishing.publish(campaign, actor=None, now=now() - timedelta(minutes=10))
    segment = Segment.objects.create(
        brand=brand, name=f"{name} segment", slug=f"{name}-segment".lower(), tree={}
    )
    transition = make_transition(device, geofence, occurred_at=at, processed_at=at)
    decision = Decision.objects.create(
        brand_id=brand.pk,
        device_id=device.pk,
        campaign_id=campaign.pk,
        campaign_version=1,
        moment_kind="transition",
        moment_id=transition.pk,
        geofence_id=geofence.pk,
        verdict="send",
        reason="matched",
        decided_at=at,
    )
    delivery = Delivery.objects.create(
        brand_id=brand.pk,
        device_id=device.pk,
        person=f"{name}-person",
        campaign_id=campaign.pk,
        campaign_name=f"{name} campaign",
        decision_id=decision.pk,
        moment_kind="transition",
        moment_id=transition.pk,
        geofence_id=geofence.pk,
        key=f"{name}-1",
        content={"title": f"{name} offer", "body": "Come in"},
        state=DeliveryState.SENT,
        created_at=at,
        due_at=at,
        expires_at=at + timedelta(hours=1),
        sent_at=at,
        attempt_count=1,
    )
    Attempt.objects.create(delivery=delivery, at=at, outcome="sent", latency_ms=12)
    Feedback.objects.create(delivery=delivery, event="opened", occurred_at=at)
    key, _ = AppKey.issue(brand=brand, kind=KeyKind.SERVER, name=f"{name} key")
    campaign.refresh_from_db()
    return World(
        brand=brand,
        admin=make_member(brand, username=f"{name}-admin", email=f"{name}@example.com"),
        geofence=geofence,
        device=device,
        campaign=campaign,
        segment=segment,
        transition=transition,
        decision=decision,
        delivery=delivery,
        key=key,
    )

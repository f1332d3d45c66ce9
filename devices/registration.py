"""A device's own row: register, change, revoke, erase. The only writer of Device and its serial.

It takes what is valid (`devices.api` sees to that) and knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q

from devices import attributes, holdings, ingest
from devices.auth import issue
from devices.models import Device, DeviceState
from devices.presence import TransitionReason
from geofences.armed import follower

_PLAIN = ("platform", "external_id", "locale", "timezone", "app_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    device_id: int
    token: str
    created: bool


def register(
    *, brand_id: int, installation_id: str, change: Mapping[str, Any], now: datetime
) -> Registered:
    """Make the installation's device, or change the one it has, and issue a token."""
    with transaction.atomic():
        push_token = change.get("push_token")
        _queue_for(push_token)
        mine = Q(brand_id=brand_id, installation_id=installation_id)
        device = _lock(mine, push_token, brand_id)
        created = device is None
        if device is None:
            device = _insert(brand_id, installation_id, change["platform"], now)
        if device is None:  # another request of the same installation was faster
            created, device = False, _lock(mine, push_token, brand_id)
            assert device is not None, "the installation's row vanished twice"
        _apply(device, change, now)
        serial = DeviceState.objects.values_list("serial", flat=True).get(device=device)
    return Registered(
        device_id=device.pk, token=issue(device.pk, brand_id, serial), created=created
    )


def change(device_id: int, change: Mapping[str, Any], *, now: datetime) -> Device | None:
    """Change what `change` names and nothing else; None where the device is gone."""
    with transaction.atomic():
        push_token = change.get("push_token")
        mine = Q(pk=device_id)
        brand_id = Device.objects.filter(mine).values_list("brand_id", flat=True).first()
        if brand_id is None:
            return None
        _queue_for(push_token)
        device = _lock(mine, push_token, brand_id)
        if device is not None:
            _apply(device, change, now)
    return device


def revoke(device_id: int) -> None:
    """No token issued so far is good from here on; the device may register again."""
    DeviceState.objects.filter(device_id=device_id).update(
        serial=F("serial") + 1, version=F("version") + 1
    )


def retire_push_tokens(dead: Sequence[tuple[int, str]], *, now: datetime) -> None:
    """Take tokens that the provider called dead from their devices; a newer token stays.

    The device keeps everything else, and gets its pushes again with the next token it reports.
    """
    device_ids, tokens = zip(*sorted(dead), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH held AS MATERIALIZED (
                SELECT d.id FROM devices_device d
                  JOIN unnest(%s::bigint[], %s::text[]) AS v (id, token)
                    ON v.id = d.id AND v.token = d.push_token
                 ORDER BY d.id FOR UPDATE OF d)
            UPDATE devices_device d
               SET push_token = NULL, push_token_gone_at = %s, updated_at = %s
              FROM held WHERE d.id = held.id
            """,
            (list(device_ids), list(tokens), now, now),
        )


def erase(device_id: int) -> None:
    """Delete every row that names the device. Its tokens end with it."""
    with transaction.atomic():
        Device.objects.select_for_update().filter(pk=device_id).first()
        holdings.erase(device_id)
        Device.objects.filter(pk=device_id).delete()


def _queue_for(push_token: str | None) -> None:
    """Those who claim the same push token come one after the other, before any row is locked."""
    if push_token:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (push_token,))


def _lock(mine: Q, push_token: str | None, brand_id: int) -> Device | None:
    """Lock the device and whoever of its brand holds the push token, in id order: no ring forms."""
    wanted = mine | Q(push_token=push_token, brand_id=brand_id) if push_token else mine
    locked = Device.objects.select_for_update().filter(wanted).order_by("pk")
    ids = {device.pk for device in locked}
    return Device.objects.filter(mine, pk__in=ids).first()


def _insert(brand_id: int, installation_id: str, platform: str, now: datetime) -> Device | None:
    """Insert the device and its hot row, or None where the installation has one by now."""
    try:
        with transaction.atomic():
            device = Device.objects.create(
                brand_id=brand_id,
                installation_id=installation_id,
                platform=platform,
                created_at=now,
            )
    except IntegrityError:
        return None
    DeviceState.objects.create(device=device, brand_id=brand_id)
    return device


def _apply(device: Device, change: Mapping[str, Any], now: datetime) -> None:
    """Write a change to a locked device, whole."""
    for name in _PLAIN:
        if name in change:
            setattr(device, name, change[name])
    if "push_token" in change:
        _take_push_token(device, change["push_token"], now)
    if change.get("attributes"):
        device.attributes, device.attribute_facts = attributes.merged(
            device.attributes, device.attribute_facts, change["attributes"], source="app", at=now
        )
    if "consent" in change:
        _agree(device, change["consent"], now)
    device.save()


def _take_push_token(device: Device, push_token: str | None, now: datetime) -> None:
    """Who holds the phone gets the push. A token the provider called dead lives again.

    Within the brand: with an app key, which is no secret, one brand could else take a token that it
    heard of from the device of another (promise 7).
    """
    if push_token:
        held = Device.objects.filter(brand_id=device.brand_id, push_token=push_token)
        held.exclude(pk=device.pk).update(push_token=None, push_token_gone_at=now)
    device.push_token = push_token
    device.push_token_at = now if push_token else None
    device.push_token_gone_at = None


def _agree(device: Device, consent: Mapping[str, Any], now: datetime) -> None:
    """Write down what was agreed to; where location was withdrawn, every visit ends."""
    before = device.consent_location
    device.consent_location = consent.get("location", device.consent_location)
    device.consent_marketing = consent.get("marketing", device.consent_marketing)
    device.consent_version = consent.get("version", device.consent_version)
    device.consent_at = now
    DeviceState.objects.filter(device=device).update(
        consent_location=device.consent_location, version=F("version") + 1
    )
    if before and not device.consent_location:
        ingest.leave_all(
            device.pk,
            reason=TransitionReason.CONSENT_WITHDRAWN,
            armed=follower.current(),
            now_ms=int(now.timestamp() * 1000),
        )

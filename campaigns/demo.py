"""Loads the demo city: two brands with staff, keys, geofences and campaigns, once.

It goes the way people go (`upserts`, `publishing`, `AppKey.issue`) and leaves alone what is there:
whatever somebody changed in a brand stays changed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import shapely.geometry
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from brands.filejobs import Verdict
from brands.models import AppKey, Brand, KeyKind, Membership
from campaigns import publishing
from campaigns.models import Segment
from geofences import upserts

KEY_NAME = "Demo"
KEY_KINDS = {"app_key": KeyKind.PUBLISHABLE, "server_key": KeyKind.SERVER}
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike: people type these


def load(folder: Path, known: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    """Have the demo in the database; `known` and what it returns are CONTRACT's demo.json.

    Secrets that are known stay; those that are not are made anew, and old demo keys revoked.
    """
    if settings.PRODUCTION:
        raise ImproperlyConfigured("the demo is not for NEARCAST_ENV=production")
    plans = json.loads((folder / "brands.json").read_text())
    places = json.loads((folder / "geofences.geojson").read_text())["features"]
    found = dict(known)
    passwords = {person["username"]: person["password"] for person in known.get("staff", ())}
    staff, keys = [], {}
    with transaction.atomic():
        for plan in plans:
            brand = Brand.objects.filter(slug=plan["slug"]).first() or _make_brand(
                plan, places, now=now
            )
            keys[brand.slug] = _keys(brand, known.get("brands", {}).get(brand.slug, {}), now=now)
            staff += [_person(brand, each, passwords) for each in plan["staff"]]
    first = plans[0]["slug"]
    found |= keys[first] | {"brand": first, "brands": keys, "staff": staff}
    return found


def _make_brand(plan: Mapping[str, Any], places: list[dict[str, Any]], *, now: datetime) -> Brand:
    """A brand with everything in it."""
    brand = Brand.objects.create(
        slug=plan["slug"], name=plan["name"], timezone=plan["timezone"], caps=plan["caps"]
    )
    own = [place for place in places if place["properties"]["brand"] == plan["slug"]]
    wanted = [_wanted(number, place) for number, place in enumerate(own)]
    refused = [each for each in upserts.upsert(brand.pk, wanted) if each.verdict is Verdict.REFUSED]
    if refused:
        raise ValueError(f"the demo's geofences do not load: {refused[0].remark}")
    for segment in plan["segments"]:
        Segment.objects.create(brand=brand, **segment)
    for campaign in plan["campaigns"]:
        raw = {key: value for key, value in campaign.items() if key not in {"name", "publish"}}
        made = publishing.create(brand=brand, name=campaign["name"], raw=raw, actor=None)
        if campaign["publish"]:
            publishing.publish(made, actor=None, now=now)
    return brand


def _wanted(number: int, place: Mapping[str, Any]) -> upserts.Wanted:
    said = place["properties"]
    return upserts.Wanted(
        number=number,
        external_id=said["external_id"],
        geometry=shapely.geometry.shape(place["geometry"]),
        fields={name: said[name] for name in ("name", "radius_m", "track_visits") if name in said},
        tags=tuple(said["tags"]),
        metadata=said.get("metadata", {}),
    )


def _keys(brand: Brand, known: Mapping[str, str], *, now: datetime) -> dict[str, str]:
    """The brand's demo keys: those known if they still open, else new ones instead of the old."""
    found = {}
    for name, kind in KEY_KINDS.items():
        mine = AppKey.objects.live().filter(brand=brand, kind=kind, name=KEY_NAME)
        secret = known.get(name, "")
        if not mine.filter(digest=AppKey.digest_of(secret)).exists():
            mine.update(revoked_at=now)
            _, secret = AppKey.issue(brand=brand, kind=kind, name=KEY_NAME)
        found[name] = secret
    return found


def _person(
    brand: Brand, person: Mapping[str, Any], passwords: Mapping[str, str]
) -> dict[str, Any]:
    """A member of staff who can log in; a password that nobody knows any more is made anew."""
    username = person["username"]
    user, is_new = get_user_model().objects.get_or_create(
        username=username,
        defaults={"is_staff": True, "is_superuser": person.get("superuser", False)},
    )
    password = passwords.get(username) or _password()
    if is_new or username not in passwords:
        user.set_password(password)
        user.save()
    Membership.objects.get_or_create(brand=brand, user=user, defaults={"role": person["role"]})
    return {
        "username": username,
        "password": password,
        "role": person["role"],
        "brand": brand.slug,
    }


def _password() -> str:
    """60 bits, easy to type."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3))

"""Promise 7: one brand never sees or touches another's rows, on any endpoint or admin page.

The staff's socket has its own test (tests/config/test_live.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils.timezone import now

from brands.models import KeyKind, Membership, Role
from campaigns import coupons
from campaigns.evaluation import evaluate_once
from campaigns.models import BrandGuard, Decision, Segment
from devices.models import Device, Profile, Transition
from notifications.models import Delivery
from tests.campaigns.rows import make_transition
from tests.factories import make_brand, make_key
from tests.promises.conftest import Shop, make_devices

pytestmark = pytest.mark.django_db

SECRET = "whatever-belongs-to-the-first-brand"
# Paths of a device itself and of doors that take data; they have no rows of others to show.
OWN = re.compile(r"devices|offers|nearby|gateway|schema|feedback|healthz|readyz|metrics|stream")


@pytest.fixture
def rows(shop: Shop) -> dict[str, Any]:
    """The first brand's rows of every kind, each with the word in it."""
    shop.place.name = shop.campaign.name = SECRET
    shop.place.save()
    shop.campaign.save()
    [device] = make_devices(shop.brand, 1)
    Device.objects.filter(pk=device.pk).update(external_id=SECRET, installation_id=SECRET)
    Profile.objects.create(brand=shop.brand, external_id=SECRET)
    make_transition(device, shop.place)
    evaluate_once(now=now())
    Delivery.objects.update(campaign_name=SECRET)
    segment = Segment.objects.create(brand=shop.brand, name=SECRET, slug=SECRET, tree={})
    guard = BrandGuard.objects.create(brand=shop.brand, name=SECRET, rule={"event": SECRET})
    pool = coupons.new_pool(shop.brand, name=SECRET, slug=SECRET)
    return {
        "geofences": shop.place,
        "campaigns": shop.campaign,
        "coupon-pools": pool,
        "segments": segment,
        "guards": guard,
        "transitions": Transition.objects.get(),
        "decisions": Decision.objects.get(),
        "deliveries": Delivery.objects.get(),
    }


def management_lists() -> Iterator[str]:
    """Every list under /v1/ that the URL configuration knows."""

    def walk(patterns: Any, before: str) -> Iterator[str]:
        for each in patterns:
            path = before + str(each.pattern)
            if isinstance(each, URLResolver):
                yield from walk(each.url_patterns, path)
            elif isinstance(each, URLPattern):
                yield path

    for path in walk(get_resolver().url_patterns, ""):
        plain = re.sub(r"\\Z|[$^]|\\\.\(.*|\\", "", path)
        if plain.startswith("v1/") and not OWN.search(plain) and not re.search(r"[<(?]", plain):
            yield "/" + plain


def test_it_knows_all_lists_that_there_are(rows: dict[str, Any]) -> None:
    assert {path.removeprefix("/v1/") for path in management_lists()} >= set(rows)


def test_it_shows_a_back_office_only_its_own(rows: dict[str, Any], client: Client) -> None:
    stranger = {"authorization": f"Bearer {make_key(make_brand())}"}
    for path in sorted(set(management_lists())):
        answer = client.get(path, headers=stranger)
        assert answer.status_code in {200, 405}, path
        assert SECRET not in answer.content.decode(), path
    for path, row in rows.items():
        for method in ("get", "put", "patch", "delete", "post"):
            answer = getattr(client, method)(
                f"/v1/{path}/{row.pk}", headers=stranger, content_type="application/json"
            )
            assert answer.status_code in {404, 405}, (method, path)
            assert SECRET not in answer.content.decode()
    for action in ("publish", "pause", "resume", "end"):
        answer = client.post(f"/v1/campaigns/{rows['campaigns'].pk}/{action}", headers=stranger)
        assert answer.status_code == 404, action


def test_it_asks_for_the_right_kind_of_key(rows: dict[str, Any], client: Client) -> None:
    brand = make_brand()
    publishable = {"authorization": f"Bearer {make_key(brand, KeyKind.PUBLISHABLE)}"}
    for path in sorted(set(management_lists())):
        assert client.get(path).status_code in {401, 403}, path
        assert client.get(path, headers=publishable).status_code in {401, 403}, path


def test_it_does_not_take_a_strangers_device_through_the_gateway(
    rows: dict[str, Any], client: Client
) -> None:
    device = Device.objects.get()
    answer = client.get(
        "/v1/transitions",
        {"external_id": SECRET},
        headers={"authorization": f"Bearer {make_key(make_brand())}"},
    )

    assert answer.json()["results"] == []
    assert Device.objects.get(pk=device.pk).external_id == SECRET


def test_it_shows_staff_only_their_own_brand_on_every_admin_page(
    rows: dict[str, Any], client: Client
) -> None:
    user = get_user_model().objects.create(username="stranger", is_staff=True)
    Membership.objects.create(user=user, brand=make_brand(), role=Role.ADMIN)
    client.force_login(user)
    client.get(reverse("admin:index"))  # the first request is what registers the pages
    looked_at = set()
    for model, page in admin.site._registry.items():
        label = f"{model._meta.app_label}_{model._meta.model_name}"
        listed = client.get(reverse(f"admin:{label}_changelist"), follow=True)
        assert SECRET not in listed.content.decode(), label
        for row in page.model._default_manager.all():
            if not _is_of_first_brand(row):
                continue
            looked_at.add(model._meta.model_name)
            opened = client.get(reverse(f"admin:{label}_change", args=[row.pk]), follow=True)
            assert SECRET not in opened.content.decode(), (label, row.pk)
    assert looked_at == {
        "geofence",
        "campaign",
        "segment",
        "brandguard",
        "couponpool",
        "profile",
        "delivery",
        "device",
    }


def _is_of_first_brand(row: Any) -> bool:
    return any(SECRET in str(value) for value in vars(row).values())

"""Promise 4: every campaign considered for a transition leaves a Decision, with its reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils.timezone import now

from campaigns.evaluation import evaluate_once
from campaigns.models import Decision
from tests.campaigns.rows import make_campaign, make_transition
from tests.factories import make_key
from tests.promises.conftest import Shop, make_devices

# Passes the check before publishing, whose sample device has this id.
FAILS_LATER = (
    "{% if device.external_id == 'customer-1' %}1{% else %}{{ 1 | divided_by: 0 }}{% endif %}"
)

pytestmark = pytest.mark.django_db


def test_it_answers_for_every_campaign_why_and_why_not(shop: Shop, client: Client) -> None:
    yesterday = (now() - timedelta(days=1)).isoformat()
    others: dict[str, tuple[dict[str, Any], str]] = {
        "Only iPhones": ({"audience": {"platform": "ios"}}, "not_in_audience"),
        "Nobody any more": ({"caps": [{"limit": 0}], "group": "capped"}, "cap_reached"),
        "Broken in this moment": (
            {"content": {"title": FAILS_LATER, "body": "b"}, "group": "broken"},
            "content_error",
        ),
        "Better, with priority": ({"priority": 9, "starts_at": yesterday}, "matched"),
    }
    expected = {shop.campaign.name: "lost_to_priority"}
    for name, (fields, reason) in others.items():
        make_campaign(shop.brand, shop.place, name=name, **fields)
        expected[name] = reason
    [device] = make_devices(shop.brand, 1)
    entry = make_transition(device, shop.place)
    evaluate_once(now=now())

    answer = client.get(
        "/v1/decisions",
        {"device_id": device.pk},
        headers={"authorization": f"Bearer {make_key(shop.brand)}"},
    )

    told = answer.json()["results"]
    assert {each["campaign"]["name"]: each["reason"] for each in told} == expected
    assert {each["moment"]["id"] for each in told} == {entry.pk}
    assert all(len(each["message"]) > 10 for each in told), "the reason in words"
    assert Decision.objects.count() == len(expected)


def test_it_shows_support_one_page_with_every_reason(shop: Shop, admin_client: Client) -> None:
    make_campaign(shop.brand, shop.place, name="Only iPhones", audience={"platform": "ios"})
    [device] = make_devices(shop.brand, 1)
    make_transition(device, shop.place)
    evaluate_once(now=now())

    page = admin_client.get(f"/admin/devices/device/{device.pk}/change/", follow=True)

    assert page.status_code == 200
    text = page.content.decode()
    assert shop.campaign.name in text
    assert "Only iPhones" in text

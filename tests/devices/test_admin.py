"""Devices in the admin: found by any id, erased by an admin after asking, edited by nobody."""

from __future__ import annotations

import json

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from brands.models import Role
from campaigns.models import Decision
from devices.models import Device, Fix, Transition
from notifications.models import Delivery
from tests.factories import make_device
from tests.staff import World, logged_in, make_member, make_world

pytestmark = pytest.mark.django_db

LIST = "admin:devices_device_changelist"


@pytest.fixture
def world() -> World:
    return make_world("Bara")


@pytest.mark.parametrize("by", ["pk", "external_id", "installation_id", "push_token"])
def test_it_finds_a_device_by_any_of_its_ids(world: World, by: str) -> None:
    make_device(world.brand, external_id="somebody-else")
    query = {"q": getattr(world.device, by)}
    body = logged_in(world.admin).get(reverse(LIST), query).content.decode()
    assert "Bara-person" in body
    assert "somebody-else" not in body


def test_it_goes_through_all_devices_page_by_page(world: World) -> None:
    for number in range(120):
        make_device(world.brand, external_id=f"person-{number:03d}")
    client, query, seen = logged_in(world.admin), "", []
    for _ in range(5):
        page = client.get(reverse(LIST) + query)
        rows = [row.pk for row in page.context["rows"]]
        seen += rows
        if page.context["older_url"] is None:
            break
        query = page.context["older_url"]
    assert seen == sorted(Device.objects.values_list("pk", flat=True), reverse=True)


def test_it_survives_a_page_that_is_none(world: World) -> None:
    answer = logged_in(world.admin).get(reverse(LIST), {"older": "nonsense"})
    assert "Bara-person" in answer.content.decode()


def test_it_counts_no_rows(world: World, django_assert_max_num_queries: object) -> None:
    client = logged_in(world.admin)
    with django_assert_max_num_queries(12) as asked:  # type: ignore[operator]
        client.get(reverse(LIST))
    assert not [q["sql"] for q in asked.captured_queries if "COUNT(" in q["sql"].upper()]


@pytest.mark.parametrize("role", [Role.SUPPORT, Role.MARKETER])
@pytest.mark.parametrize("action", ["erase", "export"])
def test_it_leaves_erasure_and_export_to_admins(world: World, role: Role, action: str) -> None:
    client = logged_in(make_member(world.brand, role))
    address = reverse(f"admin:devices_device_{action}", args=[world.device.pk])
    assert client.post(address, {"sure": "on"}).status_code == 403
    assert Device.objects.filter(pk=world.device.pk).exists()


def test_it_erases_only_after_a_second_thought(world: World) -> None:
    client = logged_in(world.admin)
    address = reverse("admin:devices_device_erase", args=[world.device.pk])
    client.post(address, {})
    assert Device.objects.filter(pk=world.device.pk).exists()


def test_it_erases_every_row_that_names_the_device(world: World) -> None:
    client = logged_in(world.admin)
    client.post(
        reverse("admin:devices_device_erase", args=[world.device.pk]), {"sure": "on"}, follow=True
    )
    for model in (Device, Fix, Transition, Decision, Delivery):
        assert not model._default_manager.exists(), model
    assert not LogEntry.objects.filter(object_repr__contains="Bara-person").exists()


def test_it_gives_out_everything_held(world: World) -> None:
    address = reverse("admin:devices_device_export", args=[world.device.pk])
    answer = logged_in(world.admin).get(address)
    held = json.loads(b"".join(answer.streaming_content))  # type: ignore[attr-defined]
    assert {"device", "fixes", "transitions", "deliveries", "decisions"} <= held.keys()
    assert "attachment" in answer["Content-Disposition"]


def test_it_edits_no_device(world: World) -> None:
    client = logged_in(world.admin)
    before = Device.objects.values().get()
    client.post(
        reverse("admin:devices_device_change", args=[world.device.pk]), {"external_id": "other"}
    )
    assert Device.objects.values().get() == before
    assert client.get(reverse("admin:devices_device_add")).status_code == 403

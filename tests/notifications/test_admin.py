"""Resend and cancel in the admin: asked first, done by the outbox, logged with who and why."""

from __future__ import annotations

import pytest
from django.urls import NoReverseMatch, reverse

from brands.models import Role
from notifications.admin import ACTIONS
from notifications.models import Delivery, DeliveryAction, DeliveryActionLog, DeliveryState
from tests.staff import World, logged_in, make_member, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    return make_world("Bara")


def address(world: World, action: DeliveryAction) -> str:
    return reverse(f"admin:notifications_delivery_{action}", args=[world.delivery.pk])


def state_of(world: World) -> str:
    return Delivery.objects.get(pk=world.delivery.pk).state


def test_it_resends_in_the_name_of_whoever_asked(world: World) -> None:
    sam = make_member(world.brand, Role.SUPPORT)
    client = logged_in(sam)
    client.get(address(world, DeliveryAction.RESEND))
    assert state_of(world) == DeliveryState.SENT, "looking at the question changes nothing"
    client.post(address(world, DeliveryAction.RESEND), {"note": "The phone was off."})
    assert state_of(world) == DeliveryState.PENDING
    log = DeliveryActionLog.objects.get()
    assert (log.actor, log.action, log.note) == (sam, "resend", "The phone was off.")


def test_it_cancels_what_has_not_gone_out(world: World) -> None:
    Delivery.objects.filter(pk=world.delivery.pk).update(state=DeliveryState.PENDING)
    client = logged_in(make_member(world.brand, Role.SUPPORT))
    client.post(address(world, DeliveryAction.CANCEL), {"note": ""})
    assert state_of(world) == DeliveryState.CANCELLED
    assert DeliveryActionLog.objects.get().action == "cancel"


def test_it_says_so_where_it_is_too_late_to_cancel(world: World) -> None:
    client = logged_in(make_member(world.brand, Role.SUPPORT))
    answer = client.post(address(world, DeliveryAction.CANCEL), {"note": ""}, follow=True)
    assert "Too late" in answer.content.decode()
    assert state_of(world) == DeliveryState.SENT
    assert not DeliveryActionLog.objects.exists()


def test_it_makes_no_test_of_what_was_decided(world: World) -> None:
    Delivery.objects.filter(pk=world.delivery.pk).update(state=DeliveryState.PENDING)
    with pytest.raises(NoReverseMatch):
        address(world, DeliveryAction.TEST)
    page = reverse("admin:notifications_delivery_change", args=[world.delivery.pk])
    at = page.replace("/change/", "/test/")
    logged_in(world.admin).post(at, {"note": ""})
    assert state_of(world) == DeliveryState.PENDING


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        (DeliveryState.PENDING, {"cancel"}),
        (DeliveryState.SENDING, set()),
        (DeliveryState.SENT, {"resend"}),
        (DeliveryState.FAILED, {"resend"}),
        (DeliveryState.EXPIRED, {"resend"}),
        (DeliveryState.SUPPRESSED, {"resend"}),
        (DeliveryState.CANCELLED, {"resend"}),
        (DeliveryState.PARKED, {"resend"}),
    ],
)
def test_it_offers_what_the_state_allows(
    world: World, state: DeliveryState, offered: set[str]
) -> None:
    Delivery.objects.filter(pk=world.delivery.pk).update(state=state)
    page = logged_in(world.admin).get(
        reverse("admin:notifications_delivery_change", args=[world.delivery.pk])
    )
    shown = {action.value for action in ACTIONS if address(world, action) in str(page.content)}
    assert shown == offered


@pytest.mark.parametrize("page", ["changelist", "change"])
def test_it_names_a_device_once_where_nothing_else_is_known_of_whom_it_is_for(
    world: World, page: str
) -> None:
    delivery = world.delivery
    at = reverse(
        f"admin:notifications_delivery_{page}", args=[delivery.pk] if page == "change" else []
    )
    assert "Bara-person</a>" in logged_in(world.admin).get(at).content.decode()
    Delivery.objects.filter(pk=delivery.pk).update(person=f"device:{delivery.device_id}")
    shown = logged_in(world.admin).get(at).content.decode()
    assert f"device {delivery.device_id}</a>" in shown
    assert f"device:{delivery.device_id}" not in shown


def test_it_changes_a_delivery_in_no_other_way(world: World) -> None:
    client = logged_in(world.admin)
    before = Delivery.objects.values().get()
    change = reverse("admin:notifications_delivery_change", args=[world.delivery.pk])
    client.post(change, {"state": "failed", "campaign_name": "Other"})
    delete = reverse("admin:notifications_delivery_delete", args=[world.delivery.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 403
    assert client.get(reverse("admin:notifications_delivery_add")).status_code == 403
    assert Delivery.objects.values().get() == before

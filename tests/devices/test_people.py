"""A person whom the back office knows: given out and erased, by those who may."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from brands import filejobs, undoing
from brands.filejobs import ImportState
from brands.models import Brand, KeyKind, Role
from campaigns.models import Completion
from devices import auth, people, profile_imports, profiles
from devices.models import Device, Event, Profile, ProfileImport, ProfileImportChange
from devices.profiles import ProfileIn
from notifications.models import Delivery
from tests.devices.people import known, take
from tests.factories import make_brand, make_device, make_key
from tests.promises.test_8_consent_and_erasure import naming
from tests.staff import World, logged_in, make_member, make_world

pytestmark = pytest.mark.django_db

ANN = "ann-4711"
NOBODY = 0


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture(autouse=True)
def media(tmp_path: Path, settings: Any) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


def office(brand: Brand, kind: KeyKind = KeyKind.SERVER) -> Client:
    return Client(headers={"authorization": f"Bearer {make_key(brand, kind)}"})


def at(person: str) -> str:
    return f"/v1/gateway/profiles/{person}"


def tell(brand: Brand, person: str = ANN, **attributes: Any) -> None:
    profiles.upsert(brand.pk, [ProfileIn(person, attributes)], source="crm", now=now())


def report(brand: Brand, person: str = ANN) -> None:
    Event.objects.create(
        brand_id=brand.pk,
        external_id=person,
        key=1,
        name="purchase",
        occurred_at=now(),
        received_at=now(),
    )


def test_it_gives_out_what_is_held_about_a_person(brand: Brand) -> None:
    tell(brand, tier="gold")
    report(brand)
    devices = [make_device(brand, external_id=ANN) for _ in range(2)]
    make_device(brand, external_id="bob")

    held = office(brand).get(at(ANN)).json()

    assert held["external_id"] == ANN
    [profile] = held["profile"]
    assert profile["attributes"]["tier"]["value"] == "gold"
    assert profile["attributes"]["tier"]["source"] == "crm"
    assert profile["attributes"]["tier"]["at"]
    assert [event["name"] for event in held["events"]] == ["purchase"]
    assert [each["device"]["device_id"] for each in held["devices"]] == [
        each.pk for each in devices
    ]


def test_a_device_gets_nothing_of_a_person_whom_it_only_names(brand: Brand) -> None:
    tell(brand, tier="gold")
    device = make_device(brand, external_id=ANN)
    app = Client(headers={"authorization": f"Bearer {auth.issue(device.pk, brand.pk, 1)}"})

    assert "gold" not in app.get("/v1/devices/me/export").content.decode()
    assert app.get(at(ANN)).status_code == 401
    assert app.delete(at(ANN)).status_code == 401
    assert app.delete("/v1/devices/me").status_code == 204
    assert known(brand) == {ANN: {"tier": "gold"}}


def test_it_erases_what_the_back_office_said_and_leaves_devices(
    brand: Brand, table: Callable[..., Path]
) -> None:
    bystander = make_brand()
    for each in (brand, bystander):
        take(each, table(f"customer_id,plan\n{ANN},gold\nbob,gold\n{ANN},silver\n"))
        report(each)
    device = make_device(brand, external_id=ANN)
    held = len(naming(NOBODY, ANN))

    assert office(brand).delete(at(ANN)).status_code == 204

    assert known(brand) == {"bob": {"plan": "gold"}}
    assert ANN in known(bystander)
    assert not Event.objects.filter(brand_id=brand.pk).exists()
    assert len(naming(NOBODY, ANN)) == held  # the bystander's, table by table
    assert Device.objects.get() == device
    people.erase(bystander.pk, ANN, devices=False)
    assert naming(NOBODY, ANN) == {"devices_device": 1}


def test_it_erases_the_devices_too_where_asked(brand: Brand) -> None:
    tell(brand, tier="gold")
    device, once, other = (make_device(brand, external_id=who) for who in (ANN, None, "bob"))
    common = {"brand_id": brand.pk, "device_id": once.pk, "person": ANN, "campaign_id": 1}
    Completion.objects.create(
        **common, last_kind="event", last_id=1, first_at=now(), completed_at=now(), due_at=now()
    )
    Delivery.objects.create(
        **common, key="k", moment_kind="event", content={}, due_at=now(), expires_at=now()
    )

    answer = office(brand).delete(at(ANN) + "?devices=true")

    assert answer.status_code == 204
    assert naming(device.pk, ANN) == {}
    assert set(Device.objects.all()) == {once, other}
    assert Delivery.objects.get().person == f"device:{once.pk}"


def test_to_erase_again_changes_nothing_and_there_is_nothing_to_give_out(brand: Brand) -> None:
    back_office = office(brand)
    for _ in range(2):
        assert back_office.delete(at(ANN)).status_code == 204
    assert back_office.get(at(ANN)).status_code == 404
    assert back_office.delete(at("nul%00")).status_code == 404
    assert back_office.delete(at(ANN) + "?devices=perhaps").status_code == 422


def test_it_knows_ids_with_any_letter(brand: Brand) -> None:
    tell(brand, "club/7 ü", tier="gold")
    assert office(brand).get(at("club%2F7%20%C3%BC")).json()["external_id"] == "club/7 ü"
    office(brand).delete(at("club/7%20%C3%BC"))
    assert known(brand) == {}


def test_it_asks_for_a_server_key_of_the_brand(brand: Brand) -> None:
    tell(brand, tier="gold")
    stranger = office(make_brand())
    assert stranger.get(at(ANN)).status_code == 404
    assert stranger.delete(at(ANN) + "?devices=true").status_code == 204
    for client in (Client(), office(brand, KeyKind.PUBLISHABLE)):
        assert client.get(at(ANN)).status_code in {401, 403}
        assert client.delete(at(ANN)).status_code in {401, 403}
    assert known(brand) == {ANN: {"tier": "gold"}}


def test_an_undoing_under_way_goes_on_without_the_erased(
    brand: Brand, table: Callable[..., Path]
) -> None:
    job = take(brand, table(f"customer_id,plan\n{ANN},gold\nbob,gold\n"))
    undone = undoing.undo(job, by=None, now=now())
    people.erase(brand.pk, ANN, devices=False)

    claimed = filejobs.claim(ProfileImport, now=now())
    assert claimed is not None
    assert claimed == undone
    filejobs.execute(claimed, profile_imports.do, stop=threading.Event())

    undone.refresh_from_db()
    assert (undone.state, undone.counts) == (ImportState.DONE, {"kept": 1, "removed": 1})
    assert not Profile.objects.exists()
    assert ProfileImportChange.objects.filter(before={}, after={}).count() == 1


@pytest.fixture
def world() -> World:
    world = make_world("Bara")
    tell(world.brand, "Bara-person", tier="gold")
    return world


def page(action: str) -> str:
    return reverse(f"admin:devices_profile_{action}", args=[Profile.objects.get().pk])


@pytest.mark.parametrize("role", [Role.SUPPORT, Role.MARKETER])
@pytest.mark.parametrize("action", ["erase", "export"])
def test_the_admin_leaves_both_to_admins(world: World, role: Role, action: str) -> None:
    client = logged_in(make_member(world.brand, role))
    assert client.post(page(action), {"sure": "on"}).status_code == 403
    assert Profile.objects.exists()
    assert "Erase this person" not in client.get(page("change")).content.decode()


def test_the_admin_says_what_goes_and_asks_twice(world: World) -> None:
    client = logged_in(world.admin)
    assert "Erase this person…" in client.get(page("change")).content.decode()
    asked = client.get(page("erase")).content.decode()
    assert "1 attribute, and the events it reported" in asked
    assert "1 device go too" in asked
    assert client.post(page("erase"), {"devices": "on"}).status_code == 200
    assert Profile.objects.exists()


@pytest.mark.parametrize("devices", [0, 1])
def test_the_admin_erases_as_far_as_asked(world: World, devices: int) -> None:
    sent = {"sure": "on"} | ({} if devices else {"devices": "on"})
    logged_in(world.admin).post(page("erase"), sent, follow=True)
    assert not Profile.objects.exists()
    assert Device.objects.count() == devices
    assert not LogEntry.objects.filter(object_repr__contains="Bara-person").exists()
    if not devices:
        assert naming(world.device.pk, "Bara-person") == {}


def test_the_admin_gives_out_everything_held(world: World) -> None:
    answer = logged_in(world.admin).get(page("export"))
    held = json.loads(b"".join(answer.streaming_content))  # type: ignore[attr-defined]
    assert held["profile"][0]["attributes"]["tier"]["value"] == "gold"
    assert held["devices"][0]["fixes"]
    assert "attachment" in answer["Content-Disposition"]

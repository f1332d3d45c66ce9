"""A device's own row, through its public paths and under races."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils.timezone import now

from brands.models import Brand, KeyKind
from campaigns.models import Campaign, Completion, Decision
from devices import auth, registration
from devices.fixes import assemble
from devices.gathering import now_ms
from devices.ingest import ingest
from devices.models import (
    Area,
    AreaScan,
    Device,
    DeviceState,
    Event,
    Fix,
    Presence,
    Transition,
)
from geofences.armed import follower
from notifications.models import Attempt, Delivery, DeliveryActionLog, Feedback
from tests.factories import make_brand, make_circle, make_device, make_key
from tests.places import AT_THE_DOOR, SHOP_RADIUS_M

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AGREED = {"location": True, "marketing": True, "version": "2026-01"}


def told(**fields: Any) -> dict[str, Any]:
    return {"installation_id": "abc", "platform": "ios", "consent": AGREED} | fields


class App:
    """An app that registers and then speaks with the token it got."""

    def __init__(self, brand: Brand) -> None:
        self.key = make_key(brand, KeyKind.PUBLISHABLE)
        self.client = Client()
        self.token = ""

    def register(self, **fields: Any) -> Any:
        answer = self.send("post", "/v1/devices", told(**fields), bearer=self.key)
        if answer.status_code in {200, 201}:
            self.token = answer.json()["token"]
        return answer

    def send(self, method: str, path: str, body: Any = None, *, bearer: str = "") -> Any:
        return getattr(self.client, method)(
            path,
            **({} if body is None else {"data": body}),
            content_type="application/json",
            headers={"authorization": f"Bearer {bearer or self.token}"},
        )


@pytest.fixture
def app(db: None) -> App:
    return App(make_brand())


def walk_in(device: Device) -> None:
    """Report one fix at the shop's door; the device may be gone by then."""
    row = (device.pk, device.brand_id, 0, now_ms(), 0, False, *AT_THE_DOOR, *[None] * 5, False)
    ingest(assemble([row]), now_ms=now_ms(), armed=follower.refresh())


def test_it_registers_an_installation(app: App) -> None:
    answer = app.register(
        push_token="t1", locale="fr_CA", timezone="America/Montreal", attributes={"tier": "gold"}
    )
    assert answer.status_code == 201
    device = Device.objects.get(pk=answer.json()["device_id"])
    assert (device.push_token, device.locale) == ("t1", "fr-CA")
    assert device.timezone == "America/Montreal"
    assert (device.consent_location, device.consent_version) == (True, "2026-01")
    assert device.consent_at is not None
    assert device.state.consent_location


def test_it_takes_null_for_unknown(app: App) -> None:
    unknown: dict[str, None] = dict.fromkeys(
        ("external_id", "push_token", "locale", "timezone", "app_version", "attributes")
    )
    assert app.register(**unknown).status_code == 201
    device = Device.objects.get()
    assert (device.locale, device.timezone, device.app_version) == ("", "", "")
    assert device.attributes == {}


def test_it_answers_a_token_that_opens_the_devices_own_paths(app: App) -> None:
    device_id = app.register().json()["device_id"]
    assert app.send("get", "/v1/devices/me").json()["device_id"] == device_id


def test_it_renews_the_token_of_a_known_installation(app: App) -> None:
    first = app.register().json()
    again = app.register(platform="ios", app_version="2")
    assert again.status_code == 200
    assert again.json()["device_id"] == first["device_id"]
    assert again.json()["token"] != first["token"]
    assert Device.objects.get().app_version == "2"


def test_it_keeps_installations_of_two_brands_apart(app: App) -> None:
    other = App(make_brand())
    assert app.register().json()["device_id"] != other.register().json()["device_id"]
    assert other.send("get", "/v1/devices/me").status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("installation_id", ""),
        ("installation_id", 7),
        ("installation_id", "x" * 129),
        ("installation_id", "a\0b"),
        ("platform", "windows"),
        ("push_token", 5),
        ("push_token", "x" * 4097),
        ("external_id", "x" * 129),
        ("locale", "not a locale"),
        ("locale", "en\ud800"),
        ("timezone", "Mars/Olympus"),
        ("timezone", "../../etc/passwd"),
        ("timezone", "localtime"),
        ("timezone", "Factory"),
        ("attributes", []),
        ("attributes", {"": 1}),
        ("attributes", {"a b": 1}),
        ("attributes", {"a": "\0"}),
        ("attributes", {"a": 2**60}),
        ("attributes", {"a": "x" * 20_000}),
        ("attributes", {f"a{n}": n for n in range(201)}),
        ("attributes", {"a": [[[[[[[1]]]]]]]}),
        ("consent", None),
        ("consent", "yes"),
        ("consent", {"location": "yes", "marketing": True, "version": "1"}),
        ("consent", {"location": 1, "marketing": True, "version": "1"}),
        ("consent", {"location": True, "marketing": True}),
        ("consent", {"location": True, "marketing": True, "version": 1}),
    ],
)
def test_it_says_which_field_is_wrong(app: App, field: str, value: Any) -> None:
    answer = app.register(**{field: value})
    assert answer.status_code == 422
    assert list(answer.json()["fields"]) == [field]
    assert not Device.objects.exists()


def test_it_ignores_fields_of_apps_to_come(app: App) -> None:
    assert app.register(shoe_size=43).status_code == 201


@pytest.mark.parametrize(("body", "status"), [("{", 400), ("[]", 422), ('"x"', 422), ("", 422)])
def test_it_refuses_a_body_that_is_no_object(app: App, body: str, status: int) -> None:
    assert app.send("post", "/v1/devices", body, bearer=app.key).status_code == status


def test_it_refuses_a_body_without_end(app: App) -> None:
    assert app.register(attributes={"a": "x" * 70_000}).status_code == 413


def test_it_refuses_a_body_nested_without_end(app: App) -> None:
    body = '{"attributes":' + "[" * 5_000 + "]" * 5_000 + "}"
    assert app.send("post", "/v1/devices", body, bearer=app.key).status_code in {400, 422}


def test_it_refuses_other_media_types(app: App) -> None:
    answer = app.client.post("/v1/devices", told(), headers={"authorization": f"Bearer {app.key}"})
    assert answer.status_code == 415


def test_it_registers_with_a_publishable_key_only(app: App) -> None:
    server_key = make_key(make_brand(), KeyKind.SERVER)
    assert app.send("post", "/v1/devices", told(), bearer=server_key).status_code == 403
    assert app.send("post", "/v1/devices", told(), bearer="nc_pk_nobody").status_code == 401
    app.register()
    assert app.send("post", "/v1/devices", told(), bearer=app.token).status_code == 401


def test_it_changes_what_is_named_and_nothing_else(app: App) -> None:
    app.register(push_token="t1", external_id="c1", locale="en")
    answer = app.send("patch", "/v1/devices/me", {"locale": "fi", "external_id": None})
    assert answer.status_code == 200
    device = Device.objects.get()
    assert (device.push_token, device.external_id, device.locale) == ("t1", None, "fi")


def test_it_merges_attributes_and_notes_where_they_come_from(app: App) -> None:
    app.register(attributes={"tier": "gold", "city": "Paris"})
    app.send("patch", "/v1/devices/me", {"attributes": {"tier": None, "age": 30}})
    device = Device.objects.get()
    assert device.attributes == {"city": "Paris", "age": 30}
    assert {name: fact["source"] for name, fact in device.attribute_facts.items()} == {
        "city": "app",
        "age": "app",
    }


def test_it_keeps_the_consent_that_is_not_named(app: App) -> None:
    app.register()
    app.send("patch", "/v1/devices/me", {"consent": {"marketing": False, "version": "2"}})
    device = Device.objects.get()
    assert (device.consent_location, device.consent_marketing) == (True, False)
    assert device.consent_version == "2"


@pytest.mark.usefixtures("transactional_db")
def test_it_ends_every_visit_when_consent_is_withdrawn() -> None:
    brand = make_brand()
    app = App(brand)
    make_circle(brand)
    device_id = app.register().json()["device_id"]
    walk_in(Device.objects.get(pk=device_id))
    app.send("patch", "/v1/devices/me", {"consent": {"location": False}})
    assert not DeviceState.objects.get(device_id=device_id).consent_location
    assert not Presence.objects.exists()
    assert list(Transition.objects.order_by("id").values_list("kind", "reason")) == [
        ("entered", ""),
        ("exited", "consent_withdrawn"),
    ]


def test_it_moves_a_push_token_to_who_holds_the_phone(app: App) -> None:
    first = app.register(installation_id="one", push_token="t").json()["device_id"]
    second = app.register(installation_id="two", push_token="t").json()["device_id"]
    assert Device.objects.get(pk=first).push_token is None
    assert Device.objects.get(pk=second).push_token == "t"


def test_no_brand_takes_a_push_token_from_anothers_device(app: App) -> None:
    first = app.register(push_token="t").json()["device_id"]
    other = App(make_brand())
    second = other.register(push_token="t").json()["device_id"]
    other.send("patch", "/v1/devices/me", {"push_token": "t"})
    held = Device.objects.filter(pk__in=[first, second], push_token="t", push_token_gone_at=None)
    assert held.count() == 2


def test_it_revives_a_push_token_that_was_called_dead(app: App) -> None:
    device_id = app.register(push_token="t").json()["device_id"]
    registration.retire_push_tokens([(device_id, "t")], now=NOW)
    assert Device.objects.get().push_token_gone_at == NOW
    app.register(push_token="t")
    device = Device.objects.get()
    assert (device.push_token, device.push_token_gone_at) == ("t", None)


def together(orders: list[Callable[[], Any]]) -> list[BaseException]:
    """Run all at the same moment, each on a connection of its own; what they raised."""
    gate, failures = threading.Barrier(len(orders)), []

    def run(order: Callable[[], Any]) -> None:
        gate.wait()
        try:
            order()
        except BaseException as failure:  # noqa: BLE001 - the test looks at it
            failures.append(failure)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


@pytest.mark.usefixtures("transactional_db")
def test_it_gives_a_push_token_to_exactly_one_of_many_who_claim_it() -> None:
    brand = make_brand()
    devices = [make_device(brand) for _ in range(8)]
    for _ in range(3):
        assert not together(
            [
                partial(registration.change, device.pk, {"push_token": "wanted"}, now=NOW)
                for device in devices
            ]
        )
        assert Device.objects.filter(push_token="wanted").count() == 1


@pytest.mark.usefixtures("transactional_db")
def test_it_swaps_push_tokens_without_a_deadlock() -> None:
    brand = make_brand()
    one, two = make_device(brand), make_device(brand)
    for turn in range(10):
        tokens = [f"a{turn % 2}", f"a{(turn + 1) % 2}"]
        assert not together(
            [
                partial(registration.change, one.pk, {"push_token": tokens[0]}, now=NOW),
                partial(registration.change, two.pk, {"push_token": tokens[1]}, now=NOW),
            ]
        )
    held = set(Device.objects.values_list("push_token", flat=True))
    assert held == {"a0", "a1"}


@pytest.mark.usefixtures("transactional_db")
def test_it_makes_one_device_of_an_installation_that_registers_twice_at_once() -> None:
    brand = make_brand()
    found: list[registration.Registered] = []

    def register() -> None:
        found.append(
            registration.register(
                brand_id=brand.pk,
                installation_id="same",
                change={"platform": "ios", "push_token": "t", "consent": AGREED},
                now=NOW,
            )
        )

    assert not together([register] * 6)
    assert Device.objects.count() == 1
    assert sorted(one.created for one in found) == [False] * 5 + [True]


def test_it_refuses_a_revoked_token_at_once(app: App) -> None:
    device_id = app.register().json()["device_id"]
    registration.revoke(device_id)
    assert app.send("get", "/v1/devices/me").status_code == 401
    app.register()
    assert app.send("get", "/v1/devices/me").status_code == 200


@pytest.mark.parametrize("path", ["/v1/devices/me", "/v1/devices/me/export", "/v1/offers"])
def test_it_opens_own_paths_to_device_tokens_only(app: App, path: str) -> None:
    app.register()
    assert app.send("get", path).status_code == 200
    for bearer in (app.key, make_key(make_brand()), "nonsense", auth.issue(10**15, 1, 1)):
        assert app.send("get", path, bearer=bearer).status_code == 401


def make_traces(device: Device) -> None:
    """A row in every table that names a device."""
    make_circle(device.brand)
    walk_in(device)
    Event.objects.create(
        brand_id=device.brand_id,
        device_id=device.pk,
        key=1,
        name="purchase",
        occurred_at=NOW,
        received_at=NOW,
    )
    campaign = Campaign.objects.create(brand=device.brand, name="Spring")
    Decision.objects.create(
        brand_id=device.brand_id,
        device_id=device.pk,
        campaign_id=campaign.pk,
        campaign_version=1,
        moment_kind="transition",
        moment_id=1,
        verdict="send",
        reason="sent",
    )
    Completion.objects.create(
        brand_id=device.brand_id,
        person="c1",
        device_id=device.pk,
        campaign_id=campaign.pk,
        last_kind="transition",
        last_id=device.pk,
        first_at=NOW,
        completed_at=NOW,
        due_at=NOW,
    )
    delivery = Delivery.objects.create(
        brand_id=device.brand_id,
        device_id=device.pk,
        person="c1",
        campaign_id=campaign.pk,
        campaign_name="Spring",
        moment_kind="transition",
        key="k",
        content={"title": "Hello"},
        state="sent",
        due_at=NOW,
        expires_at=NOW + timedelta(days=1),
    )
    Attempt.objects.create(delivery=delivery, at=NOW, outcome="sent")
    Feedback.objects.create(delivery=delivery, event="opened", occurred_at=NOW)
    Area.objects.create(
        device_id=device.pk, kind="home", cell=1, lat=60.0, lng=25.0, days=4, last_at=now()
    )
    AreaScan.objects.create(device_id=device.pk, derived_at=now())
    DeliveryActionLog.objects.create(delivery=delivery, action="resend")


def rows_naming(device_id: int) -> dict[str, int]:
    """Every table that has a column for a device, and how many rows name this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT c.table_name FROM information_schema.columns c
              JOIN information_schema.tables t USING (table_schema, table_name)
             WHERE c.table_schema = 'public' AND c.column_name = 'device_id'
               AND t.table_type = 'BASE TABLE'
            """
        )
        tables = [row[0] for row in cursor.fetchall()]
        counts = {}
        for table in tables:
            cursor.execute(f'SELECT count(*) FROM "{table}" WHERE device_id = %s', (device_id,))
            counts[table] = cursor.fetchone()[0]
    return counts


@pytest.mark.usefixtures("transactional_db")
def test_it_erases_every_row_that_names_the_device_and_no_other() -> None:
    app = App(make_brand())
    device = Device.objects.get(pk=app.register().json()["device_id"])
    other = make_device(device.brand)
    for each in (device, other):
        make_traces(each)
    untouched = rows_naming(other.pk)
    named = rows_naming(device.pk)
    empty = {table for table, count in named.items() if not count}
    assert all("devices_fix" in table for table in empty), f"{empty}: does the test cover them?"

    assert app.send("delete", "/v1/devices/me").status_code == 204

    assert not any(rows_naming(device.pk).values())
    assert not Device.objects.filter(pk=device.pk).exists()
    assert rows_naming(other.pk) == untouched
    assert (Attempt.objects.count(), Feedback.objects.count()) == (1, 1)
    assert app.send("get", "/v1/devices/me").status_code == 401


@pytest.mark.usefixtures("transactional_db")
def test_it_leaves_no_fix_of_a_device_that_is_erased_meanwhile() -> None:
    brand = make_brand()
    make_circle(brand)
    for _ in range(5):
        device = make_device(brand)
        assert not together([partial(walk_in, device), partial(registration.erase, device.pk)])
        assert not any(rows_naming(device.pk).values())


@pytest.mark.usefixtures("transactional_db")
def test_it_exports_everything_held_about_the_device_and_no_other() -> None:
    app = App(make_brand())
    device = Device.objects.get(pk=app.register(attributes={"tier": "gold"}).json()["device_id"])
    make_traces(device)
    make_traces(make_device(device.brand))
    held = app.send("get", "/v1/devices/me/export").json()
    assert set(held) == {
        *("device", "last_position", "fixes", "areas", "events", "transitions", "presences"),
        *("completions", "decisions", "deliveries", "feedback"),
    }
    assert held["device"]["attributes"] == {"tier": "gold"}
    assert held["device"]["attribute_facts"]["tier"]["source"] == "app"
    assert {name: len(rows) for name, rows in held.items() if name != "device"} == {
        "fixes": Fix.objects.filter(device_id=device.pk).count(),
        "last_position": 1,
        "areas": 1,
        "events": 1,
        "transitions": 1,
        "presences": 1,
        "completions": 1,
        "decisions": 1,
        "deliveries": 1,
        "feedback": 1,
    }
    assert held["transitions"][0]["geofence"]["name"]
    assert {fix["verdict"] for fix in held["fixes"]} == {"used"}
    [inside] = held["presences"]
    assert inside["state"] == "inside"
    assert inside["geofence"] == held["transitions"][0]["geofence"]
    assert held["feedback"][0]["event"] == "opened"


@pytest.mark.usefixtures("transactional_db")
def test_it_lists_the_brands_armed_geofences_nearest_first() -> None:
    brand = make_brand()
    app = App(brand)
    app.register()
    near = make_circle(brand, external_id="near")
    far = make_circle(brand, geometry=f"POINT({AT_THE_DOOR.lng} {AT_THE_DOOR.lat + 0.05})")
    make_circle(make_brand())
    make_circle(brand, track_visits=False)
    follower.refresh()
    answer = app.send("get", f"/v1/geofences/nearby?lat={AT_THE_DOOR.lat}&lng={AT_THE_DOOR.lng}")
    found = answer.json()
    assert [each["id"] for each in found["geofences"]] == [near.pk, far.pk]
    first = found["geofences"][0]
    assert (first["external_id"], first["shape"], first["distance_m"]) == ("near", "circle", 0)
    assert first["circle"]["radius_m"] == near.radius_m
    assert found["refresh_radius_m"] > 0


@pytest.mark.usefixtures("transactional_db")
def test_it_says_how_far_one_may_go_before_asking_again() -> None:
    brand = make_brand()
    app = App(brand)
    app.register()
    make_circle(brand)
    make_circle(brand, geometry=f"POINT({AT_THE_DOOR.lng} {AT_THE_DOOR.lat + 0.05})")
    follower.refresh()
    found = app.send(
        "get", f"/v1/geofences/nearby?lat={AT_THE_DOOR.lat}&lng={AT_THE_DOOR.lng}&limit=1"
    ).json()
    assert len(found["geofences"]) == 1
    assert found["refresh_radius_m"] == pytest.approx(5_560 - SHOP_RADIUS_M, rel=0.01)


@pytest.mark.usefixtures("transactional_db")
def test_of_more_places_at_one_spot_than_a_phone_can_watch_it_does_not_ask_without_end() -> None:
    brand = make_brand()
    app = App(brand)
    app.register()
    for _ in range(22):
        make_circle(brand)
    follower.refresh()
    here = f"/v1/geofences/nearby?lat={AT_THE_DOOR.lat}&lng={AT_THE_DOOR.lng}"
    found = app.send("get", here).json()
    assert len(found["geofences"]) == 19, "one of iOS' twenty is the way out"
    assert found["refresh_radius_m"] == 100


@pytest.mark.parametrize(
    "query", ["", "lat=1", "lat=91&lng=0", "lat=nan&lng=0", "lat=x&lng=0", "lat=1&lng=1&limit=0"]
)
def test_it_says_what_is_wrong_with_a_place(app: App, query: str) -> None:
    app.register()
    answer = app.send("get", f"/v1/geofences/nearby?{query}")
    assert answer.status_code == 422
    assert answer.json()["fields"]


def test_it_looks_at_no_place_without_consent(app: App) -> None:
    app.register(consent=AGREED | {"location": False})
    answer = app.send("get", "/v1/geofences/nearby?lat=1&lng=1")
    assert (answer.status_code, answer.json()["code"]) == (403, "consent_withdrawn")

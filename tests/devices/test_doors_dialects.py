"""Apps that exist, over real HTTP: their bodies, their ways to say who they are, their answers."""

from __future__ import annotations

import gzip
import json
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from brands.models import Brand
from devices import registration
from devices.models import Device, Fix, Transition
from tests.devices.conftest import Phone, make_phone
from tests.factories import make_circle
from tests.places import AT_THE_DOOR, DOWN_THE_ROAD, Place
from tests.processes import until

pytestmark = pytest.mark.django_db(transaction=True)

OWNTRACKS, TRACCAR, TRANSISTOR = "/compat/owntracks", "/compat/traccar", "/compat/transistor"
RADAR = "/compat/radar/v1/track"


def owntracks(phone: Phone, said: Any = None, *, place: Place = AT_THE_DOOR, **more: Any) -> Any:
    """As the app posts: the user's name is its own, the password the device's token."""
    message = {"_type": "location", "lat": place.lat, "lon": place.lng, "tst": int(time.time())}
    content = json.dumps(message | more) if said is None else said
    return phone.client.post(
        OWNTRACKS,
        content=content,
        auth=("jane", phone.token),
        headers={"Content-Type": "application/json; charset=utf-8", "X-Limit-U": "jane"},
    )


def osmand(phone: Phone, *, place: Place = AT_THE_DOOR, **more: Any) -> httpx.Response:
    """As Traccar Client did for years: all in the query."""
    fields = {"id": phone.token, "lat": place.lat, "lon": place.lng, "timestamp": int(time.time())}
    return phone.client.get(f"{TRACCAR}/?{urlencode(fields | more)}")


def record(place: Place = AT_THE_DOOR, **more: Any) -> dict[str, Any]:
    coords = {"latitude": place.lat, "longitude": place.lng, "accuracy": 15.2, "speed": -1}
    return {
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "coords": coords | {"heading": -1, "altitude": 41.8},
        "battery": {"is_charging": True, "level": 0.92},
        "activity": {"type": "still", "confidence": 100},
    } | more


def traccar(phone: Phone, said: Any = None, *, place: Place = AT_THE_DOOR) -> httpx.Response:
    """As Traccar Client does since 9.0."""
    location = record(place) if said is None else said
    return phone.client.post(TRACCAR, json={"location": location, "device_id": phone.token})


def transistor(phone: Phone, said: Any = None, *, place: Place = AT_THE_DOOR) -> httpx.Response:
    return phone.post(TRANSISTOR, json={"location": record(place)} if said is None else said)


def radar(phone: Phone, *, place: Place = AT_THE_DOOR, path: str = RADAR, **more: Any) -> Any:
    """As the SDKs post: the key raw, and much that nobody needs."""
    said = {"latitude": place.lat, "longitude": place.lng, "accuracy": 65, "deviceId": "C305F2DB"}
    return phone.client.post(
        path,
        json=said | {"foreground": True, "deviceType": "iOS"} | more,
        headers={"Authorization": phone.token},
    )


EVERY: dict[str, Callable[..., httpx.Response]] = {
    "owntracks": owntracks,
    "osmand": osmand,
    "traccar": traccar,
    "transistor": transistor,
    "radar": radar,
}


def the_fix(phone: Phone) -> Fix:
    return Fix.objects.get(device_id=phone.device.pk)


def near(value: float) -> Any:
    """Single precision."""
    return pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("app", EVERY)
def test_it_keeps_a_fix_of_every_app(phone: Phone, app: str) -> None:
    before = datetime.now(UTC)
    assert EVERY[app](phone).status_code == 200
    fix = the_fix(phone)
    assert (fix.lat, fix.lng) == AT_THE_DOOR
    assert abs(fix.recorded_at - before) < timedelta(seconds=20)
    assert fix.received_at >= before - timedelta(seconds=1)


def test_it_reads_owntracks_units(phone: Phone) -> None:
    answer = owntracks(phone, acc=46, vel=61, cog=271, alt=167, batt=67, t="u", tid="JJ")
    assert (answer.status_code, answer.json()) == (200, [])
    fix = the_fix(phone)
    assert (fix.accuracy_m, fix.heading_deg, fix.altitude_m) == (46, 271, 167)
    assert (fix.speed_mps, fix.battery) == (near(61 / 3.6), near(0.67))


def test_it_reads_osmand_units(phone: Phone) -> None:
    answer = osmand(phone, speed=40, bearing=90, altitude=224.5, accuracy=12, batt=87, rpm=933)
    assert (answer.status_code, answer.content) == (200, b"")
    fix = the_fix(phone)
    assert (fix.accuracy_m, fix.heading_deg, fix.altitude_m) == (12, 90, 224.5)
    assert (fix.speed_mps, fix.battery) == (near(40 * 0.514444), near(0.87))


@pytest.mark.parametrize("app", ["traccar", "transistor"])
def test_it_reads_a_record_of_the_sdk(phone: Phone, app: str) -> None:
    assert EVERY[app](phone).status_code == 200
    fix = the_fix(phone)
    assert (fix.accuracy_m, fix.battery) == (near(15.2), near(0.92))
    assert (fix.speed_mps, fix.heading_deg, fix.altitude_m) == (None, None, near(41.8))


def test_it_reads_a_form_as_radars_documents_have_it(phone: Phone) -> None:
    fields = {"deviceId": "C305F2DB", "latitude": AT_THE_DOOR.lat, "longitude": AT_THE_DOOR.lng}
    answer = phone.client.post(
        RADAR,
        data=fields | {"accuracy": 65, "foreground": "true"},
        headers={"Authorization": phone.token},
    )
    assert answer.status_code == 200, answer.text
    assert the_fix(phone).accuracy_m == 65


def test_it_reads_a_form_as_traccar_clients_post_it(phone: Phone) -> None:
    now = datetime.now(UTC)
    fields = {"deviceid": phone.token, "location": "60.1702,24.9386", "heading": "12.5"}
    answer = phone.client.post(TRACCAR, data=fields | {"timestamp": f"{now:%Y-%m-%d %H:%M:%S}"})
    assert answer.status_code == 200
    fix = the_fix(phone)
    assert (fix.lat, fix.lng, fix.heading_deg) == (*AT_THE_DOOR, 12.5)
    assert fix.recorded_at == now.replace(microsecond=0)


@pytest.mark.parametrize("how", ["list", "root", "list at root", "gzip"])
def test_it_takes_records_however_an_app_wraps_them(phone: Phone, how: str) -> None:
    at = datetime.now(UTC) - timedelta(minutes=5)
    records = [
        record(timestamp=(at + timedelta(seconds=10 * n)).isoformat(), uuid=f"record-{n}")
        for n in range(3)
    ]
    said = {"root": records[0], "list at root": records}.get(how, {"location": records})
    count = 1 if how == "root" else 3
    for _ in range(2):  # what was sent again is known by its uuid
        if how == "gzip":
            packed = gzip.compress(json.dumps(said).encode())
            headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
            answer = phone.post(TRANSISTOR, content=packed, headers=headers)
        else:
            answer = transistor(phone, said)
        assert answer.json() == {"accepted": count, "rejected": []}
    assert Fix.objects.filter(device_id=phone.device.pk).count() == count


def test_it_names_the_records_it_rejects_and_has_the_phone_delete_them(phone: Phone) -> None:
    bad = [
        record(coords={"latitude": "x", "longitude": 2}),
        record(Place(91, 0)),
        record(timestamp="yesterday"),
        {"coords": {"latitude": 1, "longitude": 2}},
        7,
    ]
    heartbeat = {"event": "heartbeat", "timestamp": datetime.now(UTC).isoformat()}
    answer = transistor(phone, {"location": [*bad, heartbeat, record()]})
    assert answer.status_code == 200
    assert answer.json()["accepted"] == 1
    assert [(one["index"], one["code"]) for one in answer.json()["rejected"]] == [
        (0, "invalid"),
        (1, "lat_out_of_range"),
        (2, "invalid"),
        (3, "invalid"),
        (4, "invalid"),
    ]
    assert answer.json()["rejected"][2]["message"] == "timestamp: Expected a time."


@pytest.mark.parametrize(
    "said",
    [
        "",
        {"_type": "waypoint", "desc": "Home", "lat": 60.17, "lon": 24.94, "rad": 100, "tst": 1},
        {"_type": "waypoints", "waypoints": []},
        {"_type": "lwt", "tst": 1},
        {"_type": "status", "iOS": {}},
        {"_type": "card", "name": "Jane"},
        {"_type": "location", "lat": 95.0, "lon": 24.94, "tst": 1},
        {"_type": "location"},
    ],
)
def test_owntracks_need_not_send_again_what_tells_no_place(phone: Phone, said: Any) -> None:
    answer = owntracks(phone, json.dumps(said) if said else "")
    assert (answer.status_code, answer.json()) == (200, [])
    assert not Fix.objects.filter(device_id=phone.device.pk).exists()


def test_it_leaves_on_the_phone_what_nobody_here_can_read(phone: Phone) -> None:
    answer = owntracks(phone, '{"_type": "encrypted", "data": "AAAA"}')
    assert (answer.status_code, answer.json()["code"]) == (422, "encrypted")


def test_it_takes_owntracks_transitions_for_the_positions_they_are(phone: Phone) -> None:
    owntracks(phone, _type="transition", event="enter", desc="Shop", wtst=1, acc=20)
    assert the_fix(phone).accuracy_m == 20


def test_it_keeps_a_push_token_that_comes_without_a_place(phone: Phone) -> None:
    answer = phone.client.post(TRACCAR, data={"id": phone.token, "notificationToken": "fresh"})
    assert answer.status_code == 200
    assert Device.objects.get(pk=phone.device.pk).push_token == "fresh"
    assert not Fix.objects.filter(device_id=phone.device.pk).exists()
    assert radar(phone, pushNotificationToken="fresher").status_code == 200
    assert Device.objects.get(pk=phone.device.pk).push_token == "fresher"


@pytest.mark.parametrize("token", ["x" * 4_097, "nul\0", 7, ["a"]])
def test_it_keeps_no_push_token_that_cannot_be_one(phone: Phone, token: Any) -> None:
    assert radar(phone, pushNotificationToken=token).status_code == 422
    assert not Fix.objects.filter(device_id=phone.device.pk).exists()


def test_it_tells_radars_sdk_what_changed_and_where_it_is(
    phone: Phone, brand: Brand, http: httpx.Client
) -> None:
    shop = make_circle(brand, name="Shop", external_id="s-1", tags=["venue"], metadata={"a": 1})
    place = {
        "_id": str(shop.pk),
        "externalId": "s-1",
        "tag": "venue",
        "description": "Shop",
        "metadata": {"a": 1},
    }
    walker = make_phone(http, brand)

    def entered() -> dict[str, Any]:
        """Once the server has heard of the geofence, who walks in is told so."""
        radar(walker, place=DOWN_THE_ROAD)
        answer: dict[str, Any] = radar(walker).json()
        return answer if answer.get("events") else {}

    answer = until(entered, "an event")
    assert answer["meta"] == {"code": 200}
    (event,) = answer["events"]
    assert (event["type"], event["geofence"]) == ("user.entered_geofence", place)
    assert event["location"] == {"type": "Point", "coordinates": [24.9386, 60.1702]}
    assert Transition.objects.filter(pk=int(event["_id"]), device_id=walker.device.pk).exists()
    assert answer["user"]["geofences"] == [place]

    left = radar(walker, place=DOWN_THE_ROAD).json()
    assert [each["type"] for each in left["events"]] == ["user.exited_geofence"]
    assert left["user"]["geofences"] == []

    Transition.objects.filter(device_id=walker.device.pk).update(
        recorded_at=datetime.now(UTC) + timedelta(hours=1)
    )
    assert radar(phone, place=DOWN_THE_ROAD).json()["events"] == []  # another's are not its own


@pytest.mark.parametrize(("said", "kept"), [(65, 65), (0, None), (-5, None), (None, None)])
def test_it_tells_radars_sdk_of_no_accuracy_that_is_none(
    phone: Phone, said: Any, kept: Any
) -> None:
    assert radar(phone, accuracy=said).json()["user"]["locationAccuracy"] == kept


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"latitude": None}, "latitude"),
        ({"latitude": 91}, "latitude"),
        ({"longitude": "east"}, "longitude"),
        ({"updatedAt": "2014-01-01T00:00:00Z"}, "updatedAt"),
        ({"updatedAt": "soon"}, "updatedAt"),
    ],
)
def test_it_names_the_parameter_in_radars_words(phone: Phone, said: Any, param: str) -> None:
    answer = radar(phone, **said)
    assert answer.status_code == 400
    assert answer.json()["meta"]["code"] == 400
    assert answer.json()["meta"]["param"] == param
    assert answer.json()["meta"]["message"]


def test_it_takes_what_radar_recorded_offline(phone: Phone) -> None:
    now_ms = time.time_ns() // 1_000_000
    track = {"latitude": AT_THE_DOOR.lat, "longitude": AT_THE_DOOR.lng, "accuracy": 5}
    replays = [
        track | {"locationMs": now_ms - 60_000},
        track | {"updatedAtMsDiff": 30_000, "replayed": True},
        track | {"latitude": 100},
    ]
    answer = radar(phone, path=f"{RADAR}/replay", replays=replays)
    assert answer.status_code == 200
    assert (answer.json()["meta"], answer.json()["accepted"]) == ({"code": 200}, 2)
    assert [each["index"] for each in answer.json()["rejected"]] == [2]
    first, second = Fix.objects.filter(device_id=phone.device.pk).order_by("recorded_at")
    assert first.recorded_at.timestamp() == pytest.approx(now_ms / 1000 - 60)
    assert second.recorded_at.timestamp() == pytest.approx(now_ms / 1000 - 30, abs=10)


@pytest.mark.parametrize(
    ("app", "status"),
    [("owntracks", 401), ("osmand", 400), ("traccar", 404), ("transistor", 401), ("radar", 401)],
)
@pytest.mark.parametrize("wrong", ["forged", "revoked", "none"])
def test_it_takes_nothing_without_the_devices_token(
    phone: Phone, app: str, status: int, wrong: str
) -> None:
    if wrong == "revoked":
        registration.revoke(phone.device.pk)
    else:
        phone.token = phone.token[:-4] + "AAAA" if wrong == "forged" else ""
        phone.headers = {"Authorization": f"Bearer {phone.token}"} if phone.token else {}
    answer = EVERY[app](phone)
    assert answer.status_code == status
    assert not Fix.objects.filter(device_id=phone.device.pk).exists()
    challenge = answer.headers.get("www-authenticate", "")
    assert challenge.startswith({"owntracks": "Basic", "transistor": "Bearer"}.get(app, ""))


@pytest.mark.parametrize(
    ("send", "status"),
    [
        (lambda phone: owntracks(phone, '{"_type": "lwt", "tst": 1}'), 401),
        (lambda phone: owntracks(phone, ""), 401),
        (lambda phone: owntracks(phone, place=Place(91, 0)), 401),
        (lambda phone: phone.client.get(f"{TRACCAR}?id={phone.token}"), 400),
        (lambda phone: transistor(phone, []), 401),
    ],
)
def test_an_erased_device_hears_so_though_it_tells_no_place(
    phone: Phone, send: Callable[[Phone], httpx.Response], status: int
) -> None:
    assert send(phone).status_code == 200
    registration.erase(phone.device.pk)
    assert send(phone).status_code == status


def test_it_keeps_no_push_token_of_a_revoked_device(phone: Phone) -> None:
    registration.revoke(phone.device.pk)
    answer = phone.client.post(TRACCAR, data={"id": phone.token, "notificationToken": "stolen"})
    assert answer.status_code == 400
    assert Device.objects.get(pk=phone.device.pk).push_token != "stolen"


@pytest.mark.parametrize("app", EVERY)
def test_it_takes_no_place_of_a_person_who_has_not_agreed(
    http: httpx.Client, brand: Brand, app: str
) -> None:
    phone = make_phone(http, brand, consent_location=False)
    assert EVERY[app](phone).status_code == (400 if app == "radar" else 200)
    assert not Fix.objects.filter(device_id=phone.device.pk).exists()


@pytest.mark.parametrize("path", [OWNTRACKS, TRACCAR, TRANSISTOR, RADAR, f"{RADAR}/replay"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", {400}),
        (b"\xff\xfe", {400}),
        (b"[" * 100_000, {400}),
        (b"7", {200, 422}),
        (b'{"location": 7}', {200, 400, 404, 422}),
        (b'{"a": 1}', {200, 400, 404, 422}),
        (b" " * (8 * 2**20 + 1), {413}),
    ],
    ids=lambda value: str(value[:12]) if isinstance(value, bytes) else "",
)
def test_it_has_an_answer_to_what_is_no_message(
    phone: Phone, path: str, body: bytes, status: set[int]
) -> None:
    said = phone.post(path, content=body, headers={"Content-Type": "application/json"})
    assert said.status_code in status, said.text
    assert not Fix.objects.filter(device_id=phone.device.pk).exists()


@pytest.mark.parametrize("path", [OWNTRACKS, TRACCAR, TRANSISTOR, RADAR])
def test_it_says_what_methods_it_takes(phone: Phone, path: str) -> None:
    answer = phone.client.put(path, json={})
    assert answer.status_code == 405
    assert answer.headers["allow"] == ("GET, POST" if path == TRACCAR else "POST")


def test_it_reads_credentials_that_are_none_as_none(phone: Phone) -> None:
    for credentials in (
        "Basic",
        "Basic ####",
        f"Basic {b64encode(b'no colon').decode()}",
        "Basic 4",
    ):
        answer = phone.client.post(OWNTRACKS, json={}, headers={"Authorization": credentials})
        assert answer.status_code == 401


def test_it_limits_the_rate_of_a_device_at_every_door_alike(phone: Phone) -> None:
    def tried(send: Callable[..., httpx.Response]) -> tuple[int, httpx.Response]:
        """How often it was taken before it was too often."""
        count = 0
        while (answer := send(phone)).status_code == 200:
            count += 1
        return count, answer

    burst, refused = tried(osmand)
    for send in (owntracks, transistor, radar):
        count, refused = tried(send)
        assert count < burst / 2
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["meta"]["code"] == 429

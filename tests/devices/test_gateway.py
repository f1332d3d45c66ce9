"""The doors of a brand's back office, and profiles, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest
from django.db import connection
from django.utils.timezone import now
from numpy.typing import NDArray

from brands.keys import KeyIdentity
from brands.models import Brand, KeyKind
from devices import profiles
from devices.doors.door import Shared
from devices.doors.gateway import GatewayLocationsDoor
from devices.doors.http import locations_reader
from devices.doors.limits import Patience
from devices.fixes import GatewayFixIn
from devices.gathering import GroupCommit
from devices.ingest import ACCEPTED
from devices.models import Event, Fix, Profile
from devices.profiles import ProfileIn
from tests.devices.conftest import Phone, a_fix, make_phone
from tests.devices.test_doors_http import NDJSON, an_event, lines
from tests.factories import make_brand, make_device, make_key

LOCATIONS, EVENTS, PROFILES = "/v1/gateway/locations", "/v1/gateway/events", "/v1/gateway/profiles"
Headers = dict[str, str]


def fixes_of(device_id: int) -> int:
    return Fix.objects.filter(device_id=device_id).count()


def test_it_takes_fixes_by_either_name_of_a_device(
    http: httpx.Client, brand: Brand, server_key: Headers
) -> None:
    device = make_device(brand, external_id="c-1")
    body = [a_fix(external_id="c-1"), a_fix(device_id=device.pk, id="another")]
    answer = http.post(LOCATIONS, json=body, headers=server_key)
    assert answer.json() == {"accepted": 2, "rejected": []}
    assert fixes_of(device.pk) == 2


def test_it_finds_the_name_of_a_person_behind_an_escape(
    http: httpx.Client, brand: Brand, server_key: Headers
) -> None:
    device = make_device(brand, external_id="c-1")
    body = json.dumps(a_fix(external_id="c-1")).replace("external_id", "external\\u005fid")
    answer = http.post(LOCATIONS, content=body, headers=server_key)
    assert answer.json() == {"accepted": 1, "rejected": []}
    assert fixes_of(device.pk) == 1


class Taken(GroupCommit):
    """Takes whatever comes."""

    def attempt(self, rows: list[Any]) -> NDArray[np.int8]:
        return np.full(len(rows), ACCEPTED, dtype=np.int8)


class Admitted(GatewayLocationsDoor):
    """A door that knows its brand."""

    async def admit(self, authorization: bytes) -> KeyIdentity:  # noqa: ARG002 - as its base
        return KeyIdentity(key_id=1, brand_id=1, kind=KeyKind.SERVER)


async def test_it_needs_no_thread_for_a_few_fixes_that_name_their_devices() -> None:
    gate, fixes = threading.Event(), Taken("test")
    fixes.start()
    threads = ThreadPoolExecutor(1)
    threads.submit(gate.wait)  # as where others ask the database
    shared = Shared(100_000, Patience(20.0), threads, Counter(), Counter())
    door = Admitted(fixes, locations_reader(GatewayFixIn), shared)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        body = json.dumps([a_fix(device_id=1), a_fix(device_id=2)]).encode()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        async with asyncio.timeout(10):
            await door({"method": "POST", "path": LOCATIONS, "headers": []}, receive, send)
    finally:
        gate.set()
        threads.shutdown()
        await fixes.stop()
    assert json.loads(sent[1]["body"]) == {"accepted": 2, "rejected": []}


def test_it_means_the_newest_device_of_a_person(
    http: httpx.Client, brand: Brand, server_key: Headers
) -> None:
    older, newer = (make_device(brand, external_id="c-1") for _ in range(2))
    http.post(LOCATIONS, json=a_fix(external_id="c-1"), headers=server_key)
    assert (fixes_of(older.pk), fixes_of(newer.pk)) == (0, 1)


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ({}, "invalid"),
        ({"external_id": ""}, "invalid"),
        ({"external_id": "nobody"}, "unknown_device"),
        ({"external_id": "a\0b"}, "unknown_device"),
        ({"device_id": 0}, "unknown_device"),
        ({"device_id": -1}, "unknown_device"),
        ({"device_id": 2**63 - 1}, "unknown_device"),
        ({"device_id": 2**63}, "unknown_device"),
        ({"device_id": "7"}, "invalid"),
    ],
)
def test_it_rejects_alone_what_names_no_device(
    http: httpx.Client, brand: Brand, server_key: Headers, names: dict[str, Any], code: str
) -> None:
    good = a_fix(device_id=make_device(brand).pk)
    answer = http.post(LOCATIONS, json=[a_fix(**names), good], headers=server_key).json()
    assert answer["accepted"] == 1
    assert [(each["index"], each["code"]) for each in answer["rejected"]] == [(0, code)]


def test_it_touches_no_other_brands_device(http: httpx.Client, server_key: Headers) -> None:
    theirs = make_device(make_brand(), external_id="c-1")
    for names in ({"device_id": theirs.pk}, {"external_id": "c-1"}):
        answer = http.post(LOCATIONS, json=a_fix(**names), headers=server_key).json()
        assert answer["rejected"][0]["code"] == "unknown_device"
    answer = http.post(EVENTS, json=an_event(device_id=theirs.pk), headers=server_key).json()
    assert answer["rejected"][0]["code"] == "unknown_device"
    assert fixes_of(theirs.pk) == 0
    assert not Event.objects.exists()


def test_it_streams_thousands_of_lines(
    http: httpx.Client, brand: Brand, server_key: Headers
) -> None:
    devices = [make_device(brand, external_id=f"c-{n}") for n in range(20)]
    items = [a_fix(external_id=f"c-{n % 20}", id=n) for n in range(10_000)]
    answer = http.post(LOCATIONS, content=lines(*items), headers=server_key | NDJSON)
    assert answer.json() == {"accepted": 10_000, "rejected": []}
    assert sum(fixes_of(device.pk) for device in devices) == 10_000


def test_it_keeps_events_of_devices_and_of_people(
    http: httpx.Client, brand: Brand, server_key: Headers
) -> None:
    device = make_device(brand)
    body = {"events": [an_event(device_id=device.pk), an_event(external_id="c-9")]}
    for _ in range(2):
        answer = http.post(EVENTS, json=body, headers=server_key)
        assert answer.json() == {"accepted": 2, "rejected": []}
    assert set(Event.objects.values_list("device_id", "external_id")) == {
        (device.pk, ""),
        (None, "c-9"),
    }


@pytest.mark.parametrize("name", ["a\0b", "\0", "x" * 129])
def test_it_rejects_alone_what_no_person_is_called(
    http: httpx.Client, brand: Brand, server_key: Headers, name: str
) -> None:
    body = [an_event(external_id=name), an_event(external_id="c-9")]
    answer = http.post(EVENTS, json=body, headers=server_key).json()
    assert answer["accepted"] == 1
    (rejection,) = answer["rejected"]
    assert (rejection["index"], rejection["code"]) == (0, "invalid")
    assert rejection["message"].startswith("external_id")


@pytest.mark.parametrize("path", [LOCATIONS, EVENTS, PROFILES])
@pytest.mark.parametrize(("kind", "status"), [(KeyKind.PUBLISHABLE, 403), (None, 401)])
def test_it_opens_to_server_keys_only(
    http: httpx.Client, brand: Brand, path: str, kind: KeyKind | None, status: int
) -> None:
    method = "PUT" if path == PROFILES else "POST"
    bearer = make_key(brand, kind) if kind else make_phone(http, brand).token
    headers = {"Authorization": f"Bearer {bearer}"}
    assert http.request(method, path, json=[], headers=headers).status_code == status
    assert http.request(method, path, json=[]).status_code == 401


def put(http: httpx.Client, key: Headers, body: Any) -> httpx.Response:
    return http.put(PROFILES, json=body, headers=key)


def test_it_merges_what_the_crm_knows(
    http: httpx.Client, brand: Brand, server_key: Headers
) -> None:
    put(http, server_key, [{"external_id": "c-1", "attributes": {"city": "Oulu", "age": 30}}])
    answer = put(
        http,
        server_key,
        {
            "profiles": [
                {"external_id": "c-1", "attributes": {"age": None, "tags": [None, "a"]}},
                {"external_id": "c-2", "attributes": {}},
            ]
        },
    )
    assert (answer.status_code, answer.json()) == (
        200,
        {"accepted": 2, "rejected": [], "counts": {"updated": 1, "created": 1}},
    )
    profile = Profile.objects.get(brand=brand, external_id="c-1")
    assert profile.attributes == {"city": "Oulu", "tags": [None, "a"]}
    assert {name: fact["source"] for name, fact in profile.attribute_facts.items()} == {
        "city": "crm",
        "tags": "crm",
    }
    assert Profile.objects.get(external_id="c-2").attributes == {}


def test_it_takes_the_last_word_of_one_upload(http: httpx.Client, server_key: Headers) -> None:
    people = [{"external_id": "c-1", "attributes": {"n": n, f"n{n}": n}} for n in range(3)]
    answer = http.put(PROFILES, content=lines(*people), headers=server_key | NDJSON)
    assert answer.json()["accepted"] == 3
    assert Profile.objects.get().attributes == {"n": 2, "n0": 0, "n1": 1, "n2": 2}


def test_it_gives_each_profile_its_verdict(http: httpx.Client, server_key: Headers) -> None:
    people = [
        {"external_id": "c-1", "attributes": {"a": 1}},
        {"external_id": "", "attributes": {}},
        {"external_id": "x" * 129, "attributes": {}},
        {"external_id": "a\0b", "attributes": {}},
        {"external_id": "c-2", "attributes": {"a b": 1}},
        {"external_id": "c-3", "attributes": {"a": "\0"}},
        {"external_id": "c-4"},
        {"external_id": 5, "attributes": {}},
        "nobody",
    ]
    answer = put(http, server_key, people).json()
    assert answer["accepted"] == 1
    assert [each["index"] for each in answer["rejected"]] == list(range(1, 9))
    assert list(Profile.objects.values_list("external_id", flat=True)) == ["c-1"]


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"{", 400), (b'"x"', 422), (b'{"profiles": 1}', 422), (b"[" + b"0," * 10_001 + b"0]", 413)],
)
def test_it_refuses_a_wrong_upload_whole(
    http: httpx.Client, server_key: Headers, content: bytes, status: int
) -> None:
    headers = server_key | {"Content-Type": "application/json"}
    answer = http.put(PROFILES, content=content, headers=headers)
    assert (answer.status_code, set(answer.json())) == (status, {"code", "message", "fields"})


def test_it_reads_since_when_however_it_is_written(http: httpx.Client, server_key: Headers) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    told = [
        *(noon.isoformat(), round(noon.timestamp() * 1000), "2026-01-01T12:00:00"),
        *("20260101T140000+0200", round(noon.timestamp())),
    ]
    people = [
        {"external_id": f"c-{n}", "attributes": {"a": 1}, "as_of": at} for n, at in enumerate(told)
    ]
    assert put(http, server_key, people).json()["accepted"] == len(told)
    facts = Profile.objects.values_list("attribute_facts__a__at", flat=True)
    assert {datetime.fromisoformat(at) for at in facts} == {noon}
    wrong = [
        {"external_id": "c-0", "attributes": {"a": 2}, "as_of": at}
        for at in (4e12, 1e308, -1e308, "soon", "0001-01-01T00:00:00+14:00", True)
    ]
    answer = put(http, server_key, wrong).json()
    assert (answer["accepted"], len(answer["rejected"])) == (0, len(wrong))
    assert all(one["message"].startswith("as_of: ") for one in answer["rejected"])


def test_it_keeps_people_of_two_brands_apart(
    http: httpx.Client, brand: Brand, server_key: Headers
) -> None:
    other = make_brand()
    theirs = {"Authorization": f"Bearer {make_key(other)}"}
    put(http, server_key, [{"external_id": "c-1", "attributes": {"of": "ours"}}])
    put(http, theirs, [{"external_id": "c-1", "attributes": {"of": "theirs"}}])
    assert Profile.objects.get(brand=brand).attributes == {"of": "ours"}
    assert Profile.objects.get(brand=other).attributes == {"of": "theirs"}


def test_it_loses_nothing_where_uploads_of_the_same_people_race(brand: Brand) -> None:
    people = [f"c-{n}" for n in range(50)]
    failures: list[BaseException] = []

    def upload(name: str, order: int) -> None:
        try:
            items = [ProfileIn(person, {name: 1}) for person in people[::order]]
            profiles.upsert(brand.pk, items, source="crm", now=now())
        except BaseException as failure:  # noqa: BLE001 - the test looks at it
            failures.append(failure)
        finally:
            connection.close()

    threads = [
        threading.Thread(target=upload, args=(f"a{n}", 1 if n % 2 else -1)) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for attributes in Profile.objects.values_list("attributes", flat=True):
        assert json.dumps(attributes, sort_keys=True) == json.dumps({f"a{n}": 1 for n in range(6)})


def test_it_shows_a_phone_nothing_of_profiles(phone: Phone) -> None:
    assert phone.client.put(PROFILES, json=[], headers=phone.headers).status_code == 401

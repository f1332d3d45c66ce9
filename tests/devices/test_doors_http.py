"""The fast HTTP doors, over real HTTP into real rows: what they take, and how they refuse."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brands import keys
from brands.models import AppKey, Brand, KeyKind
from devices import auth, registration
from devices.fixes import ANYWHERE_M, FixVerdict
from devices.models import DeviceState, Event, Fix
from tests.devices.conftest import Phone, a_fix, make_phone
from tests.factories import make_brand, make_key
from tests.places import AT_THE_DOOR, Place
from tests.processes import until

DAY_MS = 86_400_000
LOCATIONS, EVENTS = "/v1/locations", "/v1/events"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def an_event(**fields: Any) -> dict[str, Any]:
    return {"name": "purchase", "occurred_at": now_ms()} | fields


def lines(*items: Any) -> bytes:
    return "\n".join(json.dumps(item) for item in items).encode()


JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
GZIP = JSON | {"Content-Encoding": "gzip"}


def test_it_keeps_one_fix_before_it_answers(phone: Phone) -> None:
    answer = phone.post(LOCATIONS, json=a_fix(accuracy_m=12.5, battery=0.8))
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "rejected": []})
    fix = Fix.objects.get(device_id=phone.device.pk)
    assert (fix.device_id, fix.lat, fix.accuracy_m) == (phone.device.pk, AT_THE_DOOR.lat, 12.5)
    assert DeviceState.objects.get().lng == AT_THE_DOOR.lng


@pytest.mark.parametrize("form", ["wrapped", "list", "lines", "gzip", "gzipped lines"])
def test_it_takes_many_fixes_in_every_form(phone: Phone, form: str) -> None:
    fixes = [a_fix(recorded_at=now_ms() - 1000 * n) for n in range(50)]
    content, headers = {
        "wrapped": (json.dumps({"locations": fixes}).encode(), JSON),
        "list": (json.dumps(fixes).encode(), JSON),
        "lines": (lines(*fixes), NDJSON),
        "gzip": (gzip.compress(json.dumps(fixes).encode()), GZIP),
        "gzipped lines": (gzip.compress(lines(*fixes)), NDJSON | {"Content-Encoding": "gzip"}),
    }[form]
    answer = phone.post(LOCATIONS, content=content, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 50, "rejected": []})
    assert Fix.objects.filter(device_id=phone.device.pk).count() == 50


@pytest.mark.parametrize(
    "recorded_at",
    [
        "2026-05-01T12:00:00Z",
        "2026-05-01T12:00:00.123+02:00",
        "2026-05-01 12:00:00",
        "2026-05-01T12:00Z",
        "20260501T120000Z",
    ],
)
def test_it_reads_every_iso_8601_time(phone: Phone, recorded_at: str) -> None:
    answer = phone.post(LOCATIONS, json=a_fix(recorded_at=recorded_at)).json()
    codes = {rejection["code"] for rejection in answer["rejected"]}
    assert codes <= {"too_old", "recorded_in_future"}, "read, whatever the calendar says"


def test_it_counts_a_repeat_as_accepted_and_changes_nothing(phone: Phone) -> None:
    nameless, named = a_fix(), a_fix(id="f-1", recorded_at=now_ms() - 5000)
    for _ in range(2):
        for fix in (nameless, named):
            assert phone.post(LOCATIONS, json=fix).json()["accepted"] == 1
    assert Fix.objects.filter(device_id=phone.device.pk).count() == 2


WHOLE_OR_NOT: list[tuple[str, bytes, dict[str, str]]] = [
    (LOCATIONS, json.dumps({"lat": 91, "lng": 1, "recorded_at": 1}).encode(), {}),
    (LOCATIONS, b"[]", {}),
    (LOCATIONS, b"[1, 2]", {}),
    (LOCATIONS, b'{"lat": 1}', {}),
    (LOCATIONS, b'{"lat": NaN', {}),
    (LOCATIONS, b"\xff", {}),
    (LOCATIONS, b"[" * 9_000, {}),
    (LOCATIONS, b"{}\n{}", {"Content-Type": "application/x-ndjson"}),
    (LOCATIONS, b"{}", {"Content-Type": "text/plain"}),
    (LOCATIONS, b"{}", {"Content-Type": "application/json; charset=latin-1"}),
    (LOCATIONS, b"{}", {"Authorization": ""}),
    (LOCATIONS, b"{}", {"Authorization": "Bearer nc_dt_" + "A" * 52}),
    (EVENTS, b'{"name": "", "occurred_at": 1}', {}),
    (EVENTS, b'{"events": [{"name": "x", "occurred_at": 1}, {}]}', {}),
    (EVENTS, b"no", {}),
]


@pytest.mark.parametrize(
    ("path", "content", "headers"), WHOLE_OR_NOT, ids=lambda each: str(each)[:40]
)
def test_it_answers_a_request_in_pieces_as_it_answers_it_whole(
    phone: Phone, path: str, content: bytes, headers: dict[str, str]
) -> None:
    """A request that comes in one read takes a shorter way to the same door."""
    whole, pieces = (
        phone.post_raw(path, content, headers=headers, at_once=at_once) for at_once in (True, False)
    )
    assert whole.status_code == pieces.status_code
    assert whole.content == pieces.content
    assert _but_date(whole) == _but_date(pieces)


def _but_date(answer: httpx.Response) -> list[tuple[str, str]]:
    return sorted((name, value) for name, value in answer.headers.items() if name != "date")


def test_it_keeps_a_fix_that_comes_whole_before_it_answers(phone: Phone) -> None:
    content = json.dumps(a_fix(accuracy_m=12.5)).encode()
    answer = phone.post_raw(LOCATIONS, content, at_once=True)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "rejected": []})
    assert Fix.objects.get(device_id=phone.device.pk).accuracy_m == 12.5
    event = phone.post_raw(EVENTS, json.dumps(an_event()).encode(), at_once=True)
    assert event.json() == {"accepted": 1, "rejected": []}
    assert Event.objects.filter(device_id=phone.device.pk).count() == 1


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/locations", []),
        ("/v1/locations", {"locations": [{"lat": 1}]}),
        ("/v1/locations", [a_fix(Place(91, 0))]),
        ("/v1/events", []),
        ("/v1/events", [{"name": "x", "occurred_at": 1}]),
    ],
)
def test_an_erased_device_hears_so_though_nothing_is_kept(
    phone: Phone, path: str, body: Any, packed: bool
) -> None:
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    def sent() -> httpx.Response:
        if packed:
            return phone.post(path, content=gzip.compress(content), headers=headers)
        return phone.post_raw(path, content, at_once=True)

    assert (sent().status_code, sent().json()["accepted"]) == (200, 0)
    registration.erase(phone.device.pk)
    assert (sent().status_code, sent().json()["code"]) == (401, "token_revoked")


def test_it_tells_a_revoked_token_whichever_way_it_came(phone: Phone) -> None:
    DeviceState.objects.filter(device_id=phone.device.pk).update(serial=2)
    for at_once in (True, False):
        answer = phone.post_raw(LOCATIONS, json.dumps(a_fix()).encode(), at_once=at_once)
        assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")


def test_it_slows_down_a_device_whichever_way_it_comes(phone: Phone) -> None:
    content = json.dumps(a_fix()).encode()
    for at_once in (True, False):
        answers = (phone.post_raw(LOCATIONS, content, at_once=at_once) for _ in range(2_000))
        limited = next(answer for answer in answers if answer.status_code != 200)
        assert (limited.status_code, limited.json()["code"]) == (429, "rate_limited")
        assert int(limited.headers["retry-after"]) >= 1


def test_it_takes_ten_thousand_fixes_in_one_body(phone: Phone) -> None:
    fixes = [a_fix(recorded_at=now_ms() - 100 * n) for n in range(10_000)]
    answer = phone.post(LOCATIONS, json={"locations": fixes})
    assert answer.json() == {"accepted": 10_000, "rejected": []}


def test_it_answers_a_body_without_items(phone: Phone) -> None:
    for content, headers in ((b"[]", JSON), (b'{"locations": []}', JSON), (b"\n", NDJSON)):
        answer = phone.post(LOCATIONS, content=content, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"accepted": 0, "rejected": []})


def test_it_lets_ten_fixes_a_second_pass(phone: Phone) -> None:
    for n in range(30):
        assert phone.post(LOCATIONS, json=a_fix(recorded_at=now_ms() - n)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"lat": 91}, "lat_out_of_range"),
        ({"lat": -90.0001}, "lat_out_of_range"),
        ({"lng": 180.5}, "lng_out_of_range"),
        ({"lat": 0, "lng": 0}, "null_island"),
        ({"recorded_at": 1e300}, "recorded_in_future"),
        ({"recorded_at": 10**40}, "recorded_in_future"),
        ({"recorded_at": -(10**40)}, "too_old"),
        ({"recorded_at": "9999-12-31T23:59:59-14:00"}, "recorded_in_future"),
        ({"recorded_at": "0001-01-01T00:00:00+14:00"}, "too_old"),
        ({"recorded_at": 0}, "too_old"),
    ],
)
def test_it_rejects_what_cannot_be(phone: Phone, fields: dict[str, Any], code: str) -> None:
    answer = phone.post(LOCATIONS, json=[a_fix(), a_fix(**fields)])
    assert answer.status_code == 200
    assert answer.json()["accepted"] == 1
    (rejection,) = answer.json()["rejected"]
    assert (rejection["index"], rejection["code"]) == (1, code)
    assert rejection["message"]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"lat": 1, "lng": 2}, "recorded_at"),
        ({"lat": "1", "lng": 2, "recorded_at": 1}, "lat"),
        ({"lat": 1, "lng": None, "recorded_at": 1}, "lng"),
        ({"lat": 1, "lng": 2, "recorded_at": "yesterday"}, "recorded_at"),
        ({"lat": 1, "lng": 2, "recorded_at": True}, "recorded_at"),
        ({"lat": 1, "lng": 2, "recorded_at": 1, "accuracy_m": "5"}, "accuracy_m"),
        ({"lat": 1, "lng": 2, "recorded_at": 1, "mock": "no"}, "mock"),
        ({"lat": 1, "lng": 2, "recorded_at": 1, "id": {}}, "id"),
        ("a fix", ""),
        (None, ""),
        ([], ""),
    ],
)
@pytest.mark.parametrize("form", ["list", "wrapped", "lines"])
def test_it_rejects_a_malformed_item_alone(phone: Phone, item: Any, field: str, form: str) -> None:
    items = [a_fix(), item, a_fix(recorded_at=now_ms() - 1000)]
    content, headers = {
        "list": (json.dumps(items).encode(), JSON),
        "wrapped": (json.dumps({"locations": items}).encode(), JSON),
        "lines": (lines(*items), NDJSON),
    }[form]
    answer = phone.post(LOCATIONS, content=content, headers=headers).json()
    assert answer["accepted"] == 2
    (rejection,) = answer["rejected"]
    assert (rejection["index"], rejection["code"]) == (1, "invalid")
    assert rejection["message"].startswith(field)


def test_it_lists_rejections_in_the_order_of_the_body(phone: Phone) -> None:
    items = [a_fix(lat=99), {}, a_fix(), 7, a_fix(lng=999)]
    answer = phone.post(LOCATIONS, json=items).json()
    assert [each["index"] for each in answer["rejected"]] == [0, 1, 3, 4]


def test_it_rejects_a_line_that_is_not_json_alone(phone: Phone) -> None:
    content = lines(a_fix()) + b"\n{nonsense\n\n" + lines(a_fix(recorded_at=now_ms() - 1000))
    answer = phone.post(LOCATIONS, content=content, headers=NDJSON).json()
    assert answer["accepted"] == 2
    assert [each["index"] for each in answer["rejected"]] == [1]


def test_it_takes_no_fix_of_a_person_who_has_not_agreed(http: httpx.Client, brand: Brand) -> None:
    phone = make_phone(http, brand, consent_location=False)
    answer = phone.post(LOCATIONS, json=a_fix())
    assert answer.status_code == 200
    assert answer.json()["rejected"][0]["code"] == "consent_withdrawn"
    assert not Fix.objects.filter(device_id=phone.device.pk).exists()


def test_it_reads_unknown_as_unknown(phone: Phone) -> None:
    phone.post(LOCATIONS, json=a_fix(accuracy_m=0, speed_mps=-1, heading_deg=-1, battery=-1))
    fix = Fix.objects.get(device_id=phone.device.pk)
    assert (fix.accuracy_m, fix.speed_mps, fix.heading_deg, fix.battery) == (None,) * 4


def test_it_takes_null_for_absent(phone: Phone) -> None:
    optional = ("accuracy_m", "speed_mps", "heading_deg", "altitude_m", "id", "mock", "battery")
    answer = phone.post(LOCATIONS, json=a_fix() | dict.fromkeys(optional))
    assert answer.json() == {"accepted": 1, "rejected": []}
    assert Fix.objects.get(device_id=phone.device.pk).verdict == FixVerdict.USED


@pytest.mark.parametrize("beyond", [1e39, 1e300, -1e300])
def test_it_keeps_no_number_that_nothing_can_measure(phone: Phone, beyond: float) -> None:
    unmeasured = dict.fromkeys(("speed_mps", "heading_deg", "altitude_m", "battery"), beyond)
    bad = a_fix(accuracy_m=abs(beyond)) | unmeasured
    assert phone.post(LOCATIONS, json=[bad, a_fix(id="good")]).json()["accepted"] == 2
    fix = Fix.objects.filter(device_id=phone.device.pk).order_by("-accuracy_m").last()
    assert fix is not None
    assert (fix.verdict, fix.accuracy_m) == (FixVerdict.INACCURATE, ANYWHERE_M)
    assert (fix.speed_mps, fix.heading_deg, fix.altitude_m, fix.battery) == (None,) * 4


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"", JSON, 400, "not_json"),
        (b"{", JSON, 400, "not_json"),
        (b"[{}", JSON, 400, "not_json"),
        (b"nonsense", NDJSON, 400, "not_json"),
        (b'{"lat": 1, "lng": 2, "recorded_at": 1}x', JSON, 400, "not_json"),
        (b'\xff\xfe{"a": 1}', JSON, 400, "not_json"),
        (b"[" * 100_000, JSON, 400, "not_json"),
        (b"not gzip", GZIP, 400, "not_gzip"),
        (gzip.compress(b"[]")[:-4], GZIP, 400, "not_gzip"),
        (gzip.compress(bytes(64 * 2**20)), GZIP, 413, "too_large"),
        (b" " * (8 * 2**20 + 1), JSON, 413, "too_large"),
        (json.dumps([0] * 10_001).encode(), JSON, 413, "too_many_items"),
        (b"{}\n" * 10_001, NDJSON, 413, "too_many_items"),
        (b"<xml/>", {"Content-Type": "application/xml"}, 415, "unsupported_media_type"),
        (b"a=1", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b"[]", {"Content-Type": "application/json; charset=latin-1"}, 415, None),
        (b"[]", JSON | {"Content-Encoding": "br"}, 415, "unsupported_encoding"),
        (b'"fix"', JSON, 422, "invalid"),
        (b"7", JSON, 422, "invalid"),
        (b"null", JSON, 422, "invalid"),
        (b'{"foo": 1}', JSON, 422, "invalid"),
        (b'{"locations": 7}', JSON, 422, "invalid"),
        (b'{"lat": "x", "lng": 1, "recorded_at": 1}', JSON, 422, "invalid"),
    ],
)
def test_it_refuses_a_body_with_the_right_status(
    phone: Phone, content: bytes, headers: dict[str, str], status: int, code: str | None
) -> None:
    answer = phone.post(LOCATIONS, content=content, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message", "fields"}
    assert code in {None, answer.json()["code"]}


def test_it_names_the_fields_of_a_wrong_body(phone: Phone) -> None:
    answer = phone.post(LOCATIONS, json={"lat": "x", "lng": 1, "recorded_at": 1})
    assert list(answer.json()["fields"]) == ["lat"]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        'APPLICATION/JSON;charset="UTF-8"',
        "application/json;charset=utf8",
        "",
    ],
)
def test_it_takes_json_by_all_its_names(phone: Phone, content_type: str) -> None:
    answer = phone.post(LOCATIONS, content=b"[]", headers={"Content-Type": content_type})
    assert answer.status_code == 200


def test_it_takes_a_body_sent_in_chunks(phone: Phone) -> None:
    whole = json.dumps([a_fix()]).encode()
    parts = (whole[n : n + 7] for n in range(0, len(whole), 7))
    answer = phone.post(LOCATIONS, content=parts, headers=JSON)
    assert answer.json()["accepted"] == 1


def test_it_stops_reading_chunks_without_end(phone: Phone) -> None:
    endless = (b" " * 2**16 for _ in range(200))
    try:
        status = phone.post(LOCATIONS, content=endless, headers=JSON).status_code
    except httpx.TransportError:
        status = 413  # closed while we were still sending
    assert status == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_it_takes_nothing_but_post(phone: Phone, method: str) -> None:
    answer = phone.client.request(method, LOCATIONS, headers=phone.headers)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", [LOCATIONS, EVENTS])
def test_it_takes_nothing_from_whoever_shows_no_device_token(
    http: httpx.Client, brand: Brand, path: str
) -> None:
    keys = [make_key(brand, kind) for kind in KeyKind]
    token = make_phone(http, brand).token
    for authorization in (
        *("", "Bearer", "Bearer x", f"Basic {token}", token, f"Bearer {token}x", "Bearer \xe9"),
        *(f"Bearer {key}" for key in keys),
    ):
        headers = [(b"Authorization", authorization.encode("latin-1"))] if authorization else []
        answer = http.post(path, json=[], headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("path", "item"), [(LOCATIONS, a_fix()), (EVENTS, an_event())])
def test_it_refuses_a_revoked_token_at_once(phone: Phone, path: str, item: Any) -> None:
    assert phone.post(path, json=item).status_code == 200
    registration.revoke(phone.device.pk)
    answer = phone.post(path, json=item | {"id": "another"})
    assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")


@pytest.mark.parametrize(("path", "item"), [(LOCATIONS, a_fix()), (EVENTS, an_event())])
def test_it_refuses_an_erased_device(phone: Phone, path: str, item: Any) -> None:
    registration.erase(phone.device.pk)
    assert phone.post(path, json=item).status_code == 401
    assert not Fix.objects.filter(device_id=phone.device.pk).exists()
    assert not Event.objects.exists()


def test_it_takes_nothing_for_a_device_under_another_brands_name(
    http: httpx.Client, phone: Phone
) -> None:
    forged = auth.issue(phone.device.pk, make_brand().pk, 1)
    answer = http.post(LOCATIONS, json=a_fix(), headers={"Authorization": f"Bearer {forged}"})
    assert answer.status_code == 401
    assert not Fix.objects.filter(device_id=phone.device.pk).exists()


def test_it_limits_a_device_that_asks_too_much_and_no_other(
    http: httpx.Client, brand: Brand
) -> None:
    eager, calm = make_phone(http, brand), make_phone(http, brand)
    answers = (eager.post(LOCATIONS, json=[]) for _ in range(400))
    answer = next(answer for answer in answers if answer.status_code == 429)
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["code"] == "rate_limited"
    assert calm.post(LOCATIONS, json=[]).status_code == 200


def test_it_keeps_an_event(phone: Phone) -> None:
    properties = {"amount": 12.5, "items": ["a", {"b": None}], "naïve": "✓"}
    answer = phone.post(EVENTS, json=an_event(properties=properties))
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "rejected": []})
    event = Event.objects.get()
    assert (event.device_id, event.name, event.properties) == (
        phone.device.pk,
        "purchase",
        properties,
    )


def test_it_keeps_an_event_once(phone: Phone) -> None:
    at = now_ms()
    nameless = an_event(occurred_at=at, properties={"a": 1, "b": 2})
    turned = an_event(occurred_at=at, properties={"b": 2, "a": 1})
    for body in (nameless, turned, [nameless, turned], an_event(id=1), an_event(id="1")):
        assert phone.post(EVENTS, json=body).status_code == 200
    assert Event.objects.count() == 2


def test_it_keeps_equal_events_of_two_devices(http: httpx.Client, brand: Brand) -> None:
    event = an_event(id=1)
    for phone in (make_phone(http, brand), make_phone(http, brand)):
        phone.post(EVENTS, json={"events": [event]})
    assert Event.objects.count() == 2


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"name": ""}, "invalid", "name"),
        ({"name": "x" * 65}, "invalid", "name"),
        ({"name": "a\0b"}, "invalid", "name"),
        ({"name": 7}, "invalid", "name"),
        ({"occurred_at": "soon"}, "invalid", "occurred_at"),
        ({"occurred_at": 1}, "too_old", "occurred_at"),
        ({"occurred_at": 10**14}, "recorded_in_future", "occurred_at"),
        ({"properties": []}, "invalid", "properties"),
        ({"properties": {"a": "\0"}}, "invalid", "properties"),
        ({"properties": {"\0": 1}}, "invalid", "properties"),
        ({"properties": {"a": 2**70}}, "invalid", "properties"),
        ({"properties": {"a": [[[[[[[1]]]]]]]}}, "invalid", "properties"),
        ({"properties": {"a": "x" * 9_000}}, "invalid", "properties"),
    ],
)
def test_it_rejects_an_event_it_cannot_keep(
    phone: Phone, fields: dict[str, Any], code: str, message: str
) -> None:
    answer = phone.post(EVENTS, json=[an_event(**fields), an_event()]).json()
    assert answer["accepted"] == 1
    (rejection,) = answer["rejected"]
    assert (rejection["index"], rejection["code"]) == (0, code)
    assert rejection["message"].startswith(message)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("lat", "lng", "recorded_at", "id", "mock", "locations", "events", "name"),
                    *("occurred_at", "properties", "device_id", "external_id", "\0", "é"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)
BODIES = (
    st.binary(max_size=60)
    | ANY_JSON.map(lambda value: json.dumps(value).encode())
    | st.lists(ANY_JSON, max_size=4).map(lambda values: lines(*values))
)


@pytest.mark.parametrize("path", [LOCATIONS, EVENTS, "/v1/gateway/locations", "/v1/gateway/events"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=BODIES,
    content_type=st.sampled_from(["application/json", "application/x-ndjson", ""]),
    encoding=st.sampled_from(["", "", "gzip"]),
)
def test_it_never_fails_whatever_it_is_sent(
    http: httpx.Client,
    brand: Brand,
    path: str,
    body: bytes,
    content_type: str,
    encoding: str,
) -> None:
    key = f"Bearer {make_key(brand)}" if "gateway" in path else ""
    headers = make_phone(http, brand).headers | ({"Authorization": key} if key else {})
    headers |= {"Content-Type": content_type, "Content-Encoding": encoding}
    answer = http.post(path, content=body, headers=headers)
    assert answer.status_code < 500, answer.text
    assert answer.json()


def test_it_forgets_a_revoked_server_key_at_once(http: httpx.Client, brand: Brand) -> None:
    headers = {"Authorization": f"Bearer {make_key(brand)}"}
    assert http.post("/v1/gateway/events", json=[], headers=headers).status_code == 200
    AppKey.objects.update(revoked_at="2026-01-01T00:00Z")
    until(
        lambda: http.post("/v1/gateway/events", json=[], headers=headers).status_code == 401,
        "the key still opens the door",
        within_s=keys.REMEMBERED_S / 2,
    )

"""Every path that Django serves under /v1/: what it is sent may be anything, and is answered."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Callable
from itertools import product
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.test import Client, RequestFactory

from brands.models import Brand, KeyKind
from config.errors import failed
from tests.factories import make_brand, make_key

pytestmark = pytest.mark.django_db

Call = Callable[..., Any]
TAKING_JSON = (
    *(("POST", f"/v1/{name}") for name in ("devices", "geofences", "campaigns", "segments")),
    *(("POST", f"/v1/{name}") for name in ("guards", "coupon-pools", "coupons/redeem")),
    *(("PUT", f"/v1/{name}") for name in ("gateway/profiles", "control-group")),
)
LISTS = (
    *("geofences", "campaigns", "segments", "guards", "coupon-pools"),
    *("transitions", "decisions", "deliveries"),
)


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def call(brand: Brand) -> Call:
    client = Client(raise_request_exception=False)
    keys = {kind: make_key(brand, kind) for kind in (KeyKind.PUBLISHABLE, KeyKind.SERVER)}

    def call(
        method: str, path: str, body: bytes = b"", kind: str = "application/json", **headers: str
    ) -> Any:
        key = keys[KeyKind.PUBLISHABLE if path == "/v1/devices" else KeyKind.SERVER]
        sent = {"authorization": f"Bearer {key}", **headers}
        return client.generic(method, path, body, kind, headers=sent)

    return call


def refused(answer: Any, *statuses: int) -> bool:
    """In CONTRACT's shape, with one of these."""
    return answer.status_code in statuses and {"code", "message", "fields"} <= set(answer.json())


@pytest.mark.parametrize(("method", "path"), TAKING_JSON)
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b'{"name": "\xc3("}',
        b'{"name": NaN}',
        b'{"name": -Infinity}',
        b'{"name": ' + b"9" * 5_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
    ],
    ids=lambda body: str(body[:12]),
)
def test_it_refuses_what_is_no_json(call: Call, method: str, path: str, body: bytes) -> None:
    assert refused(call(method, path, body), 400, 413, 422)


@pytest.mark.parametrize(("method", "path"), TAKING_JSON)
def test_it_refuses_a_body_beyond_the_limit(
    call: Call, settings: Any, method: str, path: str
) -> None:
    settings.MAX_BODY_BYTES = 1_000
    assert refused(call(method, path, b'"' + b"x" * 70_000 + b'"'), 413)


@pytest.mark.parametrize(("method", "path"), TAKING_JSON)
@pytest.mark.parametrize("charset", ["latin-1", "utf-16", "zlib"])
def test_it_reads_utf_8_only(call: Call, method: str, path: str, charset: str) -> None:
    assert refused(call(method, path, b"{}", f"application/json; charset={charset}"), 415)


@pytest.mark.parametrize(("method", "path"), TAKING_JSON)
def test_it_says_that_it_takes_nothing_packed(call: Call, method: str, path: str) -> None:
    packed = gzip.compress(b"{}")
    assert refused(call(method, path, packed, **{"content-encoding": "gzip"}), 415)


@pytest.mark.parametrize(("method", "path"), TAKING_JSON)
@pytest.mark.parametrize("text", ["\0", "\ud800", "a\udfffb"])
def test_it_refuses_or_ignores_text_that_nothing_can_keep(
    call: Call, method: str, path: str, text: str
) -> None:
    named = [
        *({name: text} for name in ("name", "brand", "slug", "code", "installation_id", "salt")),
        *({"name": "x", "slug": "x", name: {text: 1}} for name in ("tree", "rule")),
        *({"name": "x", "slug": "x", name: {"a": [text]}} for name in ("tree", "rule", "audience")),
        {"name": "x", "content": {"title": text}},
        {"name": "x", "trigger": {"on": "entered", "geofences": [text]}},
        {"name": "x", "brand": text},
        {"name": "x", text: 1},
        *({"name": "x", "slug": "y", name: text} for name in ("platform", "kind", "share")),
    ]
    for body in named:
        answer: Any = call(method, path, json.dumps(body).encode())
        assert answer.status_code in {200, 201} or refused(answer, 400, 422), body


@pytest.mark.parametrize("depth", [40, 400, 900])
@pytest.mark.parametrize("name", ["audience", "trigger", "goal", "guards"])
def test_it_keeps_no_campaign_nested_without_end(call: Call, name: str, depth: int) -> None:
    value: Any = {"name": "x", name: "@"}
    inner = '{"not":' * depth + "{}" + "}" * depth
    bodies = (inner, f'{{"where": {inner}}}', f'{{"event": "x", "where": {{"a": {inner}}}}}')
    for body in (*bodies, "[" * depth + "]" * depth, f'[{{"attribute": "a", "value": {inner}}}]'):
        sent = json.dumps(value).replace('"@"', body).encode()
        assert refused(call("POST", "/v1/campaigns", sent), 400, 422)


@pytest.mark.parametrize("depth", [40, 400, 900])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("segments", '{"name": "x", "slug": "x", "tree": @}'),
        ("guards", '{"name": "x", "rule": @}'),
        ("guards", '{"name": "x", "rule": {"attribute": "a", "op": "eq", "value": @}}'),
        ("geofences", '{"properties": {"name": "x", "metadata": {"a": @}}, "geometry": null}'),
    ],
)
def test_it_keeps_nothing_nested_without_end(call: Call, path: str, body: str, depth: int) -> None:
    inner = '{"not":' * depth + "{}" + "}" * depth
    assert refused(call("POST", f"/v1/{path}", body.replace("@", inner).encode()), 400, 422)


@pytest.mark.parametrize("name", LISTS)
def test_it_stays_calm_about_a_cursor_that_somebody_made_up(call: Call, name: str) -> None:
    for ordering, position in product(
        ("id", "name", "created_at", "-updated_at"),
        ("abc", "1.5", "nan", "\0", "2026-01-01", "9" * 40),
    ):
        cursor = quote(b64encode(urlencode({"p": position}).encode()).decode())
        answer: Any = call("GET", f"/v1/{name}?ordering={ordering}&cursor={cursor}")
        assert answer.status_code == 200 or refused(answer, 404), (ordering, position)
    for cursor in ("1-1", "-1-1", "1-", "1--1", f"{10**30}-1", f"1-{2**63}", f"9-{10**400}"):
        answer = call("GET", f"/v1/{name}?cursor={cursor}")
        assert answer.status_code == 200 or refused(answer, 404), cursor


@pytest.mark.parametrize("path", ["nothing", "", "geofences/abc", "devices/me/", "campaigns/1/x"])
def test_it_says_in_json_that_there_is_no_such_path(call: Call, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer: Any = call(method, f"/v1/{path}")
        assert refused(answer, 404)
        assert answer.json()["code"] == "not_found"


def test_it_says_in_json_that_it_failed() -> None:
    answer: Any = failed(RequestFactory().get("/v1/geofences"))
    assert answer.status_code == 500
    assert set(json.loads(answer.content)) == {"code", "message", "fields"}
    assert failed(RequestFactory().get("/admin/"))["content-type"].startswith("text/html")

"""What the doors refuse as a whole is counted, wherever it was refused."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.devices.conftest import Phone, a_fix
from tests.devices.test_doors_sockets import streaming
from tests.figures import figures_in
from tests.live_server import LiveWeb
from tests.processes import until

pytestmark = pytest.mark.django_db(transaction=True)

Refused = Callable[[LiveWeb, httpx.Client, Phone], None]


def too_often(_: LiveWeb, __: httpx.Client, phone: Phone) -> None:
    while phone.post("/v1/locations", json=[]).status_code != 429:
        pass


def too_many_fixes_at_once(_: LiveWeb, __: httpx.Client, phone: Phone) -> None:
    """Decoded on a thread: the way that large bodies go."""
    while phone.post("/v1/locations", json=[a_fix()] * 1000).status_code != 429:
        pass


def no_token(_: LiveWeb, http: httpx.Client, __: Phone) -> None:
    assert http.post("/v1/events", json={}).status_code == 401


def no_key(_: LiveWeb, http: httpx.Client, __: Phone) -> None:
    assert http.post("/v1/gateway/locations", json=[]).status_code == 401


def no_json(_: LiveWeb, __: httpx.Client, phone: Phone) -> None:
    assert phone.post("/v1/locations", content=b"{").status_code == 400


def erased(_: LiveWeb, __: httpx.Client, phone: Phone) -> None:
    phone.device.delete()
    assert phone.post("/v1/locations", json=a_fix()).status_code == 401


def odd_frame(web: LiveWeb, _: httpx.Client, phone: Phone) -> None:
    with streaming(web, phone.token) as stream:
        assert stream.ask({"type": "odd", "seq": 1})["type"] == "error"


def too_many_frames(web: LiveWeb, _: httpx.Client, phone: Phone) -> None:
    with streaming(web, phone.token) as stream:
        while stream.ask({"type": "locations", "seq": 1, "locations": []})["type"] != "error":
            pass


@pytest.mark.parametrize(
    ("refused", "kind", "code"),
    [
        (too_often, "fix", "rate_limited"),
        (too_many_fixes_at_once, "fix", "rate_limited"),
        (no_token, "event", "not_authenticated"),
        (no_key, "fix", "not_authenticated"),
        (no_json, "fix", "not_json"),
        (erased, "fix", "token_revoked"),
        (odd_frame, "frame", "unknown_type"),
        (too_many_frames, "frame", "rate_limited"),
    ],
)
def test_it_counts_what_it_refuses(
    live_web: LiveWeb, http: httpx.Client, phone: Phone, refused: Refused, kind: str, code: str
) -> None:
    def counted(kind: str = kind, code: str = code) -> float:
        figure = ("nearcast_requests_refused_total", (("code", code), ("kind", kind)))
        return figures_in(http.get("/metrics").text).get(figure, 0.0)

    # What earlier tests were refused may not be counted yet; it is by when this one is.
    marked = counted("event", "not_json")
    assert phone.post("/v1/events", content=b"{").status_code == 400
    until(lambda: counted("event", "not_json") > marked, "what was refused before is counted")

    before = counted()
    refused(live_web, http, phone)

    until(lambda: counted() == before + 1, f"one more {code}")

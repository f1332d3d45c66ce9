"""A web process as a whole: what it owes when it ends, when clients dawdle, without a database."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db import OperationalError
from django.test import Client

from brands.models import Brand
from config.incoming import Incoming
from devices import auth
from devices.auth import TokenMemory
from devices.doors import http
from devices.doors.answers import answer
from devices.doors.http import HttpDoors
from devices.doors.limits import Patience, RateLimit
from devices.gathering import GroupCommit
from devices.models import Fix
from tests.devices.conftest import a_fix
from tests.factories import make_brand, make_device, make_key
from tests.live_server import LiveWeb, start_web, stop_web
from tests.staff import make_member

TOKEN = {b"authorization": b"Bearer " + auth.issue(1, 1, 1).encode()}


class Away(GroupCommit):
    """A group commit whose database does not answer."""

    def attempt(self, rows: list[Any]) -> Any:  # noqa: ARG002 - as its base
        raise OperationalError("the database is away")


async def ask(
    receive: Callable[[], Awaitable[dict[str, Any]]],
    *,
    patience_s: float = 60.0,
    headers: dict[bytes, bytes] = TOKEN,
) -> tuple[int, dict[bytes, bytes], Any]:
    """POST /v1/locations at the door itself, with a client that sends as `receive` says."""
    gatherer, events = Away("fixes"), Away("events")
    gatherer.start()
    doors = HttpDoors(
        fixes=gatherer,
        events=events,
        tokens=TokenMemory(),
        rate=RateLimit(per_s=1, burst=100),
        threads=ThreadPoolExecutor(1),
    )
    doors.patience._limit_s = patience_s
    watching = asyncio.create_task(doors.patience.watch())
    door, sent = doors.find("/v1/locations"), []
    assert door is not None

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/locations",
        "headers": list(headers.items()),
    }
    await door(scope, receive, send)
    watching.cancel()
    await gatherer.stop()
    if not sent:
        return 0, {}, None
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])


async def test_it_gives_up_on_a_body_that_does_not_come() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    status, headers, body = await ask(receive, patience_s=0.02)
    assert (status, body["code"]) == (408, "timeout")
    assert headers[b"connection"] == b"close"


async def test_it_gives_up_on_a_body_that_stops_half_way() -> None:
    parts = iter([{"type": "http.request", "body": b"[", "more_body": True}])

    async def receive() -> dict[str, Any]:
        for part in parts:
            return part
        await asyncio.Event().wait()
        raise AssertionError

    assert (await ask(receive, patience_s=0.02))[0] == 408


async def test_it_answers_nothing_to_a_client_that_went_away() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    assert (await ask(receive))[0] == 0


async def test_it_says_later_where_the_database_is_away() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(a_fix()).encode()}

    status, headers, body = await ask(receive)
    assert (status, body["code"]) == (503, "overloaded")
    assert headers[b"retry-after"] == b"1"


async def test_it_refuses_before_it_reads_a_body_that_says_it_is_too_large() -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("it was read")

    assert (await ask(receive, headers=TOKEN | {b"content-length": b"999999999999"}))[0] == 413


@pytest.mark.parametrize("length", [b"x", b"", b"-5", b"9" * 5_000])
async def test_it_stays_calm_about_strange_lengths(length: bytes) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}  # read, and no fix

    assert (await ask(receive, headers=TOKEN | {b"content-length": length}))[0] == 422


@pytest.fixture
def brand(transactional_db: None) -> Brand:
    return make_brand()


async def served(
    receive: Callable[[], Awaitable[dict[str, Any]]], headers: dict[bytes, bytes] | None = None
) -> tuple[int, bytes]:
    """What becomes of a body on its way to a Django that answers with its length."""

    async def django(scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message.get("more_body")
        for part in answer(200, b"%d" % size):
            await send(part)

    patience = Patience(0.02)
    watching, sent = asyncio.create_task(patience.watch()), []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": list((headers or {}).items())}
    await Incoming(django, max_bytes=1_000, patience=patience)(scope, receive, send)
    watching.cancel()
    return sent[0]["status"], sent[1]["body"]


def in_parts(*parts: bytes, silent: bool = False) -> Callable[[], Awaitable[dict[str, Any]]]:
    left = iter(parts)

    async def receive() -> dict[str, Any]:
        for part in left:
            return {"type": "http.request", "body": part, "more_body": silent or part != parts[-1]}
        await asyncio.Event().wait()
        raise AssertionError

    return receive


async def test_it_hands_django_a_body_of_any_parts() -> None:
    assert await served(in_parts(b"a" * 400, b"b" * 600)) == (200, b"1000")
    assert await served(in_parts(b"")) == (200, b"0")


async def test_it_stops_before_django_keeps_what_has_no_end() -> None:
    assert (await served(in_parts(b"a" * 400, b"b" * 601, b"c")))[0] == 413
    assert (await served(in_parts(), {b"content-length": b"1001"}))[0] == 413


async def test_it_does_not_keep_django_waiting_for_a_body() -> None:
    assert (await served(in_parts(silent=True)))[0] == 408
    assert (await served(in_parts(b"a", silent=True)))[0] == 408


def test_it_takes_what_is_large_only_from_who_has_signed_in(
    live_web: LiveWeb, brand: Brand
) -> None:
    """Who has gets as far as Django, which misses its token against forgery."""
    address, large = f"{live_web.base_url}/admin/login/", b"a" * (1024 * 1024 + 1)
    parts = (large[start : start + 65_536] for start in range(0, len(large), 65_536))
    for body in (large, parts):
        answer = httpx.post(address, content=body)
        assert (answer.status_code, "Sign in" in answer.json()["message"]) == (413, True)
    assert httpx.post(address, content=large[:-1]).status_code == 403

    staff = Client()
    staff.force_login(make_member(brand))
    cookies = {"sessionid": staff.cookies["sessionid"].value}
    assert httpx.post(address, content=large, cookies=cookies).status_code == 403
    cookies = {"sessionid": "made-up"}
    assert httpx.post(address, content=large, cookies=cookies).status_code == 413


def test_it_leads_who_names_no_path_to_the_admin() -> None:
    assert Client().get("/").headers["location"] == "/admin/"


def test_it_reads_a_body_whose_length_nobody_said(live_web: LiveWeb, brand: Brand) -> None:
    headers = {"Authorization": f"Bearer {make_key(brand)}", "Content-Type": "application/x-ndjson"}
    lines = (b'{"external_id": "c-%d", "attributes": {"a": 1}}\n' % number for number in range(3))
    answer = httpx.put(f"{live_web.base_url}/v1/gateway/profiles", content=lines, headers=headers)
    assert answer.json()["accepted"] == 3


def test_it_keeps_serving_while_many_clients_dawdle(
    transactional_db: None, live_web: LiveWeb
) -> None:
    port = int(live_web.base_url.rpartition(":")[2])
    dawdlers = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    try:
        for number, dawdler in enumerate(dawdlers, 1):
            token = auth.issue(number, 1, 1)
            dawdler.sendall(
                b"POST /v1/locations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n{" % token.encode()
            )
        assert httpx.get(f"{live_web.base_url}/healthz", timeout=60).status_code == 200
        for dawdler in dawdlers:  # none of them was given up first
            dawdler.setblocking(False)
            with pytest.raises(BlockingIOError):
                dawdler.recv(1)
    finally:
        for dawdler in dawdlers:
            dawdler.close()


def test_it_answers_what_it_has_accepted_when_it_is_told_to_end(transactional_db: None) -> None:
    web = start_web()
    try:
        brand = make_brand()
        phones = [
            {"Authorization": f"Bearer {auth.issue(make_device(brand).pk, brand.pk, 1)}"}
            for _ in range(8)
        ]
        acknowledged: list[int] = []
        ended = threading.Event()

        def report(headers: dict[str, str], which: int) -> None:
            with httpx.Client(base_url=web.base_url) as client:
                for number in range(10_000):
                    try:
                        answer = client.post(
                            "/v1/locations", json=a_fix(id=f"{which}-{number}"), headers=headers
                        )
                    except httpx.TransportError:
                        return
                    if answer.status_code == 200:
                        acknowledged.append(answer.json()["accepted"])
                    if ended.is_set():
                        return

        threads = [
            threading.Thread(target=report, args=(headers, which))
            for which, headers in enumerate(phones)
        ]
        for thread in threads:
            thread.start()
        while len(acknowledged) < 40:
            assert any(thread.is_alive() for thread in threads)
            time.sleep(0.01)
        stop_web(web)
        ended.set()
        for thread in threads:
            thread.join()
        assert Fix.objects.filter(device_id__in=brand.devices.values("pk")).count() >= sum(
            acknowledged
        )
        assert web.process.returncode in {0, -signal.SIGTERM}, "as told"
    finally:
        if web.process.poll() is None:
            stop_web(web, how=signal.SIGKILL)


def test_it_does_not_know_other_paths_of_sockets(transactional_db: None, live_web: LiveWeb) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    for path in ("/", "/ws/nothing", "/v1/locations"):
        with pytest.raises(InvalidStatus), connect(f"{live_web.ws_url}{path}"):
            pass


def test_it_begins_and_ends_with_patience_for_bodies() -> None:
    assert 5 <= http.BODY_PATIENCE_S <= 60

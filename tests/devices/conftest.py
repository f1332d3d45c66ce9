"""Phones that speak to a real server, and files of people to import."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from brands.models import Brand, KeyKind
from devices import auth, profile_files
from devices.models import Device
from tests.factories import make_brand, make_device, make_key
from tests.live_server import LiveWeb
from tests.places import AT_THE_DOOR, Place


@dataclass(slots=True)
class Phone:
    """One registered installation; `headers` carries its token."""

    client: httpx.Client
    device: Device
    token: str
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {"Authorization": f"Bearer {self.token}"}

    def post(self, path: str, **given: Any) -> httpx.Response:
        headers = self.headers | given.pop("headers", {})
        return self.client.post(path, headers=headers, **given)

    def post_raw(
        self, path: str, content: bytes, *, at_once: bool, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """In one piece, or the body only after the head: httpx itself always does the latter."""
        url = self.client.base_url
        lines = {
            "Host": "x",
            "Content-Type": "application/json",
            **self.headers,
            **(headers or {}),
            "Content-Length": str(len(content)),
        }
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        with socket.create_connection((url.host, url.port), timeout=20) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.sendall(f"{head}\r\n".encode() + (content if at_once else b""))
            if not at_once:
                _wait_until_read(line)
                line.sendall(content)
            answer = HTTPResponse(line)
            answer.begin()
            return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.client.get(path, headers=self.headers, **given)


def _wait_until_read(line: socket.socket) -> None:
    """Until the other side has read what was sent, as its system says."""
    own, peer = line.getsockname()[1], line.getpeername()[1]
    while True:
        for entry in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, _, queues, *_ = entry.split()
            ports = int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)
            if ports == (peer, own) and queues.endswith(":00000000"):
                return


def a_fix(place: Place = AT_THE_DOOR, **fields: Any) -> dict[str, Any]:
    return {"lat": place.lat, "lng": place.lng, "recorded_at": time.time_ns() // 1_000_000} | fields


def make_phone(client: httpx.Client, brand: Brand, **fields: Any) -> Phone:
    device = make_device(brand, **fields)
    return Phone(client, device, auth.issue(device.pk, brand.pk, 1))


@pytest.fixture
def http(live_web: LiveWeb) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_web.base_url, timeout=20) as client:
        yield client


@pytest.fixture
def brand(transactional_db: None) -> Brand:
    return make_brand()


@pytest.fixture
def phone(http: httpx.Client, brand: Brand) -> Phone:
    return make_phone(http, brand)


@pytest.fixture
def app_key(brand: Brand) -> dict[str, str]:
    return {"Authorization": f"Bearer {make_key(brand, KeyKind.PUBLISHABLE)}"}


@pytest.fixture
def server_key(brand: Brand) -> dict[str, str]:
    return {"Authorization": f"Bearer {make_key(brand, KeyKind.SERVER)}"}


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "people.csv") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_files, "CHUNK_ROWS", 2)

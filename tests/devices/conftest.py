"""Phones that speak to a real server, and files of people to import."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.client.get(path, headers=self.headers, **given)


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

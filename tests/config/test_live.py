"""The staff's live socket: who may watch what, and that it arrives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import connections
from django.test import Client

from brands.models import Brand, Membership, Role
from config import live
from config.live import Live, as_bounds
from tests.campaigns.rows import make_transition
from tests.factories import make_brand, make_circle, make_device
from tests.places import SHOP

HOST = "nearcast.test"
HERE = [SHOP.lng - 0.1, SHOP.lat - 0.1, SHOP.lng + 0.1, SHOP.lat + 0.1]


def make_staff(brand: Brand | None = None, **fields: Any) -> Any:
    user = get_user_model().objects.create(
        **{"username": f"staff-{brand and brand.pk}", "is_staff": True} | fields
    )
    if brand is not None:
        Membership.objects.create(user=user, brand=brand, role=Role.SUPPORT)
    return user


@pytest.fixture
async def threads() -> AsyncIterator[None]:
    """The thread behind `sync_to_async` keeps its connection; the test database must go."""
    yield
    await sync_to_async(connections.close_all)()


class Viewer:
    """A browser's end of the socket."""

    def __init__(self, user: Any, brand_id: int, *, origin: str = f"http://{HOST}") -> None:
        scope = {
            "type": "websocket",
            "path": "/ws/live",
            "query_string": f"brand={brand_id}".encode(),
            "headers": [(b"host", HOST.encode()), (b"origin", origin.encode())],
            "subprotocols": [],
            "user": user,
        }
        self.end: Any = ApplicationCommunicator(Live.as_asgi(), scope)  # type: ignore[no-untyped-call]

    async def open(self) -> dict[str, Any]:
        await self.end.send_input({"type": "websocket.connect"})
        answer: dict[str, Any] = await self.end.receive_output(timeout=10)
        return answer

    async def say(self, **frame: Any) -> None:
        await self.end.send_input({"type": "websocket.receive", "text": json.dumps(frame)})

    async def hear(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The next frame of which something is true."""
        async with asyncio.timeout(10):
            while True:
                message = await self.end.receive_output(timeout=10)
                frame: dict[str, Any] = json.loads(message["text"])
                if wanted(frame):
                    return frame


@asynccontextmanager
async def watching(user: Any, brand_id: int) -> AsyncIterator[Viewer]:
    viewer = Viewer(user, brand_id)
    assert (await viewer.open())["type"] == "websocket.accept"
    try:
        yield viewer
    finally:
        await viewer.end.send_input({"type": "websocket.disconnect", "code": 1000})
        await viewer.end.wait(timeout=10)
        await live.feed.ended()


@pytest.mark.usefixtures("threads")
@pytest.mark.django_db(transaction=True)
async def test_it_shows_what_happens_as_it_happens() -> None:
    brand = await sync_to_async(make_brand)()
    user = await sync_to_async(make_staff)(brand)
    device = await sync_to_async(make_device)(brand)
    shop = await sync_to_async(make_circle)(brand, name="Shop")
    async with watching(user, brand.pk) as viewer:
        await viewer.say(type="view", bounds=HERE)
        places = await viewer.hear(lambda frame: frame["type"] == "places")
        await viewer.hear(lambda frame: frame["type"] == "tick")

        await sync_to_async(make_transition)(device, shop)
        tick = await viewer.hear(lambda frame: frame.get("happened"))

    assert [each["id"] for each in places["features"]] == [shop.pk]
    assert (tick["type"], tick["happened"][0]["place"]) == ("tick", "Shop")


@pytest.mark.usefixtures("threads")
@pytest.mark.django_db(transaction=True)
async def test_it_tells_what_a_viewer_missed() -> None:
    brand = await sync_to_async(make_brand)()
    user = await sync_to_async(make_staff)(brand)
    device, shop = await sync_to_async(make_device)(brand), await sync_to_async(make_circle)(brand)
    first = await sync_to_async(make_transition)(device, shop)
    second = await sync_to_async(make_transition)(device, shop, kind="exited")
    async with watching(user, brand.pk) as viewer:
        await viewer.say(type="resume", transition=first.pk)
        frame = await viewer.hear(lambda frame: frame["type"] == "happened")

    assert [each["id"] for each in frame["happened"]] == [second.pk]


@pytest.mark.usefixtures("threads")
@pytest.mark.django_db(transaction=True)
async def test_it_keeps_other_brands_from_a_viewer() -> None:
    brand = await sync_to_async(make_brand)()
    user = await sync_to_async(make_staff)(brand)
    stranger = await sync_to_async(make_device)(await sync_to_async(make_brand)())
    shop = await sync_to_async(make_circle)(stranger.brand)
    device = await sync_to_async(make_device)(brand)
    async with watching(user, brand.pk) as viewer:
        await viewer.say(type="view", bounds=HERE)
        places = await viewer.hear(lambda frame: frame["type"] == "places")
        await viewer.hear(lambda frame: frame["type"] == "tick")
        await sync_to_async(make_transition)(stranger, shop)
        mine = await sync_to_async(make_transition)(device, await sync_to_async(make_circle)(brand))
        tick = await viewer.hear(lambda frame: frame.get("happened"))

    assert places["features"] == []
    assert [each["id"] for each in tick["happened"]] == [mine.pk]


@pytest.mark.usefixtures("threads")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("who", ["nobody", "stranger", "customer", "other_site"])
async def test_it_refuses_who_may_not_watch(who: str) -> None:
    brand = await sync_to_async(make_brand)()
    if who == "nobody":
        viewer = Viewer(AnonymousUser(), brand.pk)
    elif who == "stranger":
        other = await sync_to_async(make_brand)()
        viewer = Viewer(await sync_to_async(make_staff)(other), brand.pk)
    elif who == "customer":
        viewer = Viewer(await sync_to_async(make_staff)(brand, is_staff=False), brand.pk)
    else:
        user = await sync_to_async(make_staff)(brand)
        viewer = Viewer(user, brand.pk, origin="https://evil.test")

    answer = await viewer.open()

    assert answer["type"] == "websocket.close"


@pytest.mark.django_db
def test_it_shows_the_page_to_staff_and_sends_others_to_log_in(client: Client) -> None:
    brand = make_brand()
    anonymous = client.get("/admin/live/")
    client.force_login(make_staff(brand))

    answer = client.get("/admin/live/")

    assert anonymous.status_code == 302
    assert answer.status_code == 200
    assert f'"brand": {brand.pk}' in answer.content.decode()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2, 3, 4], (1, 2, 3, 4)),
        ([-200, -95, 200, 95], (-180, -90, 180, 90)),
        ([3, 2, 1, 4], None),
        ([1, 2, 3], None),
        (["1", 2, 3, 4], None),
        ([1, 2, float("nan"), 4], None),
        (None, None),
    ],
)
def test_it_takes_a_view_only_where_there_is_one(given: Any, expected: Any) -> None:
    assert as_bounds(given) == expected

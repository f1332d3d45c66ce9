"""The staff's live page: geofences, moving phones, enters and offers as they happen.

One task per process reads what is new (`config.tail`) while anybody watches; each viewer gets what
its brand and its view of the map allow. Nothing here is a log: who was away reads the rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from brands.desk import current_brand, zone_of
from brands.models import Role
from brands.rights import rights_of
from config import tail
from config.tail import Bounds, Look, Tail

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
MOST_DOTS = 2_000  # in one tick
MOST_PLACES = 1_500
RECENT = 30  # happenings of each kind that a page begins with
CAUGHT_UP = 200  # and that somebody who was away gets at most
HEARD_MINUTES = 15.0  # a phone silent for longer is not shown
RIGHTS_EVERY_S = 30.0
LOOKS_KEPT = 8  # of a slow viewer; past them it reads the rows instead


def page(request: HttpRequest) -> HttpResponse:
    """The page around the map; everything on it comes over the socket."""
    brand = current_brand(request)
    context = {
        **admin.site.each_context(request),
        "title": "Live",
        "brand": brand,
        "is_fullwidth": "1",
        "live": {
            "brand": brand.pk if brand else None,
            "timezone": zone_of(brand).key,
            "device": reverse("admin:devices_device_change", args=[0]),
            "delivery": reverse("admin:notifications_delivery_change", args=[0]),
            "geofence": reverse("admin:geofences_geofence_change", args=[0]),
        },
    }
    return TemplateResponse(request, "admin/live.html", context)


class Feed:
    """This process's viewers, and the one task that looks for all of them."""

    def __init__(self) -> None:
        self._viewers: set[asyncio.Queue[Look]] = set()
        self._task: asyncio.Task[None] | None = None
        # One thread, so that one connection serves all looks.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live")

    @contextlib.contextmanager
    def watched(self) -> Any:
        """A queue of looks for as long as somebody watches; too slow a viewer's is emptied."""
        looks: asyncio.Queue[Look] = asyncio.Queue(maxsize=LOOKS_KEPT)
        self._viewers.add(looks)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())
        try:
            yield looks
        finally:
            self._viewers.discard(looks)

    async def ended(self) -> None:
        """Wait until nobody is looked for any more."""
        if self._task is not None:
            await self._task

    async def _follow(self) -> None:
        """Look until nobody watches; a lost database is looked for again."""
        loop = asyncio.get_running_loop()
        found: Tail | None = None
        while self._viewers:
            began = loop.time()
            try:
                now = datetime.now(UTC)
                if found is None:
                    found = await loop.run_in_executor(self._thread, Tail, now)
                look = await loop.run_in_executor(self._thread, found.look, now)
                for viewer in self._viewers:
                    if viewer.full():
                        viewer.get_nowait()
                    viewer.put_nowait(look)
            except Exception:
                logger.exception("the live page could not look; trying again")
                await loop.run_in_executor(self._thread, tail.let_go)
                await asyncio.sleep(2)
            await asyncio.sleep(max(0.05, LOOK_EVERY_S - (loop.time() - began)))
        await loop.run_in_executor(self._thread, tail.let_go)


feed = Feed()


def as_bounds(given: Any) -> Bounds | None:
    """A view of the map as its four edges, or None where it is none."""
    if not isinstance(given, list) or len(given) != 4:
        return None
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in given):
        return None
    west, south, east, north = (float(each) for each in given)
    if west > east or south > north:
        return None
    return max(-180.0, west), max(-90.0, south), min(180.0, east), min(90.0, north)


class Live(AsyncJsonWebsocketConsumer):
    """One viewer: `view` frames in; `places`, `devices`, `happened` and `tick` frames out."""

    brand_id: int = 0
    bounds: Bounds | None = None
    pump: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        asked = parse_qs(self.scope["query_string"].decode("latin-1")).get("brand", [""])[0]
        self.brand_id = int(asked) if asked.isascii() and asked.isdigit() else 0
        if not self._same_origin() or not await self._may_watch():
            await self.close(code=4403)
            return
        await self.accept()
        self.pump = asyncio.create_task(self._pump())

    async def disconnect(self, code: int) -> None:  # noqa: ARG002 - Channels' signature
        if self.pump is not None:
            self.pump.cancel()

    async def receive_json(self, content: Any, **_options: Any) -> None:
        """`view`: the map shows these bounds; `resume`: what happened after these ids."""
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "view" and (bounds := as_bounds(content.get("bounds"))) is not None:
            self.bounds = bounds
            places = await database_sync_to_async(tail.places_within)(
                self.brand_id, bounds, limit=MOST_PLACES
            )
            await self.send_json({"type": "places", "features": places})
            devices = await database_sync_to_async(tail.devices_within)(
                self.brand_id, bounds, since=tail.minutes_ago(HEARD_MINUTES), limit=MOST_DOTS
            )
            await self.send_json({"type": "devices", "devices": devices})
        elif kind == "resume":
            seen = {
                each: content[each]
                for each in ("transition", "offer")
                if isinstance(content.get(each), int)
            }
            happened = await database_sync_to_async(tail.happened_since)(
                self.brand_id, seen, limit=CAUGHT_UP if seen else RECENT
            )
            await self.send_json({"type": "happened", "happened": happened})

    async def _pump(self) -> None:
        """Send every look as far as it concerns this viewer, while it may watch."""
        loop = asyncio.get_running_loop()
        checked = loop.time()
        with feed.watched() as looks:
            while True:
                look = await looks.get()
                if loop.time() - checked > RIGHTS_EVERY_S:
                    checked = loop.time()
                    if not await self._may_watch():
                        await self.close(code=4403)
                        return
                await self.send_json(self._tick(look))

    def _tick(self, look: Look) -> dict[str, Any]:
        moved = look.moved.get(self.brand_id, [])
        if self.bounds is not None:
            west, south, east, north = self.bounds
            moved = [
                each for each in moved if south <= each[1] <= north and west <= each[2] <= east
            ]
        return {
            "type": "tick",
            "span_s": look.span_s,
            "fixes": look.fixes[self.brand_id],
            "devices": moved[:MOST_DOTS],
            "happened": look.happened.get(self.brand_id, []),
        }

    async def _may_watch(self) -> bool:
        user = self.scope["user"]
        rights = await database_sync_to_async(rights_of)(user)
        return bool(getattr(user, "is_staff", False)) and rights.may(Role.SUPPORT, self.brand_id)

    def _same_origin(self) -> bool:
        """A page of another site must not open this socket with a visitor's cookie."""
        headers = dict(self.scope["headers"])
        origin = urlsplit(headers.get(b"origin", b"").decode("latin-1"))
        return bool(origin.netloc) and (
            origin.netloc == headers.get(b"host", b"").decode("latin-1")
            or f"{origin.scheme}://{origin.netloc}" in settings.CSRF_TRUSTED_ORIGINS
        )

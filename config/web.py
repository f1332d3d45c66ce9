"""One web process: who answers which connection, and what runs beside the requests.

The fast doors come first, then Channels for the staff's sockets, then Django for the rest. It
decides nothing about a request but who answers it.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.db import connection

from brands.keys import CHANNEL as KEYS
from brands.keys import keys
from config import collector, metrics
from config.errors import API
from config.incoming import Incoming, is_signed_in
from config.urls import websocket_urlpatterns
from devices.auth import TokenMemory
from devices.doors.door import Receive, Scope, Send
from devices.doors.http import HttpDoors
from devices.doors.limits import RateLimit
from devices.doors.sockets import StreamDoor
from devices.events import EventGatherer
from devices.gathering import Gatherer
from devices.listening import Listener
from geofences.armed import follower
from notifications.offers import CHANNEL as OFFERS
from notifications.offers import current_offers, take_feedback

STREAM = "/v1/stream"
COUNT_EVERY_S = 1.0
CLOSE_S = 5.0
THREADS = 4  # each with a database connection of its own


class Web:
    """One web process: an ASGI application with what it keeps running."""

    def __init__(self, django: Any) -> None:
        self._django = django
        self._staff = AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter(websocket_urlpatterns))
        )
        self._staff_paths = {f"/{pattern.pattern}" for pattern in websocket_urlpatterns}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            door = self._doors.find(path)
            rest = self._api if path.startswith(API) else self._desk
            await (door or rest)(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == STREAM:
            await self._stream(scope, receive, send)
        elif scope["path"] in self._staff_paths:
            await self._staff(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 4404})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Begin; a database that is away delays what needs it and stops nothing."""
        self._ending = threading.Event()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="door")
        self._fixes, self._events = Gatherer(follower.current), EventGatherer()
        tokens = TokenMemory()
        rate = RateLimit(per_s=settings.RATE_PER_DEVICE, burst=settings.RATE_BURST)
        self._doors = HttpDoors(
            fixes=self._fixes,
            events=self._events,
            tokens=tokens,
            rate=rate,
            threads=self._threads,
        )
        self.doors_of_devices = self._doors.of_devices
        self._api = Incoming(
            self._django, max_bytes=settings.MAX_BODY_BYTES, patience=self._doors.patience
        )
        self._desk = Incoming(
            self._django,
            max_bytes=settings.MAX_STRANGERS_BODY_BYTES,
            patience=self._doors.patience,
            is_trusted=is_signed_in,
        )
        self._stream = StreamDoor(
            locations=self._doors.locations,
            events=self._doors.events,
            tokens=tokens,
            rate=rate,
            threads=self._threads,
            current_offers=lambda devices: current_offers(
                devices, now=datetime.now(UTC), unreceived=True
            ),
            record_feedback=lambda device, body: take_feedback(device, body, now=datetime.now(UTC)),
            refusals=self._doors.refusals,
        )
        metrics.drop_stale()
        # Code and settings live as long as the process: searching them for cycles is in vain.
        collector.settle()
        self._fixes.start()
        self._events.start()
        self._follower = threading.Thread(
            target=follower.follow, args=(self._ending,), name="follower", daemon=True
        )
        self._follower.start()
        listener = Listener(
            {KEYS: self._key_changed, OFFERS: self._stream.offers_changed},
            look_again=self._look_again,
        )
        self._tasks = [
            asyncio.create_task(each)
            for each in (
                listener.run(),
                self._doors.patience.watch(),
                self._stream.watch(),
                self._keep_count(),
            )
        ]

    async def stop(self) -> None:
        """End in the order in which answers are still owed."""
        await self._stream.close_all()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self._fixes.stop()
        await self._events.stop()
        self._count()
        self._ending.set()
        await asyncio.to_thread(self._follower.join)
        await asyncio.to_thread(_close_connections, self._threads)
        self._threads.shutdown()
        await asyncio.to_thread(cast(Any, connection).close_pool)

    async def _keep_count(self) -> None:
        while True:
            await asyncio.sleep(COUNT_EVERY_S)
            self._count()

    def _count(self) -> None:
        metrics.count_items(self._doors.tally)
        metrics.count_refusals(self._doors.refusals)
        metrics.sockets_open.set(len(self._stream))
        if follower.is_loaded:
            metrics.geofences_armed.set(len(follower.current().index))

    def _key_changed(self, payload: str) -> None:
        kind, _, which = payload.partition(":")
        if kind == "key":
            keys.forget(which)
        elif kind == "device":
            device_id, _, serial = which.partition(":")
            self._stream.revoked(int(device_id), int(serial))

    def _look_again(self) -> None:
        """Something may have been missed: believe nothing remembered."""
        keys.forget()
        self._stream.look_again()


def _close_connections(threads: ThreadPoolExecutor) -> None:
    """Close the connection of each thread, on that thread: none may take two turns."""
    everyone = threading.Barrier(THREADS)

    def close() -> None:
        connection.close()
        everyone.wait(CLOSE_S)

    for closing in [threads.submit(close) for _ in range(THREADS)]:
        closing.result()

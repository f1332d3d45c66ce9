"""The fast HTTP doors of devices, and all doors of a process by path."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from django.conf import settings

from devices import events
from devices.auth import DeviceIdentity, TokenMemory
from devices.doors.answers import NO_TOKEN, Answer, too_many
from devices.doors.decoding import ItemReader
from devices.doors.dialects import Dialect, DialectDoor, stands
from devices.doors.door import (
    UNKNOWN,
    Door,
    Headers,
    ItemsDoor,
    Outcome,
    Prepared,
    Shared,
    answer_outcome,
    is_lines,
    is_unproven,
)
from devices.doors.gateway import GatewayEventsDoor, GatewayLocationsDoor, event_rows
from devices.doors.limits import Patience, RateLimit
from devices.doors.owntracks import OwnTracks
from devices.doors.radar import Radar, RadarReplay
from devices.doors.traccar import Traccar
from devices.doors.transistor import Transistor
from devices.events import EventIn, GatewayEventIn
from devices.fixes import FixIn, GatewayFixIn, row_of
from devices.gathering import GroupCommit

BODY_PATIENCE_S = 20.0  # a phone at the edge of coverage sends a small body within seconds

Reply = Callable[[Answer], None]
DIALECTS: dict[str, Dialect] = {
    "/compat/owntracks": OwnTracks(),
    "/compat/traccar": Traccar(),
    "/compat/transistor": Transistor(),
    "/compat/radar/v1/track": Radar(),
    "/compat/radar/v1/track/replay": RadarReplay(),
}


class DeviceDoor(ItemsDoor[DeviceIdentity]):
    """From one device, by its token."""

    def __init__(
        self,
        gatherer: GroupCommit,
        reader: ItemReader[Any],
        shared: Shared,
        *,
        tokens: TokenMemory,
        rate: RateLimit,
    ) -> None:
        super().__init__(gatherer, reader, shared)
        self._tokens = tokens
        self._rate = rate

    async def admit(self, authorization: bytes) -> DeviceIdentity | Answer:
        return self._tokens.identify(authorization) or NO_TOKEN

    def take(self, headers: Headers, body: bytes, reply: Reply) -> None:
        """A small, plain body that is all here: `reply` is called once, when it is durable.

        The same as to call the door, without a task, a scope and messages.
        """
        try:
            at_once = self._begin(headers, body, reply)
        except Exception as error:  # noqa: BLE001 - as at the door
            at_once = self.fault(error)
        if at_once is not None:
            self.note(at_once)
            reply(at_once)

    def _begin(self, headers: Headers, body: bytes, reply: Reply) -> Answer | None:
        """What is to say at once; None where `reply` hears of it later."""
        identity = self._tokens.identify(headers.authorization)
        if identity is None:
            return NO_TOKEN
        wait_s = self.charge(identity, 0)
        if wait_s:
            return too_many(wait_s)
        prepared = self.prepare(identity, body, is_lines(headers.content_type))
        if prepared.rows:
            durable = self._gatherer.submit(prepared.rows)
            durable.add_done_callback(partial(self._hear, identity, prepared, reply))
        else:
            self._ask(identity, self.outcome(prepared, []), reply)
        return None

    def _hear(
        self,
        identity: DeviceIdentity,
        prepared: Prepared,
        reply: Reply,
        durable: asyncio.Future[list[int]],
    ) -> None:
        error = durable.exception()
        if error is not None:
            self._tell(self.fault(error), reply)
            return
        outcome = self.outcome(prepared, durable.result())
        if is_unproven(outcome):
            self._ask(identity, outcome, reply)
        else:
            self._tell(answer_outcome(outcome), reply)

    def _ask(self, identity: DeviceIdentity, outcome: Outcome, reply: Reply) -> None:
        """Whether the sender still stands, of which no row has told."""
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._shared.threads, stands, identity)

        def tell(asked: asyncio.Future[bool]) -> None:
            error = asked.exception()
            if error is not None:
                self._tell(self.fault(error), reply)
            else:
                self._tell(answer_outcome(outcome if asked.result() else None), reply)

        asked.add_done_callback(tell)

    def _tell(self, said: Answer, reply: Reply) -> None:
        self.note(said)
        reply(said)

    async def submit(self, identity: DeviceIdentity, prepared: Prepared) -> Answer:
        outcome = await self.hand_on(prepared)
        if is_unproven(outcome) and not await self.on_thread(stands, identity):
            outcome = None
        return answer_outcome(outcome)

    def charge(self, identity: DeviceIdentity, items: int) -> float:
        if not items:
            return self._rate.wait_s(identity.device_id)
        return self._rate.wait_for_items_s(identity.device_id, items)

    def is_revoked(self, verdicts: list[int]) -> bool:
        return UNKNOWN in verdicts


class LocationsDoor(DeviceDoor):
    """`POST /v1/locations`."""

    def prepare(self, identity: DeviceIdentity, body: bytes, lines: bool) -> Prepared:
        items, places, rejected = self._reader.read(body, lines=lines)
        device_id, brand_id, serial = identity
        return Prepared(
            [row_of(item, device_id=device_id, brand_id=brand_id, serial=serial) for item in items],
            places,
            rejected,
        )


class EventsDoor(DeviceDoor):
    """`POST /v1/events`."""

    kind = "event"
    messages = events.MESSAGES

    def prepare(self, identity: DeviceIdentity, body: bytes, lines: bool) -> Prepared:
        items, places, rejected = self._reader.read(body, lines=lines)
        return event_rows(
            [(item, identity.device_id, "") for item in items],
            places,
            rejected,
            brand_id=identity.brand_id,
            serial=identity.serial,
        )


def locations_reader(kind: type[FixIn]) -> ItemReader[Any]:
    return ItemReader(
        kind, envelope="locations", time_field="recorded_at", max_items=settings.MAX_ITEMS
    )


def events_reader(kind: type[EventIn]) -> ItemReader[Any]:
    return ItemReader(
        kind, envelope="events", time_field="occurred_at", max_items=settings.MAX_ITEMS
    )


class HttpDoors:
    """All fast doors of a process, by path, and what they share."""

    def __init__(
        self,
        *,
        fixes: GroupCommit,
        events: GroupCommit,
        tokens: TokenMemory,
        rate: RateLimit,
        threads: ThreadPoolExecutor,
    ) -> None:
        self.patience = Patience(BODY_PATIENCE_S)
        self.tally: Counter[tuple[str, str]] = Counter()
        self.refusals: Counter[tuple[str, str]] = Counter()
        shared = Shared(settings.MAX_BODY_BYTES, self.patience, threads, self.tally, self.refusals)
        self.locations = LocationsDoor(
            fixes, locations_reader(FixIn), shared, tokens=tokens, rate=rate
        )
        self.events = EventsDoor(events, events_reader(EventIn), shared, tokens=tokens, rate=rate)
        by_path: dict[str, Door] = {
            "/v1/locations": self.locations,
            "/v1/events": self.events,
            "/v1/gateway/locations": GatewayLocationsDoor(
                fixes, locations_reader(GatewayFixIn), shared
            ),
            "/v1/gateway/events": GatewayEventsDoor(events, events_reader(GatewayEventIn), shared),
        }
        for path, dialect in DIALECTS.items():
            door = DialectDoor(dialect, fixes, shared, tokens=tokens, rate=rate)
            by_path |= {path: door, f"{path}/": door}  # people type either into their app
        self.find = by_path.get
        self.of_devices: dict[bytes, DeviceDoor] = {
            path.encode(): door for path, door in by_path.items() if isinstance(door, DeviceDoor)
        }

"""Sends a trace through the public doors, as so many phones that registered like any other.

A client and nothing else: it knows the wire contract, not the server. A phone sends what is due,
waits for the answer and only then sends more; refused for its rate it waits as told; cut off it
comes back and sends again what was not acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from devices.lines import (
    ACK_WITHIN_S,
    BusyError,
    HttpLine,
    Line,
    LostError,
    Offer,
    RefusedError,
    SocketLine,
    Verdicts,
    ask,
)
from devices.traces import Trace, Track

PAUSE_S = 5.0  # between two laps of a loop, trace time
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
TRIES = 6  # of one batch that the server fails to answer; a lost connection is tried for ever
AT_ONCE = 64  # HTTP connections, registrations
LATENCIES_KEPT = 200_000

T = TypeVar("T")


class Over(StrEnum):
    HTTP = "http"
    WS = "ws"


class Stamp(StrEnum):
    """What `recorded_at` says."""

    LIVE = "live"  # the moment the fix is due, as if the phone were walking now
    SHIFTED = "shifted"  # the trace's own intervals, its last fix now
    RECORDED = "recorded"  # what the trace says


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to replay; `speed` is trace seconds per second, 0 as fast as the server answers."""

    base_url: str
    app_key: str
    over: Over = Over.HTTP
    speed: float = 1.0
    stamp: Stamp = Stamp.LIVE
    batch: int = 1
    loop: bool = False
    name: str = "replay"  # begins every installation id: the same name is the same phones again
    opens: float = 0.0  # share of offers that the person opens (socket only)


@dataclass(slots=True)
class Tally:
    """What happened so far."""

    phones: int = 0
    device_ids: set[int] = field(default_factory=set)
    sent: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    reconnected: int = 0
    offers: int = 0
    behind_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def took(self, seconds: float) -> None:
        """Keep a latency; past the limit a random sample of all."""
        if len(self.latencies_s) < LATENCIES_KEPT:
            self.latencies_s.append(seconds)
        else:
            self.latencies_s[random.randrange(LATENCIES_KEPT)] = seconds  # noqa: S311 - a sample

    def complain(self, what: str) -> None:
        """Count a failure."""
        self.failures[what] += 1

    def latency_ms(self, share: float) -> float:
        """The latency that this share of requests stayed below."""
        return float(np.quantile(self.latencies_s, share)) * 1000 if self.latencies_s else 0.0


def body_of(plan: Plan, name: str, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a phone registers with; `said` is what it says of itself beyond the plain case."""
    return {
        "installation_id": f"{plan.name}:{name}",
        "platform": "android",
        "push_token": f"{plan.name}-{name}",
        "consent": {"location": True, "marketing": True, "version": "replay"},
        **{key: value for key, value in (said or {}).items() if value is not None},
    }


def stamps(track: Track, trace: Trace, plan: Plan, *, start_ms: int) -> NDArray[np.int64]:
    """`recorded_at` of a track's fixes in a lap that began at `start_ms`, epoch milliseconds."""
    if plan.stamp is Stamp.RECORDED:
        return track.at_ms
    if plan.stamp is Stamp.SHIFTED:
        return track.at_ms + (start_ms - trace.end_ms)
    return start_ms + ((track.at_ms - trace.begin_ms) / plan.speed).astype(np.int64)


def dues(track: Track, trace: Trace, plan: Plan) -> NDArray[np.float64]:
    """Seconds after a lap's beginning at which each fix leaves: in the file's order, never back."""
    if plan.speed == 0:
        return np.zeros(len(track))
    return np.maximum.accumulate((track.at_ms - trace.begin_ms) / 1000 / plan.speed)


def items(track: Track, at_ms: NDArray[np.int64], part: slice) -> list[dict[str, Any]]:
    """Some fixes of a track as they go over the wire; what is unknown is left out."""
    fixes = [
        {"lat": lat, "lng": lng, "recorded_at": at}
        for lat, lng, at in zip(
            track.lat[part].tolist(), track.lng[part].tolist(), at_ms[part].tolist(), strict=True
        )
    ]
    for name, values in track.measures.items():
        for fix, value in zip(fixes, values[part].tolist(), strict=True):
            if not math.isnan(value):
                fix[name] = value
    return fixes


class Replay:
    """One trace under way; `tally` is true at any moment."""

    def __init__(
        self, trace: Trace, plan: Plan, said: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.trace, self.plan, self.said = trace, plan, said or {}
        self.tally = Tally()
        self.stop = asyncio.Event()
        self._open = asyncio.Event()  # all phones are registered: the first lap begins
        self._began, self._began_ms = 0.0, 0

    async def run(self) -> Tally:
        """Register all phones, then walk them all until the trace ends or `stop` is set."""
        async with self._client() as client:
            gate = asyncio.Semaphore(AT_ONCE)

            async def registered(track: Track) -> Line | None:
                async with gate:
                    return await self._register(client, track)

            lines = await asyncio.gather(*(registered(track) for track in self.trace.tracks))
            self.tally.began = time.monotonic()
            self._began, self._began_ms = time.monotonic(), int(time.time() * 1000)
            walks = [
                self._walk(line, track)
                for line, track in zip(lines, self.trace.tracks, strict=True)
                if line is not None
            ]
            await asyncio.gather(*walks)
        return self.tally

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        # A request may wait its turn for a connection: that is back-pressure, not a failure.
        timeout = httpx.Timeout(ACK_WITHIN_S, pool=None)
        async with httpx.AsyncClient(
            base_url=self.plan.base_url, limits=limits, timeout=timeout
        ) as client:
            yield client

    async def _register(self, client: httpx.AsyncClient, track: Track) -> Line | None:
        body = body_of(self.plan, track.name, self.said.get(track.name))
        headers = {"Authorization": f"Bearer {self.plan.app_key}"}

        async def once() -> dict[str, Any]:
            response = await ask(client, "POST", "/v1/devices", json=body, headers=headers)
            answer: dict[str, Any] = response.json()
            return answer

        answer = await self._insist(once)
        if answer is None:
            return None
        self.tally.phones += 1
        self.tally.device_ids.add(answer["device_id"])
        if self.plan.over is Over.HTTP:
            return HttpLine(client, answer["token"])
        url = self.plan.base_url.replace("http", "ws", 1) + "/v1/stream"
        return SocketLine(url, answer["token"], offered=self._offered, complain=self.tally.complain)

    def _offered(self, _offer: Offer) -> list[str]:
        """What the person does with an offer."""
        self.tally.offers += 1
        opens = random.random() < self.plan.opens  # noqa: S311 - a person's mood
        return ["received", "opened"] if opens else ["received"]

    async def _walk(self, line: Line, track: Track) -> None:
        due = dues(track, self.trace, self.plan)
        lap_s = (self.trace.end_ms - self.trace.begin_ms) / 1000 + PAUSE_S
        lap_s = lap_s / self.plan.speed if self.plan.speed else 0.0
        try:
            for lap in itertools.count():
                start_ms = self._began_ms + int(lap * lap_s * 1000)
                at_ms = stamps(track, self.trace, self.plan, start_ms=start_ms)
                await self._lap(line, track, at_ms, due + lap * lap_s)
                if not self.plan.loop or self.stop.is_set():
                    break
        finally:
            await line.close()

    async def _lap(
        self, line: Line, track: Track, at_ms: NDArray[np.int64], due: NDArray[np.float64]
    ) -> None:
        """Send one track once, in batches of what is due."""
        at = 0
        while at < len(track) and await self._until(due[at]):
            now = time.monotonic() - self._began
            if self.plan.speed:
                self.tally.behind_s = max(self.tally.behind_s, now - float(due[at]))
            ready = int(np.searchsorted(due, now, side="right"))
            part = slice(at, min(max(ready, at + 1), at + self.plan.batch))
            fixes = items(track, at_ms, part)

            async def once(fixes: list[dict[str, Any]] = fixes) -> Verdicts:
                began = time.monotonic()
                verdicts = await line.send(fixes)
                self.tally.took(time.monotonic() - began)
                return verdicts

            self.tally.sent += len(fixes)
            verdicts = await self._insist(once)
            if verdicts is not None:
                self.tally.accepted += verdicts.accepted
                self.tally.rejected.update(str(each["code"]) for each in verdicts.rejected)
            at = part.stop

    async def _until(self, due_s: float) -> bool:
        """Wait for a moment after the beginning; False where `stop` came first."""
        wait_s = due_s - (time.monotonic() - self._began)
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.stop.wait()
        return not self.stop.is_set()

    async def _insist(self, once: Callable[[], Awaitable[T]]) -> T | None:
        """The answer of `once`, tried again where that may help; None where it was given up."""
        wait_s, failures = FIRST_WAIT_S, 0
        while True:
            try:
                return await once()
            except RefusedError as refusal:
                self.tally.complain(str(refusal))
                return None
            except BusyError as busy:
                self.tally.throttled += 1
                pause_s = busy.after_s
            except LostError as loss:
                self.tally.reconnected += 1
                failures += 1
                if str(loss).startswith("HTTP") and failures >= TRIES:
                    self.tally.complain(str(loss))
                    return None
                pause_s = wait_s * random.uniform(0.5, 1.5)  # noqa: S311 - spreads the phones
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self.stop.wait()
            if self.stop.is_set():
                return None

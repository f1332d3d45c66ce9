"""How much one sender may ask of a process: a rate per device, patience with slow bodies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

DEVICES_REMEMBERED = 200_000
ITEMS_PER_UNIT = 500  # a backlog of thousands costs its device more than a single fix


class RateLimit:
    """A token bucket per device, kept as the one instant when it will be full again (GCRA).

    A bucket that is full by now is not kept, so memory is bounded by who sent within
    `burst / per_s` seconds.
    """

    __slots__ = ("_clock", "_full_at", "_interval_s", "_tolerance_s")

    def __init__(
        self, *, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = 1 / per_s
        self._tolerance_s = (burst - 1) / per_s
        self._clock = clock
        self._full_at: dict[int, float] = {}

    def wait_s(self, device_id: int, cost: float = 1.0) -> float:
        """Take `cost` from the device's bucket; 0, or the seconds to wait where it lacks them."""
        now = self._clock()
        full_at = self._full_at.get(device_id, 0.0)
        if full_at < now:
            full_at = now
        elif full_at - now > self._tolerance_s:
            return full_at - now - self._tolerance_s
        if len(self._full_at) >= DEVICES_REMEMBERED:
            self._drop_full(now)
        self._full_at[device_id] = full_at + cost * self._interval_s
        return 0.0

    def wait_for_items_s(self, device_id: int, items: int) -> float:
        """The same for what a request brought: few items are part of the request's own price."""
        return 0.0 if items <= ITEMS_PER_UNIT else self.wait_s(device_id, items / ITEMS_PER_UNIT)

    def _drop_full(self, now: float) -> None:
        self._full_at = {device: at for device, at in self._full_at.items() if at > now}
        if len(self._full_at) >= DEVICES_REMEMBERED:
            self._full_at = {}  # more senders than memory for them: lenient rather than large


class Patience:
    """Gives up on requests whose body does not come, with one sweep a second for all of them.

    A timer per request would cost more than the rest of its bookkeeping.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._reading: dict[asyncio.Task[object], float] = {}
        self._given_up: set[asyncio.Task[object]] = set()

    def begin(self) -> asyncio.Task[object]:
        """The running task starts to wait for its client."""
        task = asyncio.current_task()
        assert task is not None
        self._reading[task] = time.monotonic()
        return task

    def end(self, task: asyncio.Task[object]) -> None:
        """The client has delivered, or gone."""
        self._reading.pop(task, None)

    def gave_up(self, task: asyncio.Task[object]) -> bool:
        """Whether the task was cancelled by us; the cancellation is then taken back."""
        self._reading.pop(task, None)
        if task not in self._given_up:
            return False
        self._given_up.discard(task)
        task.uncancel()
        return True

    def sweep(self) -> None:
        """Cancel whoever has waited for longer than the limit."""
        oldest = time.monotonic() - self._limit_s
        for task, since in list(self._reading.items()):
            if since > oldest:
                break  # in order of beginning
            del self._reading[task]
            self._given_up.add(task)
            task.cancel()

    async def watch(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self._limit_s / 2))
            self.sweep()

"""Group commit for the doors: while one batch is in the database, the next one gathers.

There is no timer to wait for and no path for a single fix: an idle server takes a lone fix at
once, a busy one takes whatever has come since, as far as a transaction stays short: a request of
thousands may be taken in parts. One thread of the process talks to the database.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from django.conf import settings
from django.db import IntegrityError, InterfaceError, OperationalError, connection
from numpy.typing import NDArray

from devices.fixes import FixRow, assemble, bounds
from devices.ingest import ACCEPTED, ingest
from devices.memory import Memory
from devices.warming import warm
from geofences.armed import Armed

logger = logging.getLogger(__name__)

LONGEST_S = 0.25  # a transaction, if it goes like the one before: how long it may hold rows
MIN_BATCH, MAX_BATCH = 500, 20_000  # rows a transaction, whatever the pace
MAX_WAITING = 400_000  # fixes in memory before the door says "later"


class Overloaded(Exception):  # noqa: N818 - a state of the server, not a fault of the caller
    """Too much is waiting, or the database is away: nothing was taken, try again later."""


@dataclass(slots=True)
class _Waiting:
    rows: Sequence[Any]
    answer: asyncio.Future[list[int]]
    taken: int = 0  # rows that are in the database or on their way
    verdicts: list[int] = field(default_factory=list)

    def decided(self, verdicts: list[int] | BaseException) -> None:
        """Of one part; whoever asked hears of it with the last, or with the first that failed."""
        if self.answer.done():
            return  # the client is gone; its fixes are kept all the same
        if isinstance(verdicts, BaseException):
            self.answer.set_exception(verdicts)
            return
        self.verdicts += verdicts
        if self.taken == len(self.rows):
            self.answer.set_result(self.verdicts)

    @property
    def failed(self) -> bool:
        """Whether it was told to send everything again."""
        return self.answer.done() and not self.answer.cancelled()


class _Part(NamedTuple):
    """What one transaction takes of one request: mostly all of it."""

    of: _Waiting
    rows: Sequence[Any]


def now_ms() -> int:
    """The server's clock, read once a batch."""
    return time.time_ns() // 1_000_000


class GroupCommit(ABC):
    """Collects rows from many requests into batches, one transaction each."""

    def __init__(self, name: str) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._count = 0
        self._room = MIN_BATCH  # rows the next transaction may hold
        self._arrived = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    def attempt(self, rows: list[Any]) -> NDArray[np.int8]:
        """Take the rows in one transaction, on the thread; a verdict per row."""

    def start(self) -> None:
        """Begin taking batches, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Take what is waiting, then end: whoever was promised an answer gets it."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        # Looked up on the thread: Django keeps a connection for each.
        await asyncio.get_running_loop().run_in_executor(self._thread, lambda: connection.close())  # noqa: PLW0108
        self._thread.shutdown()

    def submit(self, rows: Sequence[Any]) -> asyncio.Future[list[int]]:
        """Verdicts per row once they are durable: ACCEPTED or an index into `list(RejectCode)`.

        Raises Overloaded, here or from the future.
        """
        if self._closing or self._count > MAX_WAITING:
            raise Overloaded
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(rows, answer))
        self._count += len(rows)
        self._arrived.set()
        return answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._take()
            if not batch:
                if self._closing:
                    return
                self._arrived.clear()
                continue
            began = time.monotonic()
            done = await loop.run_in_executor(self._thread, self._commit, batch)
            self._pace(sum(len(part.rows) for part in batch), time.monotonic() - began)
            for part, verdicts in done:
                part.of.decided(verdicts)

    def _pace(self, rows: int, took_s: float) -> None:
        self._room = min(max(int(rows * LONGEST_S / max(took_s, 1e-6)), MIN_BATCH), MAX_BATCH)

    def _take(self) -> list[_Part]:
        batch: list[_Part] = []
        room = self._room
        while self._waiting and room > 0:
            first = self._waiting[0]
            rows = first.rows[first.taken : first.taken + room]
            first.taken += len(rows)
            if first.failed:
                self._count -= len(first.rows) - first.taken
                first.taken = len(first.rows)
            else:
                batch.append(_Part(first, rows))
            if first.taken == len(first.rows):
                self._waiting.popleft()
            self._count -= len(rows)
            room -= len(rows)
        return batch

    def _commit(self, batch: list[_Part]) -> list[tuple[_Part, list[int] | BaseException]]:
        """On the thread: all together; halves where that fails, so that one cannot stop others."""
        try:
            rows = [row for part in batch for row in part.rows]
            # Here and at once, not on the event loop and part by part.
            verdicts = self._attempt_twice(rows).tolist()
        except (OperationalError, InterfaceError):
            logger.exception("the database is away: %d requests are told to try again", len(batch))
            connection.close()
            return [(part, Overloaded()) for part in batch]
        except Exception as error:
            if len(batch) == 1:
                logger.exception("a request could not be taken")
                return [(batch[0], error)]
            half = len(batch) // 2
            return self._commit(batch[:half]) + self._commit(batch[half:])
        ends = accumulate(len(part.rows) for part in batch)
        return [
            (part, verdicts[end - len(part.rows) : end])
            for part, end in zip(batch, ends, strict=True)
        ]

    def _attempt_twice(self, rows: list[Any]) -> NDArray[np.int8]:
        try:
            return self.attempt(rows)
        except IntegrityError:
            # A partition of the history was attached under a COPY that was already under way.
            return self.attempt(rows)
        except (OperationalError, InterfaceError):
            # A connection that died while idle: a new one, once.
            connection.close()
            return self.attempt(rows)


class Gatherer(GroupCommit):
    """Fixes (FixRow) of many requests; the implausible are told so without the database."""

    def __init__(self, armed: Callable[[], Armed]) -> None:
        super().__init__("ingest")
        warm()
        self._armed = armed
        self._memory = Memory(settings.STATES_IN_MEMORY)

    def attempt(self, rows: list[FixRow]) -> NDArray[np.int8]:
        """Bound-check the rows and ingest the plausible ones."""
        now = now_ms()
        fixes = assemble(rows)
        verdicts = bounds(fixes, now_ms=now)
        plausible = verdicts == ACCEPTED
        if plausible.any():
            taken = fixes if plausible.all() else fixes.compress(plausible)
            verdicts[plausible] = ingest(
                taken, now_ms=now, armed=self._armed(), memory=self._memory
            )
        return verdicts

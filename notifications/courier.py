"""Who carries pushes to a provider: a sender on a thread and an event loop of its own.

What is carried, and what comes of it, is `notifications.delivering`'s business.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

import uvloop

from notifications.push import Outcome, Push, Sender


class Post(Protocol):
    """Takes pushes to a provider, somewhere else."""

    def send(self, pushes: Sequence[Push]) -> Future[list[Outcome]]: ...


class Courier:
    """Runs one `Sender` on a thread and an event loop of its own."""

    def __init__(self, make_sender: Callable[[], Sender]) -> None:
        self._make_sender = make_sender
        self._ready: Future[tuple[Sender, asyncio.AbstractEventLoop]] = Future()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def __enter__(self) -> Courier:
        self._thread.start()
        self._ready.result()
        return self

    def send(self, pushes: Sequence[Push]) -> Future[list[Outcome]]:
        sender, loop = self._ready.result()
        return asyncio.run_coroutine_threadsafe(_send(sender, pushes), loop)

    def __exit__(self, *_raised: object) -> None:
        loop = self._ready.result()[1]
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            loop = runner.get_loop()
            try:
                sender = self._make_sender()
            except BaseException as error:  # noqa: BLE001 - raised where the courier was called
                self._ready.set_exception(error)
                return
            self._ready.set_result((sender, loop))
            loop.run_forever()
            runner.run(sender.close())


async def _send(sender: Sender, pushes: Sequence[Push]) -> list[Outcome]:
    return await sender.send(pushes)

"""Orders given on many threads at once, each with a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import OperationalError, connection, connections
from django.utils.timezone import now

from campaigns.evaluation import evaluate_once

EVALUATORS = 40


def together(count: int, order: Callable[[], None]) -> None:
    """Run an order on so many threads with a connection each, all at the same time."""
    ready = threading.Barrier(count)
    errors: list[Exception] = []

    def work() -> None:
        try:
            connect()
            ready.wait(60)
            order()
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "some of them never ended"
    assert not errors


def connect() -> None:
    """Wait for a place: the server may be shared with others."""
    until = now() + timedelta(seconds=30)
    while True:
        try:
            connection.ensure_connection()
        except OperationalError:
            if now() > until:
                raise
        else:
            return


def evaluate_all(at: datetime | None = None) -> None:
    """One row at a time, so that every evaluator meets every other."""
    while evaluate_once(now=at or now(), limit=1):
        pass

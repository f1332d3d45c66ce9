"""Work of others that is known to wait for a row or a table which this connection holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection, connections

from tests.processes import until

LIMIT_S = 60.0


def somebody_waits_for_us() -> bool:
    """Whether another connection wants what this one has locked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks"
            " WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        )
        return bool(cursor.fetchone()[0])


class Late:
    """An order on a thread of its own that is known to wait for this connection's commit."""

    def __init__(self, order: Callable[[], Any]) -> None:
        self._answers: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(order,))
        self._thread.start()
        until(self._waits, "an order that waits for us", within_s=LIMIT_S)

    def _waits(self) -> bool:
        assert self._thread.is_alive(), "it waited for nobody"
        return somebody_waits_for_us()

    def answer(self) -> Any:
        """What it answered once it could; an order that failed has none."""
        self._thread.join(LIMIT_S)
        (found,) = self._answers
        return found

    def _run(self, order: Callable[[], Any]) -> None:
        try:
            self._answers.append(order())
        finally:
            connections.close_all()

"""One LISTEN connection for a process's event loop. It wakes others up and reads no row.

A NOTIFY is only ever a hint: on every (re)connection, and every `LOOK_AGAIN_S`, `look_again` is
called as well, so that a lost one delays and loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection
from psycopg import sql

logger = logging.getLogger(__name__)

RECONNECT_S = 1.0


class Listener:
    """Calls `channels[name](payload)` for each NOTIFY, on the running loop."""

    def __init__(
        self, channels: Mapping[str, Callable[[str], None]], *, look_again: Callable[[], None]
    ) -> None:
        self._channels = channels
        self._look_again = look_again

    async def run(self) -> None:
        """Listen until cancelled; survives a database that goes and comes."""
        while True:
            try:
                await self._listen()
            except psycopg.Error as error:
                logger.warning("the listener lost the database, trying again: %s", error)
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        async with await psycopg.AsyncConnection.connect(**_parameters(), autocommit=True) as raw:
            for name in self._channels:
                await raw.execute(sql.SQL("LISTEN {}").format(sql.Identifier(name)))
            while True:
                self._look_again()
                async for notify in raw.notifies(timeout=settings.LOOK_AGAIN_S):
                    try:
                        self._channels[notify.channel](notify.payload)
                    except Exception:
                        # One strange payload must not make the process deaf.
                        logger.exception("a notification on %s was not understood", notify.channel)


def _parameters() -> dict[str, Any]:
    """Django's own connection parameters, without what only its wrapper understands."""
    given: dict[str, Any] = connection.get_connection_params()
    return {
        name: value
        for name, value in given.items()
        if name in {"dbname", "user", "password", "host", "port", "sslmode", "sslrootcert"}
    }

"""Keeps this process's matching index equal to the armed rows; it matches nothing itself.

`Armed` is an immutable snapshot that a batch holds for its whole transaction; `follow` swaps in a
newer one within a second of a commit (NOTIFY), without stopping traffic.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.db import connection
from psycopg.abc import PQGen
from psycopg.generators import copy_from
from psycopg.pq.abc import PGconn

from geofences import copied
from geofences.copied import Dwells
from geofences.matching import Columns, Index
from geofences.warming import warm

logger = logging.getLogger(__name__)

CHANNEL = "nearcast_geofences"
SAFETY_LOOK_S = 2.0  # a lost NOTIFY, a start or an end that comes by the clock
PORTION = 128  # rows of a cold start taken apart at once: they stay in the cache
COMPACT_AT = 5_000  # changes kept beside the base index before it is built anew

_ARMED = """
    g.retired_at IS NULL
    AND (g.track_visits OR g.armed_until > now())
    AND (g.starts_at IS NULL OR g.starts_at <= now())
    AND (g.ends_at IS NULL OR g.ends_at > now())
"""
# Serves a refresh: what was written since the horizon, and what the clock has armed or disarmed.
# A mark from the future is of another cluster, whose backup this one was restored from. Our
# own transaction's, where it has written itself, may lie beyond the snapshot.
_CHANGED = """
    (g.changed_xid >= %(horizon)s
     AND g.changed_xid <= greatest(pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                                   pg_current_xact_id_if_assigned()::text::bigint)
     OR g.starts_at BETWEEN %(since)s AND now()
     OR g.ends_at BETWEEN %(since)s AND now()
     OR g.armed_until BETWEEN %(since)s AND now())
"""
_TOUCHED = f"SELECT g.id FROM geofences_geofence g WHERE {_CHANGED}"  # noqa: S608 - constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Armed:
    """The index at one moment, and where the next refresh takes up."""

    index: Index
    dwells: Dwells  # thresholds in seconds of those geofences that have any
    horizon: int  # transactions at or above it may be missing
    since: Any  # database time of the snapshot
    at: float = field(default_factory=time.monotonic)


def _portions(
    where: str, parameters: Sequence[Any] = (), *, at_once: float = math.inf
) -> Iterator[tuple[Columns, Dwells]]:
    """Geofences, so many at a time or all; the last portion may be empty.

    By COPY: a row costs a tenth of what it costs as the answer to a query, and PostgreSQL reads the
    next ones while these are put away.
    """
    connection.ensure_connection()
    raw: psycopg.Connection[Any] = connection.connection
    statement = f"COPY ({copied.SELECT} WHERE {where}) TO STDOUT (FORMAT binary)".encode()
    with (
        connection.wrap_database_errors,
        psycopg.Cursor(raw) as cursor,
        cursor.copy(statement, parameters),
    ):
        full = True
        while full:
            messages = raw.wait(_messages(raw.pgconn, at_once))
            full = len(messages) == at_once
            yield copied.taken_apart(messages)


def _messages(pgconn: PGconn, count: float) -> PQGen[list[memoryview]]:
    """The next of a COPY, so many; fewer at its end.

    To be waited for together: what psycopg does about each one takes longer than to receive it.
    """
    messages: list[memoryview] = []
    while len(messages) < count:
        message = yield from copy_from(pgconn)
        if not isinstance(message, memoryview):
            break
        messages.append(message)
    return messages


def _some(where: str, parameters: Sequence[Any]) -> tuple[Columns, Dwells]:
    """A few, in one portion."""
    some, *_ = _portions(where, parameters)
    return some


def _horizon(cursor: Any) -> tuple[int, Any]:
    """Read before the rows: what commits in between is read twice rather than never."""
    cursor.execute(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, clock_timestamp()"
    )
    horizon, since = cursor.fetchone()
    return horizon, since


def load() -> Armed:
    """Everything that is armed now: a cold start."""
    warm()
    with connection.cursor() as cursor:
        horizon, since = _horizon(cursor)
    dwells: Dwells = {}

    def portions() -> Iterator[Columns]:
        for columns, thresholds in _portions(_ARMED, at_once=PORTION):
            dwells.update(thresholds)
            yield columns

    return Armed(index=Index.build(portions()), dwells=dwells, horizon=horizon, since=since)


def index_of(geofence_ids: Sequence[int]) -> Index:
    """An index over these geofences, armed or not, as if they always had been: for backtests."""
    columns, _ = _some("g.id = ANY(%s)", (list(geofence_ids),))
    columns.settings["armed_ms"][:] = 0
    return Index.build([columns])


def refreshed(armed: Armed) -> Armed:
    """`armed` with what has changed since; the same index where nothing has."""
    with connection.cursor() as cursor:
        horizon, since = _horizon(cursor)
        bounds = {"horizon": armed.horizon, "since": armed.since}
        cursor.execute(_TOUCHED, bounds)
        touched = [row[0] for row in cursor.fetchall()]
    if not touched:
        return Armed(index=armed.index, dwells=armed.dwells, horizon=horizon, since=since)
    added, added_dwells = _some(f"g.id = ANY(%s) AND {_ARMED}", (touched,))
    gone = set(touched)
    dwells = {key: value for key, value in armed.dwells.items() if key not in gone}
    return Armed(
        index=armed.index.updated(removed=touched, added=added),
        dwells=dwells | added_dwells,
        horizon=horizon,
        since=since,
    )


class Follower:
    """Holds the current snapshot of one process and keeps it fresh on a thread of its own."""

    def __init__(self) -> None:
        self._armed: Armed | None = None
        self._loading = threading.Lock()

    def current(self) -> Armed:
        """The newest snapshot; the first call of a process loads it."""
        if self._armed is None:
            with self._loading:
                if self._armed is None:
                    self._armed = load()
        return self._armed

    @property
    def is_loaded(self) -> bool:
        """Whether there is a snapshot to match against already."""
        return self._armed is not None

    def refresh(self) -> Armed:
        """Look at the rows now; for the follower's thread, and for tests."""
        with self._loading:
            self._armed = load() if self._armed is None else refreshed(self._armed)
            if self._armed.index.overlay > COMPACT_AT:
                self._armed = Armed(
                    index=self._armed.index.compacted(),
                    dwells=self._armed.dwells,
                    horizon=self._armed.horizon,
                    since=self._armed.since,
                )
        return self._armed

    def forget(self) -> None:
        """Drop the snapshot: the next `current` loads anew (tests, a changed database)."""
        self._armed = None

    def follow(
        self, stop: threading.Event, *, changed: Callable[[Armed], None] | None = None
    ) -> None:
        """Refresh on every NOTIFY and every few seconds until `stop`; survives a lost database."""
        while not stop.is_set():
            try:
                self._listen(stop, changed)
            except Exception:
                logger.exception("index follower lost the database; trying again")
                connection.close()
                stop.wait(1.0)
        connection.close()

    def _listen(self, stop: threading.Event, changed: Callable[[Armed], None] | None) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        raw: Any = connection.connection
        while not stop.is_set():
            armed = self.refresh()
            if changed is not None:
                changed(armed)
            # Any number of changes is one refresh. Not `select`: a NOTIFY that came with the
            # answer to a statement is no longer in the socket.
            list(raw.notifies(timeout=SAFETY_LOOK_S, stop_after=1))


follower = Follower()

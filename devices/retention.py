"""How long fixes, transitions and events are kept.

The history's partitions are made a few days ahead, and dropped when the retention is over. What
they are locked for waits behind whoever reads the history, and holds up whoever comes after: each
is a short transaction of its own that gives up, as the next look is soon enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction

DAYS_AHEAD = 3
_NAME = re.compile(r"^devices_fix_(\d{4})(\d{2})(\d{2})$")
# As in migration 0009: what is written all day needs neither statistics nor a vacuum every 15 s.
_UPKEEP = "autovacuum_vacuum_insert_scale_factor = 1, autovacuum_analyze_scale_factor = 1"
_LOCK = 7_205_001  # any number, the same in every process: one keeper at a time
PATIENCE = "2s"  # of a partition's lock
AT_ONCE = 5_000  # rows of one short transaction
# Ids ascend with time: a statement that finds the first row young enough is done.
_FORGET = """
    DELETE FROM {table} WHERE id IN (
      SELECT id FROM (SELECT id, {at}, processed_at FROM {table} ORDER BY id LIMIT %s) oldest
       WHERE {at} < %s AND processed_at IS NOT NULL)
"""
_ACTIVITY = (("devices_transition", "recorded_at"), ("devices_event", "received_at"))


def keep(*, now: datetime) -> None:
    """Make the partitions of today and the next days, drop those past FIX_RETENTION_DAYS."""
    today = now.astimezone(UTC).date()
    oldest = today - timedelta(days=settings.FIX_RETENTION_DAYS)
    wanted = [today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)]
    for day in wanted:
        with _alone() as existing:
            if day not in existing:
                _make(day)
    for day in sorted(partitions()):
        if day < oldest:
            with _alone() as existing, connection.cursor() as cursor:
                if day in existing:
                    cursor.execute(f'DROP TABLE "{_table(day)}"')
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM devices_fix_default WHERE received_at < %s", (oldest,))


@contextmanager
def _alone() -> Iterator[set[date]]:
    """A transaction of one keeper at a time, with the partitions there are."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{PATIENCE}'")
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        yield partitions()


def forget(*, now: datetime) -> int:
    """Delete transitions and events past ACTIVITY_RETENTION_DAYS, up to AT_ONCE each; how many."""
    oldest = now - timedelta(days=settings.ACTIVITY_RETENTION_DAYS)
    forgotten = 0
    with connection.cursor() as cursor:
        for table, at in _ACTIVITY:
            cursor.execute(_FORGET.format(table=table, at=at), (AT_ONCE, oldest))
            forgotten += cursor.rowcount
    return forgotten


def partitions() -> set[date]:
    """The days that have a partition of their own."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'devices_fix'::regclass"
        )
        names = [_NAME.match(row[0]) for row in cursor.fetchall()]
    return {date(*map(int, match.groups())) for match in names if match}


def _table(day: date) -> str:
    return f"devices_fix_{day:%Y%m%d}"


def _make(day: date) -> None:
    """What the default partition caught of that day moves along."""
    name, bounds = _table(day), (day, day + timedelta(days=1))
    with connection.cursor() as cursor:
        # A fix that lands there after the move would keep the partition from being attached.
        cursor.execute("LOCK TABLE devices_fix_default IN ACCESS EXCLUSIVE MODE")
        cursor.execute(
            f'CREATE TABLE "{name}" (LIKE devices_fix INCLUDING DEFAULTS) WITH ({_UPKEEP})'
        )
        cursor.execute(
            "WITH moved AS (DELETE FROM devices_fix_default"  # noqa: S608 - made of a date
            " WHERE received_at >= %s AND received_at < %s RETURNING *)"
            f' INSERT INTO "{name}" SELECT * FROM moved',
            bounds,
        )
        cursor.execute(
            f'ALTER TABLE devices_fix ATTACH PARTITION "{name}" FOR VALUES FROM (%s) TO (%s)',
            bounds,
        )

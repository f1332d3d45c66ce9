"""The history's partitions: one a day made ahead, dropped when the retention is over."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction

DAYS_AHEAD = 3
_NAME = re.compile(r"^devices_fix_(\d{4})(\d{2})(\d{2})$")
# As in migration 0009: what is written all day needs neither statistics nor a vacuum every 15 s.
_UPKEEP = "autovacuum_vacuum_insert_scale_factor = 1, autovacuum_analyze_scale_factor = 1"
_LOCK = 7_205_001  # any number, the same in every process: one keeper at a time


def keep(*, now: datetime) -> None:
    """Make the partitions of today and the next days, drop those past FIX_RETENTION_DAYS."""
    today = now.astimezone(UTC).date()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        existing = partitions()
        for ahead in range(DAYS_AHEAD + 1):
            day = today + timedelta(days=ahead)
            if day not in existing:
                _make(day)
        oldest = today - timedelta(days=settings.FIX_RETENTION_DAYS)
        for day in existing:
            if day < oldest:
                cursor.execute(f'DROP TABLE "{_table(day)}"')
        cursor.execute("DELETE FROM devices_fix_default WHERE received_at < %s", (oldest,))


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

"""Forgets decisions that are older than the retention keeps, a little at a time. It judges nothing.

Ids ascend with time, so the oldest are at the beginning of the primary key: no index is needed, and
a statement that finds the first row young enough is done.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

AT_ONCE = 5_000  # rows of one short transaction

# A delivery is a snapshot and may outlive the decision it names. What was held out on purpose goes
# with its campaign's other decisions, so that both groups are as old.
_FORGET = """
    DELETE FROM campaigns_decision WHERE id IN (
      SELECT id FROM (SELECT id, decided_at FROM campaigns_decision ORDER BY id LIMIT %s) oldest
       WHERE decided_at < %s)
"""


def forget(*, now: datetime) -> int:
    """Delete up to AT_ONCE decisions past DECISION_RETENTION_DAYS; how many."""
    oldest = now - timedelta(days=settings.DECISION_RETENTION_DAYS)
    with connection.cursor() as cursor:
        cursor.execute(_FORGET, (AT_ONCE, oldest))
        forgotten: int = cursor.rowcount
    return forgotten

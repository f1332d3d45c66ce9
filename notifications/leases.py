"""What is being sent: deliveries claimed for a while, and what became of them. It sends nothing.

Whoever holds the lease writes; one that ran out means that its worker died, and the row is due
again. A claim is one statement for any number of rows, a record a handful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from notifications.models import DeliveryState
from notifications.outbox import (
    MAX_ERROR_CHARS,
    MAX_REASON_CHARS,
    Withheld,
    announce,
    clean,
    say_unsent,
    say_withheld,
)

MAX_MESSAGE_ID_CHARS = 200  # length of the column; see those of `outbox`

# What will not be sent any more, unless somebody asks for it again.
UNSENT = frozenset(
    {
        DeliveryState.FAILED,
        DeliveryState.EXPIRED,
        DeliveryState.SUPPRESSED,
        DeliveryState.CANCELLED,
        DeliveryState.PARKED,
    }
)

# A lease that ran out means that its worker died between claim and record: it is due again.
_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT id FROM notifications_delivery
         WHERE state IN ('pending', 'sending') AND due_at <= %(now)s
           AND (state = 'pending' OR lease_until <= %(now)s)
         ORDER BY due_at, id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE notifications_delivery d
       SET state = 'sending', lease_until = %(lease_until)s, attempt_count = d.attempt_count + 1
      FROM due WHERE d.id = due.id
    RETURNING d.id, d.brand_id, d.device_id, d.campaign_id, d.moment_kind, d.geofence_id,
              d.transactional, d.content::text, d.gates::text, d.created_at, d.due_at,
              d.expires_at, d.lease_until, d.attempt_count
"""

# In id order, as everywhere: two workers that settle the same rows must not wait in a ring.
_LOCK = "SELECT id FROM notifications_delivery WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
# Whoever holds the lease writes. A worker whose lease ran out may still say `sent`: that is true
# whoever has the row now, and spares the device a repeat.
_SETTLE = """
    UPDATE notifications_delivery d
       SET state = v.state, reason = v.reason, due_at = coalesce(v.due_at, d.due_at),
           sent_at = coalesce(v.sent_at, d.sent_at), channel = coalesce(v.channel, d.channel),
           attempt_count = d.attempt_count - v.given_back, lease_until = NULL
      FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[], %s::text[], %s::timestamptz[],
                  %s::timestamptz[], %s::text[], %s::int[])
        AS v (id, lease_until, state, reason, due_at, sent_at, channel, given_back)
     WHERE d.id = v.id
       AND (d.state = 'sending' AND d.lease_until = v.lease_until
            OR v.state = 'sent' AND d.state IN ('pending', 'sending'))
    RETURNING d.id
"""
# Joined, because the device may have been erased while its push was in the air.
_ATTEMPTS = """
    INSERT INTO notifications_attempt
        (delivery_id, at, outcome, error, provider_message_id, latency_ms)
    SELECT d.id, v.at, v.outcome, v.error, v.message_id, v.latency_ms
      FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::int[])
        AS v (id, at, outcome, error, message_id, latency_ms)
      JOIN notifications_delivery d ON d.id = v.id
"""
_THERE = "SELECT id FROM notifications_delivery WHERE id = ANY(%s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A delivery under our lease. `content` and `gates` are still JSON: a bad one fails alone."""

    id: int
    brand_id: int
    device_id: int
    campaign_id: int
    moment_kind: str
    geofence_id: int | None
    transactional: bool
    content: str
    gates: str
    created_at: datetime
    due_at: datetime
    expires_at: datetime
    lease_until: datetime
    attempt_count: int  # this one included

    @property
    def was_held(self) -> bool:
        """Whether its device heard nothing of it before it was sent."""
        hidden = '"shown_when_sent":true' in self.gates.replace(" ", "")
        return hidden or (self.attempt_count == 1 and self.due_at > self.created_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What the provider said; becomes an Attempt."""

    at: datetime
    outcome: str
    error: str = ""
    message_id: str = ""
    latency_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a claimed delivery becomes. Without `tried`, its claim does not count as an attempt."""

    claimed: Claimed
    state: DeliveryState
    reason: str = ""
    due_at: datetime | None = None
    sent_at: datetime | None = None
    channel: str | None = None
    tried: Tried | None = None
    withheld: Withheld | None = None


def claim(*, limit: int, lease_s: float, now: datetime) -> list[Claimed]:
    """Take up to `limit` due deliveries for `lease_s`; no other claim gets them meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute(
            _CLAIM, {"now": now, "limit": limit, "lease_until": now + timedelta(seconds=lease_s)}
        )
        names = [column.name for column in cursor.description]
        claimed = [Claimed(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]
    return sorted(claimed, key=lambda one: (one.due_at, one.id))


def record(results: Sequence[Result]) -> None:
    """Write what became of claimed deliveries, and their attempts, in one transaction."""
    if not results:
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_LOCK, ([result.claimed.id for result in results],))
        settled = _settle(cursor, results)
        _keep_attempts(cursor, results)
        say_unsent(_unsent(cursor, results, settled))
        ours = [result for result in results if result.claimed.id in settled]
        say_withheld([result.withheld for result in ours if result.withheld is not None])
        announce(
            result.claimed.device_id
            for result in ours
            if result.state is DeliveryState.SENT and result.claimed.was_held
        )


def _settle(cursor: CursorWrapper, results: Sequence[Result]) -> set[int]:
    """Write the states; the ids of those that were ours to write."""
    cursor.execute(
        _SETTLE,
        [
            [result.claimed.id for result in results],
            [result.claimed.lease_until for result in results],
            [result.state.value for result in results],
            [clean(result.reason, MAX_REASON_CHARS) for result in results],
            [result.due_at for result in results],
            [result.sent_at for result in results],
            [result.channel for result in results],
            [0 if result.tried else 1 for result in results],
        ],
    )
    return {row[0] for row in cursor.fetchall()}


def _keep_attempts(cursor: CursorWrapper, results: Sequence[Result]) -> None:
    tried = [(result.claimed.id, result.tried) for result in results if result.tried]
    if not tried:
        return
    cursor.execute(
        _ATTEMPTS,
        [
            [delivery_id for delivery_id, _ in tried],
            [one.at for _, one in tried],
            [one.outcome for _, one in tried],
            [clean(one.error, MAX_ERROR_CHARS) for _, one in tried],
            [clean(one.message_id, MAX_MESSAGE_ID_CHARS) for _, one in tried],
            [one.latency_ms for _, one in tried],
        ],
    )


def _unsent(cursor: CursorWrapper, results: Sequence[Result], settled: set[int]) -> list[int]:
    """Those that will not be sent and whose end nobody else has to say."""
    unsent = {result.claimed.id for result in results if result.state in UNSENT}
    lost = list(unsent - settled)
    if lost:
        # Another has the lease and will say so, unless the device was erased meanwhile.
        cursor.execute(_THERE, (lost,))
        unsent -= {row[0] for row in cursor.fetchall()}
    return [result.claimed.id for result in results if result.claimed.id in unsent]

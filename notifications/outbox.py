"""What is owed to devices: enqueue, claim, record, cancel, resend. The only writer of its tables.

It sends nothing (`notifications.delivering` does) and decides nothing (`gates`, `retries` do).
Every order is a few statements for any number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from django.db import connection, transaction

from notifications.arrays import array
from notifications.gates import Gates
from notifications.models import (
    DeliveryAction,
    DeliveryActionLog,
    DeliveryState,
    FeedbackEvent,
)
from notifications.push import Content

# pg_notify takes less than 8,000 bytes.
MAX_NOTIFY_BYTES = 7_900
# Lengths of the columns: what is longer is cut, so that no answer of a provider stops a batch.
MAX_REASON_CHARS = 200
MAX_ERROR_CHARS = 400
MAX_MESSAGE_ID_CHARS = 200

CANCELLED = "cancelled_by_support"

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

_ENQUEUE = """
    INSERT INTO notifications_delivery (
        brand_id, device_id, person, campaign_id, campaign_name, campaign_version, variant,
        decision_id, moment_kind, moment_id, geofence_id, key, channel, transactional, content,
        gates, state, reason, priority, created_at, due_at, expires_at, attempt_count)
    SELECT brand_id, device_id, person, campaign_id, campaign_name, campaign_version, variant,
           decision_id, moment_kind, moment_id, geofence_id, key, channel, transactional,
           content::jsonb, gates::jsonb, state, reason, priority, coalesce(created_at, now()),
           due_at, expires_at, 0
      FROM unnest(
        %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::text[], %s::int[], %s::text[],
        %s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::bool[],
        %s::text[], %s::text[], %s::text[], %s::text[], %s::smallint[], %s::timestamptz[],
        %s::timestamptz[], %s::timestamptz[])
      AS row (
        brand_id, device_id, person, campaign_id, campaign_name, campaign_version, variant,
        decision_id, moment_kind, moment_id, geofence_id, key, channel, transactional, content,
        gates, state, reason, priority, created_at, due_at, expires_at)
    ON CONFLICT (device_id, key) DO NOTHING
    RETURNING id, device_id, key, state = 'pending' AND due_at <= created_at
              AND gates ->> 'shown_when_sent' IS DISTINCT FROM 'true'
"""
_ANNOUNCE = "SELECT pg_notify('nearcast_offers', payload) FROM unnest(%s::text[]) AS payload"
_WAKE = "SELECT pg_notify('nearcast_deliveries', '')"

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
    RETURNING d.id, d.brand_id, d.device_id, d.campaign_id, d.moment_kind, d.transactional,
              d.content::text, d.gates::text, d.created_at, d.due_at, d.expires_at, d.lease_until,
              d.attempt_count
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

_CANCEL = """
    UPDATE notifications_delivery SET state = 'cancelled', reason = 'cancelled by support'
     WHERE id = %s AND state = 'pending' RETURNING id
"""
# What is being sent now settles itself, when its worker records it (see `record`).
_LOCK_OF_DEVICE = """
    SELECT id, state = 'pending' FROM notifications_delivery
     WHERE device_id = %s ORDER BY id FOR UPDATE
"""
_WITHDRAW = "UPDATE notifications_delivery SET state = 'cancelled' WHERE id = ANY(%s)"
_THERE = "SELECT id FROM notifications_delivery WHERE id = ANY(%s)"
# What had an end gets as long again from now; the id stays, so that the app drops what it showed.
_RESEND = """
    UPDATE notifications_delivery
       SET state = 'pending', reason = '', due_at = %(now)s, attempt_count = 0, sent_at = NULL,
           channel = 'push',
           expires_at = greatest(expires_at, %(now)s + (expires_at - created_at))
     WHERE id = %(id)s AND state NOT IN ('pending', 'sending') RETURNING device_id
"""
_FEEDBACK = """
    WITH known AS (
        SELECT v.ordinal, d.id, v.event, v.occurred_at
          FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::timestamptz[])
               WITH ORDINALITY AS v (id, device_id, event, occurred_at, ordinal)
          JOIN notifications_delivery d ON d.id = v.id AND d.device_id = v.device_id),
    kept AS (
        INSERT INTO notifications_feedback (delivery_id, event, occurred_at, received_at)
        SELECT id, event, occurred_at, %s FROM known ON CONFLICT (delivery_id, event) DO NOTHING)
    SELECT ordinal FROM known
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """One offer that a decision owes to a device. `key` is unique per device: a repeat is none."""

    brand_id: int
    device_id: int
    person: str
    campaign_id: int
    campaign_name: str
    campaign_version: int
    moment_kind: str
    key: str
    content: dict[str, Any]
    due_at: datetime
    expires_at: datetime
    variant: str = ""
    decision_id: int | None = None
    moment_id: int | None = None
    geofence_id: int | None = None
    channel: str = "push"
    transactional: bool = False
    gates: dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    created_at: datetime | None = None  # None: the transaction's own time


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A delivery under our lease. `content` and `gates` are still JSON: a bad one fails alone."""

    id: int
    brand_id: int
    device_id: int
    campaign_id: int
    moment_kind: str
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
class Withheld:
    """Why an offer that was owed does not go out, and the values that were seen."""

    delivery_id: int
    reason: str
    seen: Mapping[str, Any] = field(default_factory=dict)
    at: datetime


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


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFeedback:
    """What an app reports; `device_id` is who reports it."""

    delivery_id: int
    device_id: int
    event: FeedbackEvent
    occurred_at: datetime


TakeBack = Callable[[Sequence[int]], None]
"""Told, in the same transaction, which deliveries will not be sent."""

Tell = Callable[[Sequence[Withheld]], None]
"""Told, in the same transaction, why offers do not go out."""

_take_back: list[TakeBack] = []
_tell: list[Tell] = []


def on_unsent(order: TakeBack) -> None:
    """Let an app above take back what an unsent offer cost; called once, when the app is ready."""
    _take_back.append(order)


def on_withheld(order: Tell) -> None:
    """Let an app above keep why an offer does not go out; called once, when the app is ready."""
    _tell.append(order)


def _told(withheld: Sequence[Withheld]) -> None:
    if withheld:
        for order in _tell:
            order(withheld)


def _unsent(delivery_ids: Sequence[int]) -> None:
    if delivery_ids:
        for order in _take_back:
            order(delivery_ids)


def enqueue(rows: Sequence[NewDelivery]) -> list[int | None]:
    """Write deliveries in the caller's transaction; None where the device had the key already.

    A row whose content or gates are malformed is written as parked. What is due now is announced,
    at commit, to the workers and to the devices with an open socket.
    """
    if not rows:
        return []
    problems = [_problem(row) for row in rows]
    states = [DeliveryState.PARKED if problem else DeliveryState.PENDING for problem in problems]
    columns: list[list[Any]] = [
        [row.brand_id for row in rows],
        [row.device_id for row in rows],
        [row.person for row in rows],
        [row.campaign_id for row in rows],
        [row.campaign_name for row in rows],
        [row.campaign_version for row in rows],
        [row.variant for row in rows],
        [row.decision_id for row in rows],
        [row.moment_kind for row in rows],
        [row.moment_id for row in rows],
        [row.geofence_id for row in rows],
        [row.key for row in rows],
        [row.channel for row in rows],
        [row.transactional for row in rows],
        [_json(row.content) for row in rows],
        [_json(row.gates) for row in rows],
        [state.value for state in states],
        problems,
        [row.priority for row in rows],
        [row.created_at for row in rows],
        [row.due_at for row in rows],
        [row.expires_at for row in rows],
    ]
    with connection.cursor() as cursor:
        cursor.execute(_ENQUEUE, [array(column) for column in columns])
        written = cursor.fetchall()
    announce(device_id for _, device_id, _, due in written if due)
    if written:
        wake()
    ids = {(device_id, key): delivery_id for delivery_id, device_id, key, _ in written}
    # Taken out as they are given: of two rows with one key in one call, the first is the one.
    return [ids.pop((row.device_id, row.key), None) for row in rows]


def _problem(row: NewDelivery) -> str:
    """Return what is wrong with a row's JSON, or nothing."""
    try:
        msgspec.convert(row.content, Content)
        msgspec.convert(row.gates, Gates)
    except msgspec.ValidationError as error:
        return clean(str(error), MAX_REASON_CHARS)
    return ""


def announce(device_ids: Iterable[int]) -> None:
    """Tell the web processes, at commit, whose open sockets have an offer to show."""
    payloads = list(_payloads(sorted(set(device_ids))))
    if payloads:
        with connection.cursor() as cursor:
            cursor.execute(_ANNOUNCE, (payloads,))


def _payloads(device_ids: Iterable[int]) -> Iterator[str]:
    """Yield comma-separated ids in as few notifications as their limit allows."""
    payload = ""
    for device_id in device_ids:
        longer = f"{payload},{device_id}" if payload else str(device_id)
        if len(longer) > MAX_NOTIFY_BYTES:
            yield payload
            longer = str(device_id)
        payload = longer
    if payload:
        yield payload


def wake() -> None:
    """Tell the workers, at commit, that something is due."""
    with connection.cursor() as cursor:
        cursor.execute(_WAKE)


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
    tried = [(result.claimed.id, result.tried) for result in results if result.tried]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_LOCK, ([result.claimed.id for result in results],))
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
        settled = {row[0] for row in cursor.fetchall()}
        if tried:
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
        unsent = {result.claimed.id for result in results if result.state in UNSENT}
        lost = list(unsent - settled)
        if lost:
            # Another has the lease and will say so, unless the device was erased meanwhile.
            cursor.execute(_THERE, (lost,))
            unsent -= {row[0] for row in cursor.fetchall()}
        _unsent([result.claimed.id for result in results if result.claimed.id in unsent])
        _told(
            [
                result.withheld
                for result in results
                if result.withheld is not None and result.claimed.id in settled
            ]
        )
        announce(
            result.claimed.device_id
            for result in results
            if result.state is DeliveryState.SENT
            and result.claimed.was_held
            and result.claimed.id in settled
        )


def clean(text: str, most_chars: int) -> str:
    """Return text that PostgreSQL takes: no NUL, no half of a surrogate pair, not too long."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:most_chars]


def _json(value: object) -> str:
    # \u0000 is JSON, but no jsonb: without it the row can at least be parked and shown.
    return msgspec.json.encode(value).decode().replace("\\u0000", "")


def cancel(delivery_id: int, *, actor_id: int | None, note: str, now: datetime) -> bool:
    """Withdraw what has not gone out yet; False where it is too late."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_CANCEL, (delivery_id,))
        if cursor.fetchone() is None:
            return False
        _unsent([delivery_id])
        _told([Withheld(delivery_id=delivery_id, reason=CANCELLED, at=now)])
        _log(delivery_id, DeliveryAction.CANCEL, actor_id=actor_id, note=note, now=now)
    return True


def withdraw_all(device_id: int) -> None:
    """Take back what a device is owed, in the transaction that erases it."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_OF_DEVICE, (device_id,))
        owed = [delivery_id for delivery_id, is_pending in cursor.fetchall() if is_pending]
        if owed:
            cursor.execute(_WITHDRAW, (owed,))
    _unsent(owed)


def resend(delivery_id: int, *, actor_id: int | None, note: str, now: datetime) -> bool:
    """Owe it once more, through every gate; False where it is already on its way."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_RESEND, {"id": delivery_id, "now": now})
        found = cursor.fetchone()
        if found is None:
            return False
        _log(delivery_id, DeliveryAction.RESEND, actor_id=actor_id, note=note, now=now)
        announce([found[0]])
        wake()
    return True


def send_test(row: NewDelivery, *, actor_id: int | None, note: str, now: datetime) -> int | None:
    """Owe a device a trial that no moment brought about; None where it could not be written."""
    with transaction.atomic():
        (delivery_id,) = enqueue([row])
        if delivery_id is not None:
            _log(delivery_id, DeliveryAction.TEST, actor_id=actor_id, note=note, now=now)
    return delivery_id


def _log(
    delivery_id: int, action: DeliveryAction, *, actor_id: int | None, note: str, now: datetime
) -> None:
    DeliveryActionLog.objects.create(
        delivery_id=delivery_id,
        action=action.value,
        actor_id=actor_id,
        note=clean(note, MAX_ERROR_CHARS),
        at=now,
    )


def record_feedback(rows: Sequence[NewFeedback], *, now: datetime) -> list[bool]:
    """Keep what apps report; False where the delivery is not the reporting device's own."""
    if not rows:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            _FEEDBACK,
            [
                [row.delivery_id for row in rows],
                [row.device_id for row in rows],
                [row.event.value for row in rows],
                [row.occurred_at for row in rows],
                now,
            ],
        )
        known = {row[0] for row in cursor.fetchall()}
    return [place in known for place in range(1, len(rows) + 1)]

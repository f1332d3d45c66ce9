"""What is owed to devices: enqueued, cancelled, sent again, answered by the app. It sends nothing.

It decides nothing either (`gates` and `retries` do). With `leases`, which has what is being sent,
it alone writes deliveries. Every order is a few statements for any number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
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

CANCELLED = "cancelled_by_support"

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

_CANCEL = """
    UPDATE notifications_delivery SET state = 'cancelled', reason = 'cancelled by support'
     WHERE id = %s AND state = 'pending' RETURNING id
"""
# What is being sent now settles itself, when its worker records it (see `leases.record`).
_LOCK_OF_DEVICE = """
    SELECT id, state = 'pending' FROM notifications_delivery
     WHERE device_id = %s ORDER BY id FOR UPDATE
"""
_WITHDRAW = "UPDATE notifications_delivery SET state = 'cancelled' WHERE id = ANY(%s)"
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
class Withheld:
    """Why an offer that was owed does not go out, and the values that were seen."""

    delivery_id: int
    reason: str
    seen: Mapping[str, Any] = field(default_factory=dict)
    at: datetime


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


def say_withheld(withheld: Sequence[Withheld]) -> None:
    """Tell, in this transaction, why offers do not go out."""
    if withheld:
        for order in _tell:
            order(withheld)


def say_unsent(delivery_ids: Sequence[int]) -> None:
    """Tell, in this transaction, which deliveries will not be sent."""
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
        say_unsent([delivery_id])
        say_withheld([Withheld(delivery_id=delivery_id, reason=CANCELLED, at=now)])
        _log(delivery_id, DeliveryAction.CANCEL, actor_id=actor_id, note=note, now=now)
    return True


def withdraw_all(device_id: int) -> None:
    """Take back what a device is owed, in the transaction that erases it."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_OF_DEVICE, (device_id,))
        owed = [delivery_id for delivery_id, is_pending in cursor.fetchall() if is_pending]
        if owed:
            cursor.execute(_WITHDRAW, (owed,))
    say_unsent(owed)


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

"""What a device may see of its deliveries, and what it says came of them.

The rows are the log: a socket or an inbox shows what they say, as often as it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from django.db import connection

from devices.doors.decoding import ItemReader, Rejection
from devices.fixes import MAX_AGE_MS, MAX_AHEAD_MS, to_epoch_ms
from notifications.models import FeedbackEvent

CHANNEL = "nearcast_offers"  # payload: device ids, comma-separated
MAX_SHOWN = 100  # of one device, the newest
MAX_FEEDBACK = 1_000  # items of one frame


class Offer(msgspec.Struct, tag="offer", tag_field="type", omit_defaults=True, kw_only=True):
    """An offer as the device gets it; `delivery_id` tells repeats apart."""

    delivery_id: int
    campaign: dict[str, Any]
    title: str = ""
    body: str = ""
    deep_link: str | None = None
    image_url: str | None = None
    data: dict[str, Any] | None = None
    created_at: datetime
    expires_at: datetime


class FeedbackIn(msgspec.Struct):
    """What the app says came of one delivery."""

    delivery_id: int
    event: FeedbackEvent
    occurred_at: datetime | int | float | None = None


class FeedbackRow(NamedTuple):
    """Feedback of a device, checked as far as it can be without rows."""

    device_id: int
    delivery_id: int
    event: FeedbackEvent
    occurred_at: datetime


# Once the gates were passed at send time: sent, tried at least once, or given up by the provider
# (then the socket and the inbox are all the person has).
_SHOWN = """
    SELECT * FROM (
      SELECT d.device_id, d.id, d.campaign_id, d.campaign_name, d.content, d.created_at,
             d.expires_at, row_number() OVER (PARTITION BY d.device_id ORDER BY d.id DESC) AS nth
        FROM notifications_delivery d
       WHERE d.device_id = ANY(%(devices)s) AND d.expires_at > %(now)s
         AND (d.state IN ('sent', 'failed')
              OR (d.state IN ('pending', 'sending') AND d.attempt_count > 0))
         AND NOT EXISTS (SELECT FROM notifications_feedback f
                          WHERE f.delivery_id = d.id AND f.event = ANY(%(over)s))
    ) shown WHERE nth <= %(limit)s ORDER BY id
"""
_OVER = [FeedbackEvent.DISMISSED.value, FeedbackEvent.REDEEMED.value]


def current_offers(
    device_ids: Sequence[int], *, now: datetime, unreceived: bool = False
) -> dict[int, list[Offer]]:
    """Each device's current offers, oldest first; `unreceived`: without those it has received."""
    over = (
        [*_OVER, FeedbackEvent.RECEIVED.value, FeedbackEvent.OPENED.value] if unreceived else _OVER
    )
    with connection.cursor() as cursor:
        cursor.execute(
            _SHOWN,
            {"devices": list(device_ids), "now": now, "over": over, "limit": MAX_SHOWN},
        )
        rows = cursor.fetchall()
    offers: dict[int, list[Offer]] = {}
    for device_id, delivery_id, campaign_id, campaign, content, created_at, expires_at, _ in rows:
        held = content if isinstance(content, dict) else msgspec.json.decode(content)
        offers.setdefault(device_id, []).append(
            Offer(
                delivery_id=delivery_id,
                campaign={"id": campaign_id, "name": campaign},
                title=held.get("title", ""),
                body=held.get("body", ""),
                deep_link=held.get("deep_link"),
                image_url=held.get("image_url"),
                data=held.get("data"),
                created_at=created_at,
                expires_at=expires_at,
            )
        )
    return offers


_RECORD = """
    WITH said AS (
      SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::timestamptz[])
        WITH ORDINALITY AS u(device_id, delivery_id, event, occurred_at, place)
    ), known AS (
      SELECT said.* FROM said JOIN notifications_delivery d
          ON d.id = said.delivery_id AND d.device_id = said.device_id
    ), written AS (
      INSERT INTO notifications_feedback (delivery_id, event, occurred_at, received_at)
      SELECT delivery_id, event, occurred_at, %s FROM known ORDER BY delivery_id, event
      ON CONFLICT ON CONSTRAINT one_feedback_per_event DO NOTHING
    )
    SELECT place FROM known
"""


def record_feedback(rows: Iterable[FeedbackRow], *, now: datetime) -> list[bool]:
    """Write feedback once each; per row whether the delivery is that device's."""
    said = list(rows)
    if not said:
        return []
    columns = [list(column) for column in zip(*said, strict=True)]
    columns[2] = [str(event) for event in columns[2]]
    with connection.cursor() as cursor:
        cursor.execute(_RECORD, [*columns, now])
        known = {row[0] for row in cursor.fetchall()}
    return [place in known for place in range(1, len(said) + 1)]


_reader = ItemReader(
    FeedbackIn, envelope="feedback", time_field="occurred_at", max_items=MAX_FEEDBACK
)


def take_feedback(device_id: int, body: bytes, *, now: datetime) -> tuple[int, list[Rejection]]:
    """Record what a device says (one item, or a list): how many count, and why others do not."""
    items, places, rejected = _reader.read(body)
    at = range(len(items)) if places is None else places
    rows = [
        (place, feedback_row(device_id, item, now=now))
        for place, item in zip(at, items, strict=True)
    ]
    known = record_feedback([row for _, row in rows], now=now)
    rejected += [
        Rejection(place, "unknown_delivery", "No such delivery of this device.")
        for (place, _), is_known in zip(rows, known, strict=True)
        if not is_known
    ]
    return sum(known), sorted(rejected, key=lambda rejection: rejection.index)


def feedback_row(device_id: int, item: FeedbackIn, *, now: datetime) -> FeedbackRow:
    """The row of one item; a time the app cannot have meant is taken as now."""
    now_ms = int(now.timestamp() * 1000)
    at_ms = now_ms if item.occurred_at is None else to_epoch_ms(item.occurred_at)
    if not now_ms - MAX_AGE_MS <= at_ms <= now_ms + MAX_AHEAD_MS:
        at_ms = now_ms
    return FeedbackRow(
        device_id=device_id,
        delivery_id=item.delivery_id if 0 < item.delivery_id < 2**63 else 0,
        event=item.event,
        occurred_at=datetime.fromtimestamp(at_ms / 1000, UTC),
    )

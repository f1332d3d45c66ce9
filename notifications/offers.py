"""What a device may see of its deliveries, and what it says came of them.

The rows are the log: a socket or an inbox shows what they say, as often as it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.db import connection

from devices.doors.decoding import ItemReader, Rejection
from devices.fixes import MAX_AGE_MS, MAX_AHEAD_MS, to_epoch_ms
from notifications import outbox
from notifications.models import FeedbackEvent
from notifications.outbox import NewFeedback

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


# All but what is held back until it is sent: then it is looked at once more.
_SHOWN = """
    SELECT * FROM (
      SELECT d.device_id, d.id, d.campaign_id, d.campaign_name, d.content, d.created_at,
             d.expires_at, row_number() OVER (PARTITION BY d.device_id ORDER BY d.id DESC) AS nth
        FROM notifications_delivery d
       WHERE d.device_id = ANY(%(devices)s) AND d.expires_at > %(now)s
         AND d.state IN ('pending', 'sending', 'sent')
         AND NOT (d.due_at > d.created_at
                  AND (d.state = 'pending' AND d.attempt_count = 0
                       OR d.state = 'sending' AND d.attempt_count = 1))
         AND (d.state = 'sent' OR d.gates ->> 'shown_when_sent' IS DISTINCT FROM 'true')
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


_reader = ItemReader(
    FeedbackIn, envelope="feedback", time_field="occurred_at", max_items=MAX_FEEDBACK
)


def take_feedback(device_id: int, body: bytes, *, now: datetime) -> tuple[int, list[Rejection]]:
    """Record what a device says (one item, or a list): how many count, and why others do not."""
    items, places, rejected = _reader.read(body)
    at = list(range(len(items))) if places is None else places
    known = outbox.record_feedback(
        [new_feedback(device_id, item, now=now) for item in items], now=now
    )
    rejected += [
        Rejection(place, "unknown_delivery", "No such delivery of this device.")
        for place, is_known in zip(at, known, strict=True)
        if not is_known
    ]
    return sum(known), sorted(rejected, key=lambda rejection: rejection.index)


def new_feedback(device_id: int, item: FeedbackIn, *, now: datetime) -> NewFeedback:
    """What to record of one item; a time the app cannot have meant is taken as now."""
    now_ms = int(now.timestamp() * 1000)
    at_ms = now_ms if item.occurred_at is None else to_epoch_ms(item.occurred_at)
    if not now_ms - MAX_AGE_MS <= at_ms <= now_ms + MAX_AHEAD_MS:
        at_ms = now_ms
    return NewFeedback(
        delivery_id=item.delivery_id if 0 < item.delivery_id < 2**63 else 0,
        device_id=device_id,
        event=item.event,
        occurred_at=datetime.fromtimestamp(at_ms / 1000, UTC),
    )

"""What happened to one device, newest first, a page at a time; `campaigns.entries` has the words.

It asks each kind of row by its own index and reads no further than the page is long.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from campaigns.entries import Entry, names_of, of_decision, of_delivery, of_event, of_transition
from campaigns.lookup import EPOCH
from campaigns.models import Decision
from devices.models import Device, Event, Transition
from notifications.models import Delivery

KINDS = ("transition", "event", "decision", "delivery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a page of a timeline ends; evaluation writes many rows of one instant."""

    at: datetime
    kind: str
    id: int

    def __str__(self) -> str:
        return f"{(self.at - EPOCH) // timedelta(microseconds=1)}-{self.kind}-{self.id}"

    @classmethod
    def read(cls, text: str) -> Spot:
        """Read what `str` wrote; ValueError for anything else."""
        at, kind, number = [*text.split("-"), "", ""][:3]
        if kind not in KINDS:
            raise ValueError(text)
        try:
            return cls(at=EPOCH + timedelta(microseconds=int(at)), kind=kind, id=int(number))
        except OverflowError as error:
            raise ValueError(text) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of a device's history is wanted; empty: everything."""

    kinds: frozenset[str] = frozenset()
    campaign_id: int | None = None
    verdict: str = ""
    until: datetime | None = None
    older: Spot | None = None


def of_device(
    device: Device, wanted: Wanted, *, limit: int, language: str = "en"
) -> tuple[list[Entry], Spot | None]:
    """Return a device's history, newest first: four index scans merged by time."""
    rows = {kind: list(_rows(device, kind, wanted, limit + 1)) for kind in KINDS}
    names = names_of(device.brand_id, [row for found in rows.values() for row in found])
    makers: dict[str, Any] = {
        "transition": lambda row: of_transition(row, names),
        "event": of_event,
        "decision": lambda row: of_decision(row, names, language),
        "delivery": of_delivery,
    }
    merged = heapq.merge(
        *([makers[kind](row) for row in rows[kind]] for kind in KINDS),
        key=_order,
        reverse=True,
    )
    entries = [entry for _, entry in zip(range(limit + 1), merged, strict=False)]
    more = len(entries) > limit
    entries = entries[:limit]
    last = entries[-1] if more else None
    return entries, None if last is None else Spot(at=last.at, kind=last.kind, id=last.id)


def _order(entry: Entry) -> tuple[datetime, int, int]:
    # At one instant: what came of it above what led to it.
    return entry.at, KINDS.index(entry.kind), entry.id


def _rows(device: Device, kind: str, wanted: Wanted, limit: int) -> Iterator[Any]:
    if wanted.kinds and kind not in wanted.kinds:
        return
    if kind == "decision":
        found: Any = Decision.objects.all()
        time = "decided_at"
    elif kind == "delivery":
        found, time = Delivery.objects.all(), "created_at"
    else:
        # A campaign or a verdict is asked for: what is neither is left out.
        if wanted.campaign_id or wanted.verdict:
            return
        found = Transition.objects.all() if kind == "transition" else Event.objects.all()
        time = "occurred_at"
    found = found.filter(device_id=device.pk, brand_id=device.brand_id)
    if wanted.campaign_id:
        found = found.filter(campaign_id=wanted.campaign_id)
    if wanted.verdict:
        if kind != "decision":
            return
        found = found.filter(verdict=wanted.verdict)
    if wanted.until is not None:
        found = found.filter(**{f"{time}__lt": wanted.until})
    if (older := wanted.older) is not None:
        mine, last = KINDS.index(kind), KINDS.index(older.kind)
        found = found.filter(**{f"{time}__{'lt' if mine > last else 'lte'}": older.at})
        if mine == last:
            found = found.exclude(**{time: older.at, "pk__gte": older.id})
    yield from found.order_by(f"-{time}", "-id")[:limit]

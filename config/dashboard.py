"""The admin's first page: what happened today in one brand, and whether anything waits.

Every figure is bounded in cost: where a table is too big to count, a sample of its pages is counted
and the figure is marked as estimated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db import DatabaseError, connection, transaction
from django.http import HttpRequest
from django.urls import reverse
from django.utils.timezone import localtime, now

from brands.desk import current_brand
from brands.models import Brand
from campaigns import words
from campaigns.models import Campaign, CampaignState, Verdict
from geofences.models import Geofence
from notifications.models import DeliveryState

SAMPLE_ROWS = 200_000  # about what PostgreSQL counts and groups in a tenth of a second
REMEMBERED_S = 10
LIMIT_MS = 3_000  # a figure that takes longer is left out: the page must come


@dataclass(slots=True, kw_only=True)
class Today:
    """The figures of one brand since midnight in its zone; None where one could not be had."""

    since: datetime
    hours: list[str]
    fixes: int | None = None
    fixes_by_hour: list[int] = field(default_factory=list)
    devices: int | None = None
    entered: int | None = None
    entered_by_hour: list[int] = field(default_factory=list)
    sent: int | None = None
    sent_by_hour: list[int] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    opened: int | None = None
    refusals: list[tuple[str, int]] = field(default_factory=list)
    refused: int | None = None
    estimated: set[str] = field(default_factory=set)

    @property
    def opened_share(self) -> float | None:
        return 100 * (self.opened or 0) / self.sent if self.sent else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One stage's backlog."""

    name: str
    waiting: int
    oldest_s: float | None
    parked: int

    @property
    def health(self) -> str:
        """Good: it keeps up. Late: what waits has waited for a minute. Behind: for ten."""
        if self.oldest_s is None or self.oldest_s < 60:
            return "good"
        return "warn" if self.oldest_s < 600 else "bad"


Rows = list[tuple[Any, ...]]


def _ask(sql: str, given: Sequence[Any]) -> Rows | None:
    """Run one query within LIMIT_MS; None where it takes longer."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {LIMIT_MS}")
            cursor.execute(sql, given)
            rows: Rows = cursor.fetchall()
            return rows
    except DatabaseError:
        return None


def sample_share(source: str, given: Sequence[Any]) -> float:
    """Return the percentage of a table's pages worth reading for SAMPLE_ROWS of `source`."""
    planned = _ask(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {source}", given)  # noqa: S608
    if not planned:
        return 100.0
    plan = planned[0][0]
    rows: int = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"]
    return min(100.0, max(0.01, 100.0 * SAMPLE_ROWS / max(1, rows)))


def grouped(
    table: str, columns: str, condition: str, given: Sequence[Any]
) -> tuple[Rows, float] | None:
    """Count rows of `table` by `columns`; answers the rows and how much each count stands for.

    Table, columns and condition are written here, never by a person. `t` is the table's alias.
    """
    share = sample_share(f"{table} t WHERE {condition}", given)
    sample = "" if share >= 100 else f"TABLESAMPLE SYSTEM ({share:.4f})"
    rows = _ask(
        f"SELECT {columns}, count(*) FROM {table} t {sample} WHERE {condition}"  # noqa: S608
        f" GROUP BY {columns}",
        given,
    )
    return None if rows is None else (rows, 100.0 / share)


def _by_hour(zone: str, column: str) -> str:
    return f"extract(hour FROM {column} AT TIME ZONE '{zone}')::int"


def today(brand: Brand, *, at: datetime) -> Today:
    """Gather a brand's day so far."""
    since = localtime(at).replace(hour=0, minute=0, second=0, microsecond=0)
    hours = localtime(at).hour + 1
    found = Today(since=since, hours=[f"{hour:02d}:00" for hour in range(hours)])
    zone = str(since.tzinfo)
    _count_fixes(found, brand, zone)
    _count_devices(found, brand)
    _count_transitions(found, brand, zone)
    _count_decisions(found, brand)
    _count_deliveries(found, brand, zone)
    return found


def _spread(rows: Iterable[tuple[Any, ...]], weight: float, hours: int) -> list[int]:
    spread = [0] * hours
    for hour, count in rows:
        if 0 <= hour < hours:
            spread[hour] += round(count * weight)
    return spread


def _count_fixes(found: Today, brand: Brand, zone: str) -> None:
    counted = grouped(
        "devices_fix",
        _by_hour(zone, "t.received_at"),
        "t.received_at >= %s AND EXISTS"
        " (SELECT 1 FROM devices_device d WHERE d.id = t.device_id AND d.brand_id = %s)",
        [found.since, brand.pk],
    )
    if counted is not None:
        rows, weight = counted
        found.fixes_by_hour = _spread(rows, weight, len(found.hours))
        found.fixes = sum(found.fixes_by_hour)
        if weight > 1:
            found.estimated.add("fixes")


def _count_devices(found: Today, brand: Brand) -> None:
    counted = grouped(
        "devices_devicestate",
        "t.brand_id",
        "t.brand_id = %s AND t.received_at >= %s",
        [brand.pk, found.since],
    )
    if counted is not None:
        rows, weight = counted
        found.devices = round(sum(count for _, count in rows) * weight)
        if weight > 1:
            found.estimated.add("devices")


def _count_transitions(found: Today, brand: Brand, zone: str) -> None:
    counted = grouped(
        "devices_transition",
        _by_hour(zone, "t.occurred_at"),
        "t.id >= %s AND t.brand_id = %s AND t.kind = 'entered' AND t.occurred_at >= %s",
        [first_id("devices_transition", "recorded_at", found.since), brand.pk, found.since],
    )
    if counted is not None:
        rows, weight = counted
        found.entered_by_hour = _spread(rows, weight, len(found.hours))
        found.entered = sum(found.entered_by_hour)
        if weight > 1:
            found.estimated.add("entered")


def _count_decisions(found: Today, brand: Brand) -> None:
    counted = grouped(
        "campaigns_decision",
        "t.verdict, t.reason",
        "t.id >= %s AND t.brand_id = %s AND t.decided_at >= %s",
        [first_id("campaigns_decision", "decided_at", found.since), brand.pk, found.since],
    )
    if counted is not None:
        rows, weight = counted
        refusals = [(why, round(n * weight)) for said, why, n in rows if said == Verdict.REFUSE]
        found.refusals = sorted(refusals, key=lambda one: -one[1])[:6]
        found.refused = sum(count for _, count in refusals)
        if weight > 1:
            found.estimated.add("refused")


def _count_deliveries(found: Today, brand: Brand, zone: str) -> None:
    since = first_id("notifications_delivery", "created_at", found.since)
    counted = grouped(
        "notifications_delivery",
        f"t.state, {_by_hour(zone, 't.created_at')}",
        "t.id >= %s AND t.brand_id = %s AND t.created_at >= %s",
        [since, brand.pk, found.since],
    )
    if counted is None:
        return
    rows, weight = counted
    for state, _, count in rows:
        found.states[state] = found.states.get(state, 0) + round(count * weight)
    sent = [(hour, count) for state, hour, count in rows if state == DeliveryState.SENT]
    found.sent_by_hour = _spread(sent, weight, len(found.hours))
    found.sent = sum(found.sent_by_hour)
    if weight > 1:
        found.estimated.add("sent")
    opened = _ask(
        "SELECT count(DISTINCT f.delivery_id) FROM notifications_feedback f"
        " JOIN notifications_delivery t ON t.id = f.delivery_id"
        " WHERE f.delivery_id >= %s AND f.event IN ('opened', 'redeemed')"
        " AND t.brand_id = %s AND t.created_at >= %s",
        [since, brand.pk, found.since],
    )
    found.opened = opened[0][0] if opened else None


def first_id(table: str, column: str, since: datetime) -> int:
    """Return the least id written since an instant, about: ids and the clock grow together.

    Thirty looks at the primary key stand in for an index on the time, which every insert would pay.
    """
    # Rows of one moment are written by several processes: look a little further back.
    margin = since - timedelta(minutes=10)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT min(id), max(id) FROM {table}")  # noqa: S608 - our own names
        low, high = cursor.fetchone() or (None, None)
        while low is not None and low < high:
            middle = (low + high) // 2
            cursor.execute(
                f"SELECT id, {column} FROM {table} WHERE id >= %s"  # noqa: S608 - our own names
                " ORDER BY id LIMIT 1",
                [middle],
            )
            row = cursor.fetchone()
            if row is not None and row[1] < margin:
                low = row[0] + 1
            else:
                high = middle
    return int(low or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where work waits: what marks a row that is due, since when, and one set aside."""

    name: str
    table: str
    written: str  # the column that grows with the id
    since: str
    due: str
    parked: str


STAGES = (
    Stage(
        name="Deciding on transitions",
        table="devices_transition",
        written="recorded_at",
        since="recorded_at",
        due="processed_at IS NULL",
        parked="parked_reason <> ''",
    ),
    Stage(
        name="Deciding on events",
        table="devices_event",
        written="received_at",
        since="received_at",
        due="processed_at IS NULL",
        parked="parked_reason <> ''",
    ),
    Stage(
        name="Sending",
        table="notifications_delivery",
        written="created_at",
        since="due_at",
        due="state IN ('pending', 'sending') AND due_at <= now()",
        parked="state = 'parked'",
    ),
)
MOST_COUNTED = 100_000


def queues(*, at: datetime) -> list[Queue]:
    """Return each stage's backlog, all brands together: the workers serve them all."""
    found = []
    for stage in STAGES:
        waiting = _ask(
            f"SELECT count(*), min(since) FROM (SELECT {stage.since} AS since"  # noqa: S608
            f" FROM {stage.table} WHERE {stage.due} LIMIT {MOST_COUNTED}) t",
            [],
        )
        parked = _ask(
            f"SELECT count(*) FROM {stage.table} WHERE id >= %s AND {stage.parked}",  # noqa: S608
            [first_id(stage.table, stage.written, at - timedelta(days=1))],
        )
        count, oldest = waiting[0] if waiting else (MOST_COUNTED, None)
        found.append(
            Queue(
                name=stage.name,
                waiting=count,
                oldest_s=(at - oldest).total_seconds() if oldest else None,
                parked=parked[0][0] if parked else 0,
            )
        )
    return found


_TONES = {"sent": "good", "failed": "bad", "parked": "bad"}


def _meters(counts: Sequence[tuple[str, int]], page: str, parameter: str) -> list[dict[str, Any]]:
    """Return counts as bars, each leading to the list of what it counts."""
    top = max((count for _, count in counts), default=1)
    address = reverse(f"admin:{page}_changelist")
    return [
        {
            "words": words.label(name),
            "count": count,
            "share": round(100 * count / max(1, top)),
            "tone": _TONES.get(name, ""),
            "url": f"{address}?{parameter}={name}",
        }
        for name, count in counts
    ]


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add what the first page shows; the theme calls this."""
    brand = current_brand(request)
    context["title"] = "Today"
    if brand is None:
        return context | {"brand": None}
    key = f"today-{brand.pk}-{brand.timezone}"
    figures: Today | None = cache.get(key)
    if figures is None:
        figures = today(brand, at=now())
        cache.set(key, figures, REMEMBERED_S)
    backlog = cache.get_or_set("queues", lambda: queues(at=now()), REMEMBERED_S)
    campaigns = Campaign.objects.filter(brand=brand)
    return context | {
        "brand": brand,
        "today": figures,
        "refusals": _meters(figures.refusals, "campaigns_decision", "reason"),
        "states": _meters(
            sorted(figures.states.items(), key=lambda one: -one[1]),
            "notifications_delivery",
            "state",
        ),
        "queues": backlog,
        "live_campaigns": list(campaigns.filter(state=CampaignState.LIVE)[:6]),
        "has_campaigns": campaigns.exists(),
        "has_geofences": Geofence.objects.present().filter(brand=brand).exists(),
    }

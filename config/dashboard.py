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
from django.db import DatabaseError, connection
from django.http import HttpRequest
from django.urls import reverse
from django.utils.timezone import localtime, now

from brands.desk import current_brand, rights
from brands.models import Brand, Role
from brands.patience import TookTooLongError, patience
from campaigns import words
from campaigns.models import Campaign, CampaignState
from geofences.models import Geofence
from notifications.models import DeliveryState

SAMPLE_ROWS = 100_000  # about what PostgreSQL counts and groups in a tenth of a second
RUN_ROWS = 1_000  # ids read in one go by the primary key: some twenty pages
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
        with patience(LIMIT_MS), connection.cursor() as cursor:
            cursor.execute(sql, given)
            rows: Rows = cursor.fetchall()
            return rows
    except (TookTooLongError, DatabaseError):
        return None


def sample_share(source: str, given: Sequence[Any]) -> float:
    """Return the percentage of a table's pages worth reading for SAMPLE_ROWS of `source`."""
    planned = _ask(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {source}", given)  # noqa: S608
    if not planned:
        return 100.0
    plan = planned[0][0]
    rows: int = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"]
    return min(100.0, max(0.01, 100.0 * SAMPLE_ROWS / max(1, rows)))


Counted = tuple[Rows, float]
"""Rows that end in a count, and how much each counted row stands for."""


def grouped(table: str, columns: str, condition: str, given: Sequence[Any]) -> Counted | None:
    """Count rows of `table` by `columns`, from a sample of its pages where it is big.

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


def grouped_since(
    table: str, time: str, columns: str, condition: str, brand: Brand, since: datetime
) -> Counted | None:
    """Count a brand's rows since an instant, from evenly spaced runs of ids where there are many.

    A run is read by the primary key: a day of a table that keeps a year costs what the day costs.
    """
    first = first_id(table, time, since)
    last = _ask(f"SELECT coalesce(max(id), 0) FROM {table}", [])  # noqa: S608
    if last is None:
        return None
    number = last[0][0] - first + 1
    runs = SAMPLE_ROWS // RUN_ROWS
    exact = number <= SAMPLE_ROWS
    starts = [first] if exact else [first + number * run // runs for run in range(runs)]
    length = max(number, 0) if exact else RUN_ROWS
    rows = _ask(
        f"SELECT {columns}, count(*) FROM unnest(%s::bigint[]) AS run(start)"  # noqa: S608
        f" JOIN {table} t ON t.id >= run.start AND t.id < run.start + {length}"
        f" WHERE t.brand_id = %s AND t.{time} >= %s AND {condition} GROUP BY {columns}",
        [starts, brand.pk, since],
    )
    return None if rows is None else (rows, 1.0 if exact else number / (runs * RUN_ROWS))


def _by_hour(zone: str, column: str) -> str:
    return f"extract(hour FROM {column} AT TIME ZONE '{zone}')::int"


def today(brand: Brand, *, at: datetime) -> Today:
    """Gather a brand's day so far."""
    since = localtime(at).replace(hour=0, minute=0, second=0, microsecond=0)
    # The whole day: a chart of the hours so far would be one wide block after midnight.
    found = Today(since=since, hours=[f"{hour:02d}:00" for hour in range(24)])
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
    counted = grouped_since(
        "devices_transition",
        "recorded_at",
        _by_hour(zone, "t.recorded_at"),
        "t.kind = 'entered'",
        brand,
        found.since,
    )
    if counted is not None:
        rows, weight = counted
        found.entered_by_hour = _spread(rows, weight, len(found.hours))
        found.entered = sum(found.entered_by_hour)
        if weight > 1:
            found.estimated.add("entered")


def _count_decisions(found: Today, brand: Brand) -> None:
    counted = grouped_since(
        "campaigns_decision", "decided_at", "t.reason", "t.verdict = 'refuse'", brand, found.since
    )
    if counted is not None:
        rows, weight = counted
        refusals = [(why, round(count * weight)) for why, count in rows]
        found.refusals = sorted(refusals, key=lambda one: -one[1])[:6]
        found.refused = sum(count for _, count in refusals)
        if weight > 1:
            found.estimated.add("refused")


_OPENED = (
    "EXISTS (SELECT 1 FROM notifications_feedback f WHERE f.delivery_id = t.id"
    " AND f.event IN ('opened', 'redeemed'))"
)


def _count_deliveries(found: Today, brand: Brand, zone: str) -> None:
    counted = grouped_since(
        "notifications_delivery",
        "created_at",
        f"t.state, {_by_hour(zone, 't.created_at')}, {_OPENED}",
        "true",
        brand,
        found.since,
    )
    if counted is None:
        return
    rows, weight = counted
    for state, _, _, count in rows:
        found.states[state] = found.states.get(state, 0) + round(count * weight)
    sent = [(hour, count) for state, hour, _, count in rows if state == DeliveryState.SENT]
    found.sent_by_hour = _spread(sent, weight, len(found.hours))
    found.sent = sum(found.sent_by_hour)
    found.opened = round(sum(count for _, _, opened, count in rows if opened) * weight)
    if weight > 1:
        found.estimated.add("sent")


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
    since: str
    due: str
    parked: str  # looked for among the last SAMPLE_ROWS


STAGES = (
    Stage(
        name="Deciding on transitions",
        table="devices_transition",
        since="recorded_at",
        due="processed_at IS NULL",
        parked="parked_reason <> ''",
    ),
    Stage(
        name="Deciding on events",
        table="devices_event",
        since="received_at",
        due="processed_at IS NULL",
        parked="parked_reason <> ''",
    ),
    Stage(
        name="Sending",
        table="notifications_delivery",
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
            f"SELECT count(*) FROM {stage.table} WHERE {stage.parked}"  # noqa: S608
            f" AND id > (SELECT coalesce(max(id), 0) FROM {stage.table}) - {SAMPLE_ROWS}",
            [],
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
            "url": f"{address}?{parameter}={name}&when=day",
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
    mine = rights(request)
    return context | {
        "brand": brand,
        "may_make": mine.may(Role.MARKETER, brand.pk),
        "may_connect": mine.may(Role.ADMIN, brand.pk),
        "today": figures,
        "refusals": _meters(figures.refusals, "campaigns_decision", "reason"),
        "states": _meters(
            sorted(figures.states.items(), key=lambda one: -one[1]),
            "notifications_delivery",
            "state",
        ),
        "queues": backlog,
        "live_campaigns": list(campaigns.filter(state=CampaignState.LIVE)[:6]),
        "live_count": campaigns.filter(state=CampaignState.LIVE).count(),
        "has_campaigns": campaigns.exists(),
        "has_geofences": Geofence.objects.present().filter(brand=brand).exists(),
    }

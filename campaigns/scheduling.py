"""Offers at their time: who is, or was, at the places a schedule names. It owns no rule.

What is due is a row; its devices are judged in batches in the order of their ids, and the row
remembers the last one in the same commit as the decisions. So a crash repeats nothing and loses
nothing, and memory does not grow with the crowd. One batch at a time, whoever runs it: campaigns
due at one instant come in the order in which they may speak, the first to its end before the next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from brands import wallclock
from campaigns import catalogue as catalogues
from campaigns import evaluation, past, rounds, rules, schedules
from campaigns.catalogue import Catalogue
from campaigns.compiling import Entry
from campaigns.definition import TriggerOn
from campaigns.judging import judge
from campaigns.meaning import ms_of, schedule_of
from campaigns.models import Occurrence
from campaigns.moments import Happening
from campaigns.places import known_places
from campaigns.subjects import Subjects

logger = logging.getLogger(__name__)

BATCH = 1_000
LOOK_S = 1.0
PLAN_EVERY = timedelta(seconds=15)
AHEAD = timedelta(seconds=60)  # so that a publication at the very minute loses nothing
BEHIND = timedelta(days=1)  # what a server that was off for longer missed is not even written
KEPT = timedelta(days=14)
_LOCK = 0x6E63_7363_6865_6475  # "ncschedu": one batch of a schedule at a time

_SINCE = """
    SELECT campaign_id, max(at) FROM campaigns_campaignlog
     WHERE campaign_id = ANY(%s) AND action IN ('published', 'resumed', 'rolled_back')
     GROUP BY 1
"""
_PLAN = """
    INSERT INTO campaigns_occurrence (campaign_id, brand_id, key, due_at, zones, after_id, members,
                                      missed, finished_at)
    SELECT u.campaign_id, u.brand_id, u.key, u.due_at, string_to_array(u.zones, ','), 0, 0,
           u.finished_at IS NOT NULL, u.finished_at
      FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::timestamptz[], %s::text[],
                  %s::timestamptz[]) AS u(campaign_id, brand_id, key, due_at, zones, finished_at)
     ORDER BY campaign_id, key, due_at
    ON CONFLICT ON CONSTRAINT one_occurrence_per_time DO NOTHING
"""
# Who is inside, or was since: the place entered last of each device, in the order of devices. Those
# that were judged already, in another zone, have had it.
_MEMBERS = """
    SELECT DISTINCT ON (m.device_id) m.device_id, m.geofence_id, m.visit_id,
           (extract(epoch FROM m.entered_at) * 1000)::bigint
      FROM (
        SELECT p.device_id, p.geofence_id, p.visit_id, p.entered_at
          FROM devices_presence p
         WHERE p.brand_id = %(brand_id)s AND p.device_id > %(after_id)s
           AND p.state IN ('inside', 'leaving') AND p.entered_at <= %(due_at)s
         UNION ALL
        SELECT t.device_id, t.geofence_id, t.visit_id, t.entered_at
          FROM devices_transition t
         WHERE NOT %(is_now)s AND t.brand_id = %(brand_id)s AND t.device_id > %(after_id)s
           AND t.geofence_id IN (SELECT id FROM chosen)
           AND t.occurred_at >= %(since)s AND t.occurred_at <= %(due_at)s
      ) m
      JOIN devices_device d ON d.id = m.device_id
     WHERE m.geofence_id IN (SELECT id FROM chosen)
       AND (%(zones)s::text[] = '{}' OR
            CASE WHEN d.timezone = ANY(%(known)s::text[]) THEN d.timezone ELSE %(brand_zone)s END
              = ANY(%(zones)s::text[]))
       AND NOT EXISTS (
         SELECT FROM campaigns_decision x
          WHERE x.device_id = m.device_id AND x.campaign_id = %(campaign_id)s
            AND x.moment_kind = 'schedule' AND x.moment_id = %(key)s)
     ORDER BY m.device_id, m.entered_at DESC, m.geofence_id LIMIT %(limit)s
"""
_CHOSEN = """
    WITH chosen AS MATERIALIZED (
      SELECT g.id FROM geofences_geofence g
       WHERE g.brand_id = %(brand_id)s
         AND (g.id = ANY(%(ids)s::bigint[]) OR g.external_id = ANY(%(external_ids)s::text[])
              OR g.tags && %(tags)s::varchar[])
    )
"""


class Member(NamedTuple):
    device_id: int
    geofence_id: int
    visit_id: int
    entered_ms: int


def plan(*, now: datetime) -> int:
    """Write what comes round soon, and what came round while nobody looked. Answers how much.

    What came too late for its campaign is written as missed, so that somebody can see it.
    """
    current = catalogues.current()
    entries = [one for one in current.entries.values() if one.campaign.on is TriggerOn.SCHEDULE]
    if not entries:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(_SINCE, ([entry.campaign.id for entry in entries],))
        began = dict(cursor.fetchall())
        columns: list[list[object]] = [[] for _ in range(6)]
        for entry in entries:
            campaign = entry.campaign
            zone = current.brands[campaign.brand_id].timezone
            since = max(began.get(campaign.id, now - BEHIND), now - BEHIND)
            for one in schedules.occurrences(
                schedule_of(entry.trigger),
                after_ms=_ms(since),
                until_ms=_ms(now + AHEAD),
                brand_zone=zone,
                zones=wallclock.zones(),
            ):
                late = _ms(now) - one.due_ms > campaign.max_age_ms
                row = (
                    campaign.id,
                    campaign.brand_id,
                    one.key,
                    _instant(one.due_ms),
                    ",".join(one.zones),
                    now if late else None,
                )
                for column, value in zip(columns, row, strict=True):
                    column.append(value)
        cursor.execute(_PLAN, columns)
        return int(cursor.rowcount)


def forget(*, now: datetime) -> int:
    """Delete what was done with long ago."""
    return Occurrence.objects.filter(finished_at__lt=now - KEPT).delete()[0]


def run_due(*, now: datetime, limit: int = BATCH) -> int:
    """Judge the next devices of what is due; answers how many rows moved on, 0: nothing to do."""
    try:
        return _run_due(now, limit)
    except (OperationalError, InterfaceError):
        raise  # the database, not a device
    except Exception:
        if limit > 1:
            logger.exception("a batch of a schedule failed; trying its devices one at a time")
            return _run_due_singly(now, limit)
        raise


def _run_due_singly(now: datetime, limit: int) -> int:
    """Judge devices singly; one that still fails is passed over, and logged by its id."""
    moved = 0
    for _ in range(limit):
        try:
            if not _run_due(now, 1):
                break
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            logger.exception("a device of a schedule is passed over")
            _run_due(now, 1, skip=True)
        moved += 1
    return moved


def _run_due(now: datetime, limit: int, *, skip: bool = False) -> int:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (_LOCK,))
            if not cursor.fetchone()[0]:
                return 0  # another loop is at it
        current = catalogues.current()
        row = _next(current, now)
        if row is None:
            return 0
        entry = current.entries.get(row.campaign_id)
        if entry is None or not _still_meant(row, entry, current):
            # Paused, ended or moved to another time since it was planned.
            row.finished_at, row.missed = now, True
            row.save(update_fields=["finished_at", "missed"])
            return 1
        members = _members(row, entry, current.brands[row.brand_id].timezone, limit)
        if members and not skip:
            happenings = _happenings(row, entry, members, current, now)
            past.measure(happenings, _ms(now))
            evaluation.settle(judge(happenings, current, evaluation.reader(current, now)), now)
        if members:
            row.after_id = members[-1].device_id
            row.members += len(members)
        if len(members) < limit:
            row.finished_at, row.after_id = now, 0  # which names a device
        row.save(update_fields=["after_id", "members", "finished_at"])
    return 1


def _next(current: Catalogue, now: datetime) -> Occurrence | None:
    """What comes first of all that is due: by time, then in the order in which they may speak."""
    due = list(Occurrence.objects.filter(finished_at=None, due_at__lte=now))
    places = {
        campaign.id: place
        for place, campaign in enumerate(
            rules.ranked([entry.campaign for entry in current.entries.values()])
        )
    }
    return min(
        due, key=lambda row: (row.due_at, places.get(row.campaign_id, 0), row.pk), default=None
    )


def _still_meant(row: Occurrence, entry: Entry, current: Catalogue) -> bool:
    if entry.campaign.on is not TriggerOn.SCHEDULE:
        return False
    due_ms = _ms(row.due_at)
    now_meant = schedules.occurrences(
        schedule_of(entry.trigger),
        after_ms=due_ms - 1,
        until_ms=due_ms,
        brand_zone=current.brands[row.brand_id].timezone,
        zones=row.zones or wallclock.zones(),
    )
    return row.key in {one.key for one in now_meant}


def _members(row: Occurrence, entry: Entry, brand_zone: str, limit: int) -> list[Member]:
    schedule, trigger = schedule_of(entry.trigger), entry.trigger
    asked: dict[str, Any] = {
        "brand_id": row.brand_id,
        "campaign_id": row.campaign_id,
        "key": row.key,
        "after_id": row.after_id,
        "due_at": row.due_at,
        "is_now": schedule.is_now,
        "since": _instant(schedule.looks_back_to(_ms(row.due_at))),
        "zones": row.zones,
        "known": list(wallclock.zones()),
        "brand_zone": brand_zone,
        "ids": [place for place in trigger.geofences if isinstance(place, int)],
        "external_ids": [place for place in trigger.geofences if isinstance(place, str)],
        "tags": list(trigger.tags),
        "limit": limit,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CHOSEN + _MEMBERS, asked)
        return [Member._make(found) for found in cursor.fetchall()]


def _happenings(
    row: Occurrence, entry: Entry, members: Sequence[Member], current: Catalogue, now: datetime
) -> list[Happening]:
    subjects = Subjects(current.brands, _ms(now))
    subjects.load({member.device_id for member in members})
    places = known_places({member.geofence_id for member in members})
    due_ms = _ms(row.due_at)
    return [
        Happening(
            moment=rounds.moment_of(
                known,
                places[member.geofence_id],
                key=row.key,
                due_ms=due_ms,
                now_ms=_ms(now),
                entered_ms=member.entered_ms,
                visit_id=member.visit_id,
            ),
            brand=known.brand,
            candidates=(entry.campaign,),
            place=places[member.geofence_id],
        )
        for member in members
        if (known := subjects.known.get(member.device_id)) is not None
        and member.geofence_id in places
    ]


def _ms(at: datetime) -> int:
    return ms_of(at) or 0


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def run(stop: threading.Event) -> None:
    """Do what is due, until `stop`; one loop is enough, several do no harm."""
    planned_at: datetime | None = None
    planned: tuple[int, ...] = ()
    while not stop.is_set():
        now, mark = timezone.now(), catalogues.current().mark
        if planned_at is None or mark != planned or now - planned_at >= PLAN_EVERY:
            planned_at, planned = now, mark
            plan(now=now)
            forget(now=now)
        while not stop.is_set() and run_due(now=timezone.now()):
            pass
        stop.wait(LOOK_S)
    connection.close()

"""What persons did before: the events and visits that audiences and sequences ask about.

One query each for any number of persons; what it means is for the pure modules to say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.db import connection

from campaigns import behaviour, sequences
from campaigns.audience import Subject
from campaigns.catalogue import needs
from campaigns.moments import Happening

_MS = "(extract(epoch FROM {}) * 1000)::bigint"

_OWNED = """
    WITH asked AS (
      SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[])
        AS u(subject, brand_id, external_id)
    ), owned AS (
      SELECT subject, subject AS device_id FROM asked
       UNION
      SELECT a.subject, d.id FROM asked a
        JOIN devices_device d ON d.brand_id = a.brand_id AND d.external_id = a.external_id
       WHERE a.external_id <> ''
    )
"""
_ITEMS_AT_PLACES = f"""{_OWNED}
    SELECT o.subject, {_MS.format("t.occurred_at")}, t.id, t.device_id, t.kind, t.geofence_id,
           g.external_id, g.tags, t.dwell_s
      FROM owned o
      JOIN devices_transition t ON t.device_id = o.device_id
      JOIN geofences_geofence g ON g.id = t.geofence_id
     WHERE t.occurred_at > %s AND t.kind = ANY(%s)
       AND NOT (t.kind = 'exited' AND t.reason <> '')
       AND (g.tags && %s::varchar[] OR g.id = ANY(%s::bigint[]) OR g.external_id = ANY(%s::text[]))
"""  # noqa: S608 - only names of our own columns are put in
_ITEMS_OF_EVENTS = f"""{_OWNED}, past AS (
      SELECT o.subject, e.* FROM owned o JOIN devices_event e ON e.device_id = o.device_id
       UNION ALL
      SELECT a.subject, e.* FROM asked a
        JOIN devices_event e ON e.brand_id = a.brand_id AND e.external_id = a.external_id
       WHERE a.external_id <> '' AND e.device_id IS NULL
    )
    SELECT subject, {_MS.format("occurred_at")}, id, device_id, name, properties
      FROM past WHERE name = ANY(%s) AND occurred_at > %s
"""  # noqa: S608 - only names of our own columns are put in
_PAST_VISITS = f"""{_OWNED}
    SELECT o.subject, t.geofence_id, g.external_id, g.tags, {_MS.format("min(t.entered_at)")},
           {_MS.format("max(t.occurred_at) FILTER (WHERE t.kind = 'exited')")}
      FROM owned o
      JOIN devices_transition t ON t.device_id = o.device_id
      JOIN geofences_geofence g ON g.id = t.geofence_id
     WHERE t.occurred_at > %s
       AND (g.tags && %s::varchar[] OR g.id = ANY(%s::bigint[]) OR g.external_id = ANY(%s::text[]))
     GROUP BY o.subject, t.device_id, t.visit_id, t.geofence_id, g.external_id, g.tags
"""  # noqa: S608 - only names of our own columns are put in


def measure(happenings: Iterable[Happening], now_ms: int) -> None:
    """Give each subject the figures its candidates' audiences ask for: two queries at most."""
    asked: dict[int, set[behaviour.Need]] = defaultdict(set)
    subjects: dict[int, tuple[Subject, int]] = {}
    for happening in happenings:
        subject = happening.moment.subject
        wanted = needs(happening.candidates, happening.moment)
        if wanted:
            asked[subject.device_id] |= wanted
            subjects[subject.device_id] = (subject, happening.brand.id)
    if not asked:
        return
    everything = set().union(*asked.values())
    events = _past_events(subjects, [need for need in everything if need.kind == "event"], now_ms)
    visits = _past_visits(subjects, [need for need in everything if need.kind == "visits"], now_ms)
    for device_id, (subject, _) in subjects.items():
        for need in asked[device_id]:
            subject.measures[need] = behaviour.measure(
                need, events.get(device_id, ()), visits.get(device_id, ()), now_ms=now_ms
            )


def _who(subjects: Mapping[int, tuple[Subject, int]]) -> tuple[list[int], list[int], list[str]]:
    return (
        list(subjects),
        [brand_id for _, brand_id in subjects.values()],
        [subject.external_id or "" for subject, _ in subjects.values()],
    )


def _since(wanted: Sequence[behaviour.Need], now_ms: int) -> datetime:
    """The start of the longest window; for visits that began before it, a month more."""
    spans = [need.within_s or behaviour.MAX_WITHIN_S for need in wanted]
    return datetime.fromtimestamp(now_ms / 1000 - max(spans) - 30 * 86_400, UTC)


def _past_events(
    subjects: Mapping[int, tuple[Subject, int]], wanted: Sequence[behaviour.Need], now_ms: int
) -> dict[int, list[behaviour.PastEvent]]:
    found: dict[int, list[behaviour.PastEvent]] = defaultdict(list)
    if wanted:
        names = list({need.name for need in wanted})
        with connection.cursor() as cursor:
            cursor.execute(_ITEMS_OF_EVENTS, (*_who(subjects), names, _since(wanted, now_ms)))
            for device_id, at_ms, _, _, name, properties in cursor.fetchall():
                found[device_id].append(behaviour.PastEvent(name, at_ms, _json(properties)))
    return found


def _past_visits(
    subjects: Mapping[int, tuple[Subject, int]], wanted: Sequence[behaviour.Need], now_ms: int
) -> dict[int, list[behaviour.PastVisit]]:
    found: dict[int, list[behaviour.PastVisit]] = defaultdict(list)
    if wanted:
        tags = list({tag for need in wanted for tag in need.tags})
        named = {place for need in wanted for place in need.geofences}
        ids = [place for place in named if isinstance(place, int)]
        external_ids = [place for place in named if isinstance(place, str)]
        with connection.cursor() as cursor:
            cursor.execute(
                _PAST_VISITS, (*_who(subjects), _since(wanted, now_ms), tags, ids, external_ids)
            )
            for device_id, *visit in cursor.fetchall():
                found[device_id].append(behaviour.PastVisit(*visit))
    return found


def items(
    subjects: Mapping[int, tuple[Subject, int]],
    steps: Iterable[sequences.Step],
    since_ms: int,
) -> dict[int, list[sequences.Item]]:
    """What may be a step of a sequence, by subject: two queries at most."""
    wanted = list(steps)
    found: dict[int, list[sequences.Item]] = defaultdict(list)
    since_at = datetime.fromtimestamp(since_ms / 1000, UTC)
    who = _who(subjects)
    names = list({step.name for step in wanted if step.is_event})
    kinds = list({step.name for step in wanted if not step.is_event})
    with connection.cursor() as cursor:
        if names:
            cursor.execute(_ITEMS_OF_EVENTS, (*who, names, since_at))
            for subject, at_ms, key, device_id, name, properties in cursor.fetchall():
                found[subject].append(
                    sequences.Item(
                        at_ms, "event", key, device_id, name, properties=_json(properties)
                    )
                )
        if kinds:
            named = {place for step in wanted for place in step.geofences}
            cursor.execute(
                _ITEMS_AT_PLACES,
                (
                    *who,
                    since_at,
                    kinds,
                    list({tag for step in wanted for tag in step.tags}),
                    [place for place in named if isinstance(place, int)],
                    [place for place in named if isinstance(place, str)],
                ),
            )
            for subject, at_ms, key, device_id, kind, *place in cursor.fetchall():
                found[subject].append(
                    sequences.Item(at_ms, "transition", key, device_id, kind, *place)
                )
    return found


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value

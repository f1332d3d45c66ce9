"""What persons did before: the events and visits that audiences and sequences ask about.

One query each for any number of persons; what it means is for the pure modules to say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.db import connection

from campaigns import behaviour, rules, sequences
from campaigns.audience import Subject
from campaigns.moments import Happening
from devices.areas import REACH_M

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


# Areas are coarse: one touches a place when its middle is within its own radius of it.
_AREAS = f"""{_OWNED}
    SELECT o.subject, a.kind, g.id, g.external_id, g.tags, {_MS.format("a.last_at")}
      FROM owned o
      JOIN devices_device d ON d.id = o.device_id AND d.consent_location
      JOIN brands_brand b ON b.id = d.brand_id AND b.derive_areas
      JOIN devices_area a ON a.device_id = d.id
      JOIN geofences_geofence g ON g.brand_id = d.brand_id AND g.retired_at IS NULL
       AND ST_DWithin(
             g.geometry::geography, ST_SetSRID(ST_MakePoint(a.lng, a.lat), 4326)::geography,
             %s + coalesce(g.radius_m, 0))
     WHERE g.tags && %s::varchar[] OR g.id = ANY(%s::bigint[]) OR g.external_id = ANY(%s::text[])
"""  # noqa: S608 - only names of our own columns are put in


def measure(happenings: Iterable[Happening], now_ms: int) -> None:
    """Give each subject the figures its candidates' audiences ask for: two queries at most."""
    asked: dict[int, set[behaviour.Need]] = defaultdict(set)
    about_here: list[tuple[Happening, set[behaviour.Need]]] = []
    subjects: dict[int, tuple[Subject, int]] = {}
    for happening in happenings:
        subject = happening.moment.subject
        wanted = rules.needs(happening.candidates, happening.moment)
        if wanted:
            here = {need for need in wanted if need.here}
            if here:
                about_here.append((happening, here))
            asked[subject.device_id] |= concrete(wanted, happening.moment.geofence_id)
            subjects[subject.device_id] = (subject, happening.brand.id)
    if not asked:
        return
    everything: set[behaviour.Need] = set().union(*asked.values())
    events = _past_events(subjects, [need for need in everything if need.kind == "event"], now_ms)
    visits = _past_visits(subjects, [need for need in everything if need.kind == "visits"], now_ms)
    areas = past_areas(subjects, [need for need in everything if need.kind in AREAS])
    for device_id, (subject, _) in subjects.items():
        for need in asked[device_id]:
            subject.measures[need] = (
                behaviour.area_age_s(need, areas.get(device_id, ()), now_ms=now_ms)
                if need.kind in AREAS
                else behaviour.measure(
                    need, events.get(device_id, ()), visits.get(device_id, ()), now_ms=now_ms
                )
            )
    for happening, here in about_here:
        tell_of_here(happening.moment, here)


def measure_each(asked: Iterable[tuple[rules.Moment, int, Set[behaviour.Need]]]) -> None:
    """As `measure`, for moments (with their brands) of different times and a subject each."""
    wanted = [
        (
            moment,
            brand_id,
            concrete(needed, moment.geofence_id),
            {one for one in needed if one.here},
        )
        for moment, brand_id, needed in asked
        if needed
    ]
    if not wanted:
        return
    everything: set[behaviour.Need] = set().union(*(needed for _, _, needed, _ in wanted))
    subjects = {
        moment.subject.device_id: (moment.subject, brand_id) for moment, brand_id, _, _ in wanted
    }
    first_ms = min(moment.now_ms for moment, _, _, _ in wanted)
    events = _past_events(subjects, [one for one in everything if one.kind == "event"], first_ms)
    visits = _past_visits(subjects, [one for one in everything if one.kind == "visits"], first_ms)
    areas = past_areas(subjects, [one for one in everything if one.kind in AREAS])
    for moment, _, needed, here in wanted:
        device_id, now_ms = moment.subject.device_id, moment.now_ms
        for need in needed:
            moment.subject.measures[need] = (
                behaviour.area_age_s(need, areas.get(device_id, ()), now_ms=now_ms)
                if need.kind in AREAS
                else behaviour.measure(
                    need, events.get(device_id, ()), visits.get(device_id, ()), now_ms=now_ms
                )
            )
        tell_of_here(moment, here)


AREAS = frozenset({"home", "usual"})


def concrete(needs: Iterable[behaviour.Need], geofence_id: int | None) -> set[behaviour.Need]:
    """The figures to gather: those about "here" are about the place of the moment, if any."""
    return {
        need.at(geofence_id or 0) if need.here else need
        for need in needs
        if geofence_id is not None or not need.here
    }


def tell_of_here(moment: rules.Moment, here: Iterable[behaviour.Need]) -> None:
    """Give a moment a subject of its own: another moment of the same device is elsewhere."""
    if moment.geofence_id is None:
        return
    known = moment.subject.measures
    own = {need: known.get(need.at(moment.geofence_id)) for need in here}
    moment.subject = replace(moment.subject, measures=known | own)


def past_areas(
    subjects: Mapping[int, tuple[Subject, int]], wanted: Sequence[behaviour.Need]
) -> dict[int, list[behaviour.PastArea]]:
    """The places that the homes and usual areas of persons touch, of those that are asked for."""
    found: dict[int, list[behaviour.PastArea]] = defaultdict(list)
    if wanted:
        named = {place for need in wanted for place in need.geofences}
        with connection.cursor() as cursor:
            cursor.execute(
                _AREAS,
                (
                    *_who(subjects),
                    REACH_M,
                    list({tag for need in wanted for tag in need.tags}),
                    [place for place in named if isinstance(place, int)],
                    [place for place in named if isinstance(place, str)],
                ),
            )
            for device_id, *area in cursor.fetchall():
                found[device_id].append(behaviour.PastArea(*area))
    return found


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

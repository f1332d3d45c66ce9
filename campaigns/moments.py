"""Claims what happened and gathers what the rules need to know of it: rows in, moments out.

It takes the same number of queries whatever the size of a batch, and decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import asin, cos, radians, sin, sqrt
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from django.db import connection

from campaigns import behaviour, hours, rules
from campaigns.audience import Subject
from campaigns.catalogue import BrandRules, Catalogue, needs
from campaigns.definition import InitialState, TriggerOn
from geofences.geometry import EARTH_RADIUS_M

_MS = "(extract(epoch FROM {}) * 1000)::bigint"

_CLAIM_TRANSITIONS = f"""
    SELECT id, brand_id, device_id, geofence_id, kind, visit_id, dwell_s,
           {_MS.format("entered_at")}, {_MS.format("occurred_at")}, reason, lat, lng, accuracy_m
      FROM devices_transition
     WHERE processed_at IS NULL
     ORDER BY id LIMIT %s
       FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - only names of our own columns are put in
_CLAIM_EVENTS = f"""
    SELECT id, brand_id, device_id, external_id, name, {_MS.format("occurred_at")}, properties
      FROM devices_event
     WHERE processed_at IS NULL
     ORDER BY id LIMIT %s
       FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - only names of our own columns are put in
# A person's event concerns the device that was heard of last.
_RESOLVE = """
    SELECT DISTINCT ON (d.brand_id, d.external_id) d.brand_id, d.external_id, d.id
      FROM unnest(%s::bigint[], %s::text[]) AS u(brand_id, external_id)
      JOIN devices_device d ON d.brand_id = u.brand_id AND d.external_id = u.external_id
      LEFT JOIN devices_devicestate s ON s.device_id = d.id
     ORDER BY d.brand_id, d.external_id, s.received_at DESC NULLS LAST, d.id DESC
"""
_DEVICES = """
    SELECT d.id, d.brand_id, d.external_id, d.platform, d.locale, d.timezone, d.app_version,
           d.attributes, d.attribute_facts, d.consent_location, d.consent_marketing,
           d.push_token IS NOT NULL, p.attributes, p.attribute_facts
      FROM devices_device d
      LEFT JOIN devices_profile p ON p.brand_id = d.brand_id AND p.external_id = d.external_id
     WHERE d.id = ANY(%s)
"""
_PLACES = """
    SELECT id, changed_xid, external_id, name, tags, metadata, dwell_s,
           ST_Y(ST_Centroid(geometry)), ST_X(ST_Centroid(geometry))
      FROM geofences_geofence WHERE id = ANY(%s)
"""
_PLACE_MARKS = "SELECT id, changed_xid FROM geofences_geofence WHERE id = ANY(%s)"
_BEGAN_INITIALLY = """
    SELECT t.device_id, t.visit_id
      FROM unnest(%s::bigint[], %s::bigint[]) AS u(device_id, visit_id)
      JOIN devices_transition t
        ON t.device_id = u.device_id AND t.visit_id = u.visit_id AND t.kind = 'entered'
     WHERE t.reason = 'initial'
"""
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
_PAST_EVENTS = f"""{_OWNED}, past AS (
      SELECT o.subject, e.* FROM owned o JOIN devices_event e ON e.device_id = o.device_id
       UNION ALL
      SELECT a.subject, e.* FROM asked a
        JOIN devices_event e ON e.brand_id = a.brand_id AND e.external_id = a.external_id
       WHERE a.external_id <> '' AND e.device_id IS NULL
    )
    SELECT subject, name, {_MS.format("occurred_at")}, properties
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


class Place(NamedTuple):
    """What moments tell of a geofence."""

    id: int
    mark: int
    external_id: str | None
    name: str
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    dwell_s: int | None
    lat: float | None
    lng: float | None


class TransitionRow(NamedTuple):
    id: int
    brand_id: int
    device_id: int
    geofence_id: int
    kind: str
    visit_id: int
    dwell_s: int
    entered_ms: int
    occurred_ms: int
    reason: str
    lat: float | None
    lng: float | None
    accuracy_m: float | None


class EventRow(NamedTuple):
    id: int
    brand_id: int
    device_id: int | None
    external_id: str
    name: str
    occurred_ms: int
    properties: Any


@dataclass(slots=True, kw_only=True)
class Happening:
    """A moment with the campaigns it concerns and what an offer may say of it."""

    moment: rules.Moment
    brand: BrandRules
    candidates: tuple[rules.Campaign, ...]
    place: Place | None = None
    fix: tuple[float, float] | None = None


@dataclass(slots=True, kw_only=True)
class Batch:
    """What one evaluation claimed; `happenings` are those of it that concern some campaign."""

    transitions: list[TransitionRow]
    events: list[EventRow]
    happenings: list[Happening] = field(default_factory=list)
    parked: list[tuple[str, int, str]] = field(default_factory=list)  # (kind, id, why)

    def __len__(self) -> int:
        return len(self.transitions) + len(self.events)


def claim(limit: int) -> Batch:
    """Lock the oldest unprocessed transitions and events that nobody else holds."""
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM_TRANSITIONS, (limit,))
        transitions = [TransitionRow._make(row) for row in cursor.fetchall()]
        cursor.execute(_CLAIM_EVENTS, (limit,))
        events = [EventRow._make(row) for row in cursor.fetchall()]
    return Batch(transitions=transitions, events=events)


def gather(batch: Batch, catalogue: Catalogue, now_ms: int) -> None:
    """Fill `batch.happenings`: a bounded number of queries, the same for one row as for many."""
    places = known_places({row.geofence_id for row in batch.transitions})
    found = [(row, _at_place(row, places, catalogue)) for row in batch.transitions]
    concerned = [(row, campaigns) for row, campaigns in found if campaigns]
    events = [(row, catalogue.on_event(row.brand_id, row.name)) for row in batch.events]
    awaited = _resolved([(row, campaigns) for row, campaigns in events if campaigns])
    subjects = _Subjects(catalogue, now_ms)
    subjects.load(
        {row.device_id for row, _ in concerned} | {device_id for _, device_id, _ in awaited}
    )
    initial = _initial_visits(concerned)
    for row, campaigns in concerned:
        known = subjects.known.get(row.device_id)
        if known is None:
            continue  # erased since: nothing may name it any more
        place = places[row.geofence_id]
        batch.happenings.append(
            Happening(
                moment=_transition_moment(row, place, known, now_ms, initial),
                brand=known.brand,
                candidates=campaigns,
                place=place,
                fix=None if row.lat is None or row.lng is None else (row.lat, row.lng),
            )
        )
    for event, device_id, campaigns in awaited:
        known = subjects.known.get(device_id)
        if known is not None and known.brand.id == event.brand_id:
            batch.happenings.append(
                Happening(
                    moment=_event_moment(event, known, now_ms),
                    brand=known.brand,
                    candidates=campaigns,
                )
            )
    _measure(batch.happenings, now_ms)


# -- places -----------------------------------------------------------------------------------

KEPT_PLACES = 200_000
_places: OrderedDict[int, Place] = OrderedDict()


def known_places(ids: set[int]) -> dict[int, Place]:
    """The geofences by id, from memory where their row has not changed."""
    if not ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_PLACE_MARKS, (list(ids),))
        marks = dict(cursor.fetchall())
        found = {
            key: place
            for key, mark in marks.items()
            if (place := _places.get(key)) is not None and place.mark == mark
        }
        stale = [key for key in marks if key not in found]
        if stale:
            cursor.execute(_PLACES, (stale,))
            for row in cursor.fetchall():
                key, mark, external_id, name, tags, metadata, dwell_s, lat, lng = row
                found[key] = _places[key] = Place(
                    key,
                    mark,
                    external_id,
                    name,
                    tuple(tags),
                    _json(metadata),
                    dwell_s,
                    lat,
                    lng,
                )
    while len(_places) > KEPT_PLACES:
        _places.popitem(last=False)
    return found


def _at_place(
    row: TransitionRow, places: dict[int, Place], catalogue: Catalogue
) -> tuple[rules.Campaign, ...]:
    place = places.get(row.geofence_id)
    if place is None:
        return ()
    return catalogue.at_place(
        row.brand_id,
        TriggerOn(row.kind),
        geofence_id=place.id,
        external_id=place.external_id,
        tags=place.tags,
        dwell_s=row.dwell_s,
        own_dwell_s=place.dwell_s,
    )


def distance_m(place: Place, fix: tuple[float, float] | None) -> int | None:
    """Metres from the fix to the middle of the place, for templates: "320 m from here"."""
    if fix is None or place.lat is None or place.lng is None:
        return None
    lat_a, lat_b = radians(fix[0]), radians(place.lat)
    half = (
        sin((lat_b - lat_a) / 2) ** 2
        + cos(lat_a) * cos(lat_b) * sin(radians(place.lng - fix[1]) / 2) ** 2
    )
    return round(2 * float(EARTH_RADIUS_M) * asin(sqrt(min(1.0, half))))


# -- devices and persons ----------------------------------------------------------------------


class Known(NamedTuple):
    """A device at this moment of judging."""

    subject: Subject
    brand: BrandRules
    tz: ZoneInfo
    local: hours.Local


class _Subjects:
    """The devices of a batch and their persons; the wall clock is read once per zone."""

    def __init__(self, catalogue: Catalogue, now_ms: int) -> None:
        self.known: dict[int, Known] = {}
        self._brands = catalogue.brands
        self._now_ms = now_ms
        self._clocks: dict[tuple[str, str], tuple[ZoneInfo, hours.Local]] = {}

    def load(self, device_ids: set[int]) -> None:
        if not device_ids:
            return
        with connection.cursor() as cursor:
            cursor.execute(_DEVICES, (list(device_ids),))
            for row in cursor.fetchall():
                brand = self._brands.get(row[1])
                if brand is not None:
                    self.known[row[0]] = self._known(row, brand)

    def _known(self, row: Sequence[Any], brand: BrandRules) -> Known:
        (device_id, _, external_id, platform, locale, timezone, app_version) = row[:7]
        attributes, facts = merged(
            _json(row[7]), _json(row[8]), _json(row[12]) or {}, _json(row[13]) or {}
        )
        clock = self._clocks.get((timezone, brand.timezone))
        if clock is None:
            tz = hours.zone(timezone, brand.timezone)
            clock = self._clocks[timezone, brand.timezone] = (tz, hours.local(self._now_ms, tz))
        subject = Subject(
            device_id=device_id,
            person=person_of(device_id, external_id),
            external_id=external_id,
            platform=platform,
            locale=locale,
            timezone=clock[0].key,
            app_version=app_version,
            attributes=attributes,
            facts=facts,
            consent_location=row[9],
            consent_marketing=row[10],
            has_push=row[11],
            now_ms=self._now_ms,
        )
        return Known(subject, brand, *clock)


def person_of(device_id: int, external_id: str | None) -> str:
    """Whom caps count: the person behind an external id, else the device by itself."""
    return external_id or f"device:{device_id}"


def merged(
    own: dict[str, Any], own_facts: dict[str, Any], shared: dict[str, Any], facts: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of a person: what the device said, unless the back office said it later."""
    known = {name: _fact(fact) for name, fact in own_facts.items()}
    if not shared:
        return own, known
    attributes = dict(shared)
    theirs = {name: _fact(fact) for name, fact in facts.items()}
    for name, value in own.items():
        later = (theirs.get(name) or {}).get("at_ms") or 0
        if name not in shared or later <= ((known.get(name) or {}).get("at_ms") or 0):
            attributes[name] = value
            theirs[name] = known.get(name, {})
    return attributes, theirs


def _fact(fact: dict[str, Any]) -> dict[str, Any]:
    try:
        at_ms = round(datetime.fromisoformat(fact["at"]).timestamp() * 1000)
    except (KeyError, TypeError, ValueError):
        at_ms = None
    return {"source": fact.get("source"), "at_ms": at_ms}


def _resolved(
    events: list[tuple[EventRow, tuple[rules.Campaign, ...]]],
) -> list[tuple[EventRow, int, tuple[rules.Campaign, ...]]]:
    """Events with the device they concern; those of a person without any device fall away."""
    persons = {(row.brand_id, row.external_id) for row, _ in events if row.device_id is None}
    owners: dict[tuple[int, str], int] = {}
    if persons:
        brand_ids, external_ids = zip(*persons, strict=True)
        with connection.cursor() as cursor:
            cursor.execute(_RESOLVE, (list(brand_ids), list(external_ids)))
            owners = {(brand_id, name): device for brand_id, name, device in cursor.fetchall()}
    found = []
    for row, campaigns in events:
        device_id = row.device_id or owners.get((row.brand_id, row.external_id))
        if device_id is not None:
            found.append((row, device_id, campaigns))
    return found


# -- moments ----------------------------------------------------------------------------------


def _initial_visits(
    concerned: list[tuple[TransitionRow, tuple[rules.Campaign, ...]]],
) -> set[tuple[int, int]]:
    """The visits that began with the arming; only asked where a campaign cares."""
    asked = [
        row
        for row, campaigns in concerned
        if row.kind != TriggerOn.ENTERED
        and any(one.initial_state is InitialState.REQUIRE_EXIT for one in campaigns)
    ]
    found = {(row.device_id, row.visit_id) for row, _ in concerned if row.reason == "initial"}
    if asked:
        with connection.cursor() as cursor:
            cursor.execute(
                _BEGAN_INITIALLY,
                ([row.device_id for row in asked], [row.visit_id for row in asked]),
            )
            found |= {(device_id, visit_id) for device_id, visit_id in cursor.fetchall()}
    return found


def _transition_moment(
    row: TransitionRow, place: Place, known: Known, now_ms: int, initial: set[tuple[int, int]]
) -> rules.Moment:
    return rules.Moment(
        kind="transition",
        id=row.id,
        on=TriggerOn(row.kind),
        occurred_ms=row.occurred_ms,
        now_ms=now_ms,
        subject=known.subject,
        tz=known.tz,
        local=known.local,
        geofence_id=row.geofence_id,
        tags=place.tags,
        dwell_s=row.dwell_s,
        visit_id=row.visit_id,
        entered_ms=row.entered_ms,
        reason=row.reason,
        began_initially=(row.device_id, row.visit_id) in initial,
    )


def _event_moment(row: EventRow, known: Known, now_ms: int) -> rules.Moment:
    return rules.Moment(
        kind="event",
        id=row.id,
        on=TriggerOn.EVENT,
        occurred_ms=row.occurred_ms,
        now_ms=now_ms,
        subject=known.subject,
        tz=known.tz,
        local=known.local,
        event=row.name,
        properties=_json(row.properties),
    )


# -- behaviour --------------------------------------------------------------------------------


def _measure(happenings: Iterable[Happening], now_ms: int) -> None:
    """Give each subject the figures its candidates' audiences ask for: two queries at most."""
    asked: dict[int, set[behaviour.Need]] = defaultdict(set)
    subjects: dict[int, tuple[Subject, int]] = {}
    for happening in happenings:
        subject = happening.moment.subject
        wanted = needs(happening.candidates)
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


def _who(subjects: dict[int, tuple[Subject, int]]) -> tuple[list[int], list[int], list[str]]:
    return (
        list(subjects),
        [brand_id for _, brand_id in subjects.values()],
        [subject.external_id or "" for subject, _ in subjects.values()],
    )


def _since(wanted: Sequence[behaviour.Need], now_ms: int) -> datetime:
    """The start of the longest window; for visits that began before it, a month more."""
    spans = [need.within_s or behaviour.MAX_WITHIN_S for need in wanted]
    return datetime.fromtimestamp(now_ms / 1000 - max(spans) - 30 * 86_400, hours.zone("UTC"))


def _past_events(
    subjects: dict[int, tuple[Subject, int]], wanted: Sequence[behaviour.Need], now_ms: int
) -> dict[int, list[behaviour.PastEvent]]:
    found: dict[int, list[behaviour.PastEvent]] = defaultdict(list)
    if wanted:
        names = list({need.name for need in wanted})
        with connection.cursor() as cursor:
            cursor.execute(_PAST_EVENTS, (*_who(subjects), names, _since(wanted, now_ms)))
            for device_id, name, at_ms, properties in cursor.fetchall():
                found[device_id].append(behaviour.PastEvent(name, at_ms, _json(properties)))
    return found


def _past_visits(
    subjects: dict[int, tuple[Subject, int]], wanted: Sequence[behaviour.Need], now_ms: int
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


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value

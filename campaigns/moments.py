"""Claims what happened and gathers what the rules need to know of it: rows in, moments out.

It takes the same number of queries whatever the size of a batch, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from django.db import connection

from campaigns import rules
from campaigns.catalogue import Catalogue
from campaigns.compiling import BrandRules
from campaigns.definition import InitialState, TriggerOn
from campaigns.places import Place, known_places
from campaigns.subjects import Known, Subjects

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
_BEGAN_INITIALLY = """
    SELECT t.device_id, t.visit_id
      FROM unnest(%s::bigint[], %s::bigint[]) AS u(device_id, visit_id)
      JOIN devices_transition t
        ON t.device_id = u.device_id AND t.visit_id = u.visit_id AND t.kind = 'entered'
     WHERE t.reason = 'initial'
"""
# Sequences whose wait is over.
_CLAIM_DUE = f"""
    SELECT id, brand_id, person, device_id, campaign_id, last_kind, last_id, key,
           {_MS.format("first_at")}, {_MS.format("due_at")}
      FROM campaigns_completion
     WHERE settled_at IS NULL AND due_at <= %s
     ORDER BY due_at, id LIMIT %s
       FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - only names of our own columns are put in


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


class DueRow(NamedTuple):
    """A completed sequence that waited to see that nothing calls it off."""

    id: int
    brand_id: int
    person: str
    device_id: int
    campaign_id: int
    last_kind: str
    last_id: int
    key: str
    first_ms: int
    due_ms: int


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
    """What one evaluation holds under its locks."""

    transitions: list[TransitionRow]
    events: list[EventRow]
    due: list[DueRow]

    def __len__(self) -> int:
        return len(self.transitions) + len(self.events) + len(self.due)

    def claimed(self) -> list[tuple[str, list[int]]]:
        """The ids of what is held, by kind; kinds without any are left out."""
        kinds = (("transition", self.transitions), ("event", self.events), ("timer", self.due))
        return [(kind, [row.id for row in rows]) for kind, rows in kinds if rows]


class Arrival(NamedTuple):
    """A claimed row with the campaigns that it may set off, and those it may advance."""

    row: TransitionRow | EventRow
    device_id: int
    place: Place | None
    direct: tuple[rules.Campaign, ...]
    sequences: tuple[rules.Campaign, ...]


def claim(limit: int, now: datetime) -> Batch:
    """Lock the oldest unprocessed rows, and the sequences that are due, that nobody else holds."""
    return Batch(
        transitions=_claim_transitions(limit),
        events=_claim_events(limit),
        due=_claim_due(limit, now),
    )


def claim_one(now: datetime) -> Batch:
    """The same of a single row, of whatever kind: what it fails with is of no other row."""
    transitions = _claim_transitions(1)
    events = [] if transitions else _claim_events(1)
    due = [] if transitions or events else _claim_due(1, now)
    return Batch(transitions=transitions, events=events, due=due)


def _claim_transitions(limit: int) -> list[TransitionRow]:
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM_TRANSITIONS, (limit,))
        return [TransitionRow._make(row) for row in cursor.fetchall()]


def _claim_events(limit: int) -> list[EventRow]:
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM_EVENTS, (limit,))
        return [EventRow._make(row) for row in cursor.fetchall()]


def _claim_due(limit: int, now: datetime) -> list[DueRow]:
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM_DUE, (now, limit))
        return [DueRow._make(row) for row in cursor.fetchall()]


def arrivals(
    batch: Batch, catalogue: Catalogue, now_ms: int
) -> tuple[list[tuple[Arrival, Happening]], Subjects]:
    """The claimed rows that concern some campaign, each as a happening, and who they are about.

    A bounded number of queries, the same for one row as for many. A device that was erased since
    has no happening: nothing may name it any more.
    """
    places = known_places({row.geofence_id for row in batch.transitions})
    found = [_at_place(row, places, catalogue) for row in batch.transitions]
    found += _resolved([_on_event(row, catalogue) for row in batch.events])
    concerned = [one for one in found if one.direct or one.sequences]
    subjects = Subjects(catalogue.brands, now_ms)
    subjects.load({one.device_id for one in concerned} | {row.device_id for row in batch.due})
    initial = _initial_visits(concerned)
    pairs = []
    for one in concerned:
        known = subjects.known.get(one.device_id)
        if known is not None and known.brand.id == one.row.brand_id:
            pairs.append((one, _happening(one, known, now_ms, initial)))
    return pairs, subjects


def _happening(
    arrival: Arrival, known: Known, now_ms: int, initial: set[tuple[int, int]]
) -> Happening:
    row, place = arrival.row, arrival.place
    if isinstance(row, TransitionRow) and place is not None:
        return Happening(
            moment=_transition_moment(row, place, known, now_ms, initial),
            brand=known.brand,
            candidates=arrival.direct,
            place=place,
            fix=None if row.lat is None or row.lng is None else (row.lat, row.lng),
        )
    assert isinstance(row, EventRow)
    moment = _event_moment(row, known, now_ms)
    return Happening(moment=moment, brand=known.brand, candidates=arrival.direct)


def _at_place(row: TransitionRow, places: dict[int, Place], catalogue: Catalogue) -> Arrival:
    place = places.get(row.geofence_id)
    if place is None:
        return Arrival(row, row.device_id, None, (), ())
    on, named = TriggerOn(row.kind), (place.id, place.external_id, place.tags)
    direct = catalogue.at_place(
        row.brand_id, on, *named, dwell_s=row.dwell_s, own_dwell_s=place.dwell_s
    )
    sequences = catalogue.sequences_at_place(row.brand_id, on, *named)
    return Arrival(row, row.device_id, place, direct, sequences)


def _on_event(row: EventRow, catalogue: Catalogue) -> Arrival:
    direct = catalogue.on_event(row.brand_id, row.name)
    sequences = catalogue.sequences_on_event(row.brand_id, row.name)
    return Arrival(row, row.device_id or 0, None, direct, sequences)


def _resolved(found: Sequence[Arrival]) -> list[Arrival]:
    """Events with the device they concern; those of a person without any device fall away."""
    persons = {
        (one.row.brand_id, one.row.external_id)
        for one in found
        if isinstance(one.row, EventRow)
        and one.row.device_id is None
        and (one.direct or one.sequences)
    }
    owners: dict[tuple[int, str], int] = {}
    if persons:
        brand_ids, external_ids = zip(*persons, strict=True)
        with connection.cursor() as cursor:
            cursor.execute(_RESOLVE, (list(brand_ids), list(external_ids)))
            owners = {(brand_id, name): device for brand_id, name, device in cursor.fetchall()}
    return [
        one._replace(device_id=device_id)
        for one in found
        if isinstance(one.row, EventRow)
        and (device_id := one.device_id or owners.get((one.row.brand_id, one.row.external_id)))
    ]


def _initial_visits(concerned: Sequence[Arrival]) -> set[tuple[int, int]]:
    """The visits that began with the arming; only asked where a campaign cares."""
    rows = [(one, one.row) for one in concerned if isinstance(one.row, TransitionRow)]
    asked = [
        row
        for one, row in rows
        if row.kind != TriggerOn.ENTERED
        and any(
            campaign.initial_state is InitialState.REQUIRE_EXIT
            for campaign in (*one.direct, *one.sequences)
        )
    ]
    found = {(row.device_id, row.visit_id) for _, row in rows if row.reason == "initial"}
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
        place=place,
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


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value

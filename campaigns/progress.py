"""How far persons are in sequences: what a row completes, and what time does. It judges nothing.

A completion is a row of its own, unique by its last step, so that it fires once (promise 2): at
once, or when the time in which nothing may happen is over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.db import connection

from campaigns import behaviour, past, rules, sequences
from campaigns.catalogue import Catalogue
from campaigns.moments import Arrival, DueRow, Happening
from campaigns.places import known_places
from campaigns.reasons import Reason, Refusal, Trace
from campaigns.sequences import Completion, Fired, Item
from campaigns.subjects import Known, Subjects

_FIRED = """
    SELECT c.person, c.campaign_id, c.last_kind, c.last_id, c.key,
           (extract(epoch FROM c.completed_at) * 1000)::bigint, c.called_off
      FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) AS u(brand_id, person, campaign_id)
      JOIN campaigns_completion c
        ON c.brand_id = u.brand_id AND c.person = u.person AND c.campaign_id = u.campaign_id
"""
# Those nobody evaluates yet. Who does so now sees what this batch sees, or is seen: one of both
# keeps the completion.
_TO_COME = {
    kind: f"""
    SELECT id FROM {table} WHERE id = ANY(%s) AND processed_at IS NULL
       FOR KEY SHARE SKIP LOCKED
"""  # noqa: S608 - only our own names are put in
    for kind, table in (("transition", "devices_transition"), ("event", "devices_event"))
}
# In one order, so that two evaluators that write the same completions never wait in a ring.
_KEEP = """
    INSERT INTO campaigns_completion
        (brand_id, person, device_id, campaign_id, last_kind, last_id, key, first_at,
         completed_at, due_at, settled_at, called_off)
    SELECT u.*, false FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::text[],
                         %s::bigint[], %s::text[], %s::timestamptz[], %s::timestamptz[],
                         %s::timestamptz[], %s::timestamptz[])
        AS u(brand_id, person, device_id, campaign_id, last_kind, last_id, key, first_at,
             completed_at, due_at, settled_at)
     ORDER BY brand_id, person, campaign_id, last_kind, last_id, key
    ON CONFLICT ON CONSTRAINT one_completion_per_last_step DO NOTHING
    RETURNING person, campaign_id, last_kind, last_id, key
"""

Pair = tuple[int, str, int]  # brand, person, campaign


class Found(NamedTuple):
    """A completion that this batch came upon."""

    pair: Pair
    campaign: rules.Campaign
    completion: Completion
    known: Known
    trigger: Happening  # of the row that brought it about

    @property
    def last_key(self) -> tuple[str, int]:
        return self.completion.last.kind, self.completion.last.id


@dataclass(slots=True)
class _Person:
    """One person in one sequence, with the rows of this batch that may advance it."""

    campaign: rules.Campaign
    known: Known
    rows: list[tuple[Arrival, Happening]] = field(default_factory=list)
    due: list[DueRow] = field(default_factory=list)


def advance(
    pairs: Sequence[tuple[Arrival, Happening]],
    due: Sequence[DueRow],
    subjects: Subjects,
    catalogue: Catalogue,
    now_ms: int,
) -> list[Happening]:
    """The moments at which sequences fire, or at which their last step came in vain.

    At most nine queries, none where no sequence is concerned.
    """
    people = _people(pairs, due, subjects, catalogue)
    if not people:
        return []
    asked = {
        person.known.subject.device_id: (person.known.subject, pair[0])
        for pair, person in people.items()
    }
    patterns = [_pattern(person.campaign) for person in people.values()]
    steps = {
        step for one in patterns for step in (*one.steps, *((one.unless,) if one.unless else ()))
    }
    items = past.items(asked, steps, _since_ms(patterns, now_ms))
    fired = _fired(list(people))
    completed = {
        pair: _completed(
            pair, person, items.get(person.known.subject.device_id, []), fired[pair], now_ms
        )
        for pair, person in people.items()
    }
    to_come = _to_come([one for new in completed.values() for one in new])
    found: list[Found] = []
    happenings: list[Happening] = []
    for pair, person in people.items():
        mine = items.get(person.known.subject.device_id, [])
        new = [one for one in completed[pair] if one.last_key not in to_come]
        found += new
        happenings += _in_vain(person, mine, fired[pair], new)
        happenings += [_when_due(row, person, mine, now_ms) for row in person.due]
    happenings += _firing(_kept(found, now_ms), now_ms)
    _place(happenings)
    return happenings


def _people(
    pairs: Sequence[tuple[Arrival, Happening]],
    due: Sequence[DueRow],
    subjects: Subjects,
    catalogue: Catalogue,
) -> dict[Pair, _Person]:
    people: dict[Pair, _Person] = {}
    for arrival, happening in pairs:
        known = subjects.known[arrival.device_id]
        for campaign in arrival.sequences:
            pair = (known.brand.id, known.subject.person, campaign.id)
            people.setdefault(pair, _Person(campaign, known)).rows.append((arrival, happening))
    for row in due:
        known_device = subjects.known.get(row.device_id)
        entry = catalogue.entries.get(row.campaign_id)
        # Stopped, republished without the sequence, or erased meanwhile: nobody to tell.
        if known_device is None or entry is None or entry.campaign.pattern is None:
            continue
        pair = (row.brand_id, row.person, row.campaign_id)
        people.setdefault(pair, _Person(entry.campaign, known_device)).due.append(row)
    return people


def _pattern(campaign: rules.Campaign) -> sequences.Pattern:
    assert campaign.pattern is not None
    return campaign.pattern


def _since_ms(patterns: Sequence[sequences.Pattern], now_ms: int) -> int:
    """How far back to read: the longest pattern, and as much again for what comes late."""
    spans = [sequences.lookback_ms(pattern) for pattern in patterns]
    most = behaviour.MAX_WITHIN_S * 1000
    longest = max(most if span is None else span for span in spans)
    return now_ms - min(most, 2 * longest + 86_400_000)


def _completed(
    pair: Pair, person: _Person, items: Sequence[Item], fired: Sequence[Fired], now_ms: int
) -> list[Found]:
    """New completions that may still matter, each with the row that brought it about."""
    if not person.rows:
        return []
    campaign, pattern = person.campaign, _pattern(person.campaign)
    new, _ = sequences.fresh(pattern, items, fired, person.known.tz)
    rows = {(happening.moment.kind, happening.moment.id): happening for _, happening in person.rows}
    found = []
    for one in new:
        own = rows.get((one.last.kind, one.last.id))
        if own is None and one.last.at_ms + pattern.for_ms < now_ms - campaign.max_age_ms:
            continue  # over before anybody asked: it was never new
        trigger = own or person.rows[-1][1]
        found.append(Found(pair, campaign, one, person.known, trigger))
    return found


def _to_come(found: Sequence[Found]) -> set[tuple[str, int]]:
    """Last steps in a later batch: those complete their sequence themselves, in their turn."""
    others: dict[str, list[int]] = defaultdict(list)
    for one in found:
        kind, row_id = one.last_key
        if (kind, row_id) != (one.trigger.moment.kind, one.trigger.moment.id):
            others[kind].append(row_id)
    to_come: set[tuple[str, int]] = set()
    with connection.cursor() as cursor:
        for kind, ids in others.items():
            cursor.execute(_TO_COME[kind], (ids,))
            to_come |= {(kind, row[0]) for row in cursor.fetchall()}
    return to_come


def _in_vain(
    person: _Person, items: Sequence[Item], fired: Sequence[Fired], new: Sequence[Found]
) -> list[Happening]:
    """Rows that match the last step and complete nothing: refused, with how far it came."""
    campaign, pattern, tz = person.campaign, _pattern(person.campaign), person.known.tz
    done = {(one.completion.last.kind, one.completion.last.id) for one in new}
    done |= {(one.kind, one.id) for one in fired}
    done |= {(one.trigger.moment.kind, one.trigger.moment.id) for one in new}
    by_id = {(item.kind, item.id): item for item in items}
    _, resting = sequences.fresh(pattern, items, fired, tz)
    rests = {(one.last.kind, one.last.id): one for one in resting}
    found = []
    for _, happening in person.rows:
        key = (happening.moment.kind, happening.moment.id)
        item = by_id.get(key)
        if item is None or key in done or not pattern.steps[-1].matches(item, tz):
            continue
        if key in rests:
            objection = Refusal(Reason.SEQUENCE_RESTS, rest_trace(pattern, fired, item.at_ms))
        else:
            near = sequences.nearest(pattern, items, item, tz)
            objection = Refusal(Reason.SEQUENCE_INCOMPLETE, near_trace(pattern, near))
        found.append(_about(happening, campaign, objection=objection))
    return found


def near_trace(pattern: sequences.Pattern, near: sequences.Nearest) -> Trace:
    trace: Trace = {"matched": near.matched, "of": near.of}
    if near.lacks:
        trace["lacks"] = f"no {near.lacks} before"
    elif near.late_by_s is not None:
        trace["lacks"] = f"{near.late_by_s} s too late"
    elif pattern.absent_ms is not None:
        trace["lacks"] = f"not away for {pattern.absent_ms // 1000} s"
    elif pattern.nth > 1:
        trace["lacks"] = f"not number {pattern.nth}"
    else:
        trace["lacks"] = "used by an earlier one"
    return trace


def rest_trace(pattern: sequences.Pattern, fired: Sequence[Fired], at_ms: int) -> Trace:
    before = [one.at_ms for one in fired if one.at_ms <= at_ms]
    trace: Trace = {"fired": len(fired)}
    if before:
        trace["last_at"] = max(before)
        if pattern.again_after_ms and not pattern.once:
            trace["next_at"] = max(before) + pattern.again_after_ms
    return trace


def _when_due(row: DueRow, person: _Person, items: Sequence[Item], now_ms: int) -> Happening:
    """The wait is over: the moment to speak, or what called it off."""
    pattern, known = _pattern(person.campaign), person.known
    last = next((i for i in items if (i.kind, i.id) == (row.last_kind, row.last_id)), None)
    objection = None
    if last is None:
        objection = Refusal(Reason.SEQUENCE_INCOMPLETE, {"lacks": "its last step"})
    else:
        completion = Completion(last, row.first_ms, row.key)
        broken = sequences.called_off(pattern, completion, items, known.tz)
        if broken is not None:
            trace = {"by": broken.name, "at": broken.at_ms, "waited_s": pattern.for_ms // 1000}
            objection = Refusal(Reason.CALLED_OFF, trace)
    moment = moment_of(known, person.campaign, last, now_ms)
    moment.kind, moment.id, moment.occurred_ms = "timer", row.id, row.due_ms
    moment.objection = objection
    return Happening(moment=moment, brand=known.brand, candidates=(person.campaign,))


def _kept(found: Sequence[Found], now_ms: int) -> list[Found]:
    """Write completions; those that nobody wrote before are ours."""
    if not found:
        return []
    columns: list[list[Any]] = [[] for _ in range(11)]
    for (brand_id, person, campaign_id), campaign, one, known, _ in found:
        waits = _pattern(campaign).unless is not None
        due_ms = one.last.at_ms + _pattern(campaign).for_ms
        row = (
            brand_id,
            person,
            one.last.device_id or known.subject.device_id,
            campaign_id,
            one.last.kind,
            one.last.id,
            one.key[:128],
            _instant(one.first_ms),
            _instant(one.last.at_ms),
            _instant(due_ms),
            None if waits else _instant(now_ms),
        )
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    with connection.cursor() as cursor:
        cursor.execute(_KEEP, columns)
        ours = set(cursor.fetchall())
    return [
        one
        for one in found
        if _pattern(one.campaign).unless is None
        and (
            one.pair[1],
            one.pair[2],
            one.completion.last.kind,
            one.completion.last.id,
            one.completion.key[:128],
        )
        in ours
    ]


def _firing(ours: Sequence[Found], now_ms: int) -> list[Happening]:
    """The moments of completions: one for each row and campaign, whatever else it completes."""
    found: dict[tuple[str, int, int], Happening] = {}
    for one in ours:
        own = one.trigger.moment
        happening = _about(one.trigger, one.campaign)
        last = one.completion.last
        if (last.kind, last.id) != (own.kind, own.id):
            # Brought about by something late: it is about the last step all the same.
            moment = moment_of(one.known, one.campaign, last, now_ms)
            moment.kind, moment.id = own.kind, own.id
            happening = Happening(moment=moment, brand=one.known.brand, candidates=(one.campaign,))
        found.setdefault((own.kind, own.id, one.campaign.id), happening)
    return list(found.values())


def _about(
    happening: Happening, campaign: rules.Campaign, *, objection: Refusal | None = None
) -> Happening:
    """The same moment, for this sequence alone."""
    own = happening.moment
    moment = replace(own, objection=objection)
    return Happening(
        moment=moment,
        brand=happening.brand,
        candidates=(campaign,),
        place=happening.place,
        fix=happening.fix,
    )


def moment_of(
    known: Known, campaign: rules.Campaign, last: Item | None, now_ms: int
) -> rules.Moment:
    is_event = last is None or last.kind == "event"
    return rules.Moment(
        kind="" if last is None else last.kind,
        id=0 if last is None else last.id,
        on=campaign.on,
        occurred_ms=now_ms if last is None else last.at_ms,
        now_ms=now_ms,
        subject=known.subject,
        tz=known.tz,
        local=known.local,
        geofence_id=None if last is None else last.geofence_id,
        tags=() if last is None else tuple(last.tags),
        dwell_s=0 if last is None else last.dwell_s,
        event=last.name if last is not None and is_event else "",
        properties={} if last is None else last.properties,
    )


def _place(happenings: Sequence[Happening]) -> None:
    """Give those their place that are about another row than the one that told of them."""
    bare = [one for one in happenings if one.place is None and one.moment.geofence_id is not None]
    found = known_places({one.moment.geofence_id or 0 for one in bare})
    for one in bare:
        one.place = one.moment.place = found.get(one.moment.geofence_id or 0)


def _fired(pairs: Sequence[Pair]) -> dict[Pair, list[Fired]]:
    brand_ids, persons, campaign_ids = zip(*pairs, strict=True)
    brands = {(person, campaign_id): brand_id for brand_id, person, campaign_id in pairs}
    found: dict[Pair, list[Fired]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_FIRED, (list(brand_ids), list(persons), list(campaign_ids)))
        for person, campaign_id, *fired in cursor.fetchall():
            found[brands[person, campaign_id], person, campaign_id].append(Fired(*fired))
    return found


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC)

"""What a campaign would have done: the engine over recorded fixes and events, by a virtual clock.

The same matching, presence, gates, caps and templates as the real road; nothing is written and
nothing is sent. What is known of people is what is known today: attributes have no history.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from django.conf import settings
from django.db import connection
from numpy.typing import NDArray

from brands import wallclock
from campaigns import (
    behaviour,
    catalogue,
    coupons,
    hours,
    judging,
    past,
    progress,
    rounds,
    rules,
    sequences,
)
from campaigns.audience import Subject
from campaigns.caps import Counts
from campaigns.catalogue import BrandRules, Catalogue, Entry
from campaigns.definition import TriggerOn
from campaigns.judging import Offers, Verdicts
from campaigns.models import Campaign
from campaigns.moments import Happening
from campaigns.places import Place, known_places
from campaigns.retracing import Step, Walkers
from campaigns.sequences import Item
from campaigns.subjects import Known, Subjects
from devices.fixes import FIX_DTYPE
from geofences.armed import index_of

READ_AT_ONCE = 20_000
LONGEST = timedelta(days=400)

_GEOFENCES = """
    SELECT g.id, g.external_id, g.tags, g.dwell_s FROM geofences_geofence g
     WHERE g.brand_id = %s AND g.retired_at IS NULL
       AND (g.id = ANY(%s::bigint[]) OR g.external_id = ANY(%s::text[]) OR g.tags && %s::varchar[])
"""
# By when it was received, which the partitions go by; it was recorded before that.
_FIXES = """
    SELECT f.device_id, (extract(epoch FROM f.recorded_at) * 1000)::bigint, f.lat, f.lng,
           coalesce(f.accuracy_m, 'NaN')
      FROM devices_fix f JOIN devices_device d ON d.id = f.device_id AND d.brand_id = %s
     WHERE f.received_at >= %s AND f.received_at < %s
       AND f.recorded_at >= %s AND f.recorded_at < %s AND f.verdict = 0
     ORDER BY f.recorded_at
"""
_EVENTS = """
    SELECT e.id, coalesce(e.device_id, d.id), e.name,
           (extract(epoch FROM e.occurred_at) * 1000)::bigint, e.properties
      FROM devices_event e
      LEFT JOIN LATERAL (
        SELECT d.id FROM devices_device d
         WHERE d.brand_id = e.brand_id AND d.external_id = e.external_id AND e.external_id <> ''
         ORDER BY d.id DESC LIMIT 1) d ON e.device_id IS NULL
     WHERE e.brand_id = %s AND e.name = ANY(%s) AND e.occurred_at >= %s AND e.occurred_at < %s
     ORDER BY e.occurred_at, e.id
"""

Tell = Callable[[float], None]
"""Told how far it is, from 0 to 1."""


class PlaceReport(msgspec.Struct, kw_only=True):
    """What happened at one geofence."""

    id: int
    name: str
    entries: int = 0
    offers: int = 0


class Report(msgspec.Struct, kw_only=True):
    """What a version would have done."""

    offers: int = 0
    devices_reached: int = 0
    considered: int = 0
    money: int = 0  # minor units of its budget's currency
    per_day: dict[str, int] = {}
    refusals: dict[str, int] = {}
    places: list[PlaceReport] = []


class Outcome(msgspec.Struct, kw_only=True):
    """A backtest: the draft, beside the live version where there is one."""

    since: datetime
    until: datetime
    fixes: int
    devices: int
    transitions: int
    events: int
    draft: Report
    live: Report | None = None
    difference: dict[str, int] = {}


@dataclass(slots=True, kw_only=True)
class Source:
    """Recorded fixes in time order, in pieces, and who their devices are."""

    pieces: Iterable[NDArray[np.void]]
    device_ids: NDArray[np.int64]
    count: int
    # Devices of a file are nobody's: known as bare phones.
    strangers: bool = False


def recorded(brand_id: int, since: datetime, until: datetime) -> Source:
    """The brand's own history."""
    bounds = (brand_id, since, until + timedelta(days=31), since, until)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT device_id, count(*) FROM ({_FIXES}) f (device_id, a, b, c, d) GROUP BY 1",  # noqa: S608 - our own SQL
            bounds,
        )
        counted = cursor.fetchall()

    def pieces() -> Iterator[NDArray[np.void]]:
        with connection.chunked_cursor() as cursor:
            cursor.execute(_FIXES, bounds)
            while rows := cursor.fetchmany(READ_AT_ONCE):
                device_id, at_ms, lat, lng, accuracy_m = zip(*rows, strict=True)
                yield fixes_of(
                    brand_id,
                    np.array(device_id, dtype=np.int64),
                    np.array(at_ms, dtype=np.int64),
                    np.array(lat, dtype=np.float64),
                    np.array(lng, dtype=np.float64),
                    np.array(accuracy_m, dtype=np.float64),
                )

    return Source(
        pieces=pieces(),
        device_ids=np.array([row[0] for row in counted], dtype=np.int64),
        count=sum(row[1] for row in counted),
    )


def fixes_of(
    brand_id: int,
    device_id: NDArray[np.int64],
    at_ms: NDArray[np.int64],
    lat: NDArray[np.float64],
    lng: NDArray[np.float64],
    accuracy_m: NDArray[np.float64],
) -> NDArray[np.void]:
    """Columns as one array of FIX_DTYPE; what they do not say is unknown."""
    fixes = np.zeros(len(device_id), dtype=FIX_DTYPE)
    for name in ("speed_mps", "heading_deg", "altitude_m", "battery"):
        fixes[name] = np.nan
    fixes["brand_id"], fixes["device_id"], fixes["recorded_ms"] = brand_id, device_id, at_ms
    fixes["lat"], fixes["lng"], fixes["accuracy_m"] = lat, lng, accuracy_m
    fixes["key"] = np.arange(len(fixes))
    return fixes


def run(
    campaign: Campaign,
    source: Source,
    *,
    since: datetime,
    until: datetime,
    tell: Tell = lambda _: None,
) -> Outcome:
    """Try the draft, and the live version beside it, on what was recorded from since to until."""
    brand = catalogue.load_brands(campaign.brand_id)[campaign.brand_id]
    versions = {"draft": campaign.draft}
    if campaign.live_version is not None:
        versions["live"] = campaign.live_version.definition
    stages = {name: _stage(campaign, raw, brand) for name, raw in versions.items()}
    places = _places(brand.id, [entry for one in stages.values() for entry in one.entries.values()])
    steps = list(_retraced(brand.id, source, places, until, lambda done: tell(done * 0.6)))
    steps.sort(key=lambda step: (step.change.occurred_ms, step.device_id, step.geofence_id))
    story = _Story(brand=brand, places=places, steps=steps)
    story.events = _events(brand.id, stages.values(), since, until)
    story.meet(source)
    story.until_ms = _ms(until)
    reports = {}
    for number, (name, stage) in enumerate(stages.items(), 1):
        reports[name] = _report(story, stage, campaign.pk, since, brand)
        tell(0.6 + 0.4 * number / len(stages))
    live = reports.get("live")
    return Outcome(
        since=since,
        until=until,
        fixes=source.count,
        devices=len(source.device_ids),
        transitions=len(steps),
        events=len(story.events),
        draft=reports["draft"],
        live=live,
        difference={} if live is None else _difference(reports["draft"], live),
    )


def _stage(campaign: Campaign, raw: Mapping[str, Any], brand: BrandRules) -> Catalogue:
    """This version among the brand's other live campaigns, which compete with it."""
    others = [
        entry
        for entry in catalogue.current().entries.values()
        if entry.campaign.brand_id == brand.id and entry.campaign.id != campaign.pk
    ]
    own = catalogue.entry_of(
        raw, campaign_id=campaign.pk, version=0, name=campaign.name, brand=brand
    )
    if own is None:
        raise ValueError("the campaign's trigger cannot be read")
    marks = catalogue.current().marks
    return catalogue.build((), {brand.id: brand}, [*others, own], marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The geofences that any campaign needs, and the dwells it wants told."""

    known: Mapping[int, Place]
    dwells: dict[int, tuple[int, ...]]


def _places(brand_id: int, entries: Sequence[Entry]) -> Places:
    ids: set[int] = set()
    external_ids: set[str] = set()
    tags: set[str] = set()
    lengths: list[tuple[frozenset[int | str], frozenset[str], int | None]] = []
    for entry in entries:
        named = [
            (frozenset(one.geofences), frozenset(one.tags), one.dwell_s)
            for one in entry.selectors()
        ] + [
            (frozenset(need.geofences), frozenset(need.tags), None)
            for need in entry.campaign.audience.needs
        ]
        lengths += named
        for places, tagged, _ in named:
            ids |= {place for place in places if isinstance(place, int)}
            external_ids |= {place for place in places if isinstance(place, str)}
            tags |= tagged
    with connection.cursor() as cursor:
        cursor.execute(_GEOFENCES, (brand_id, list(ids), list(external_ids), list(tags)))
        rows = cursor.fetchall()
    dwells: dict[int, tuple[int, ...]] = {}
    for key, external_id, own_tags, own_dwell_s in rows:
        wanted = {
            dwell_s
            for places, tagged, dwell_s in lengths
            if key in places or external_id in places or not tagged.isdisjoint(own_tags)
        } | {own_dwell_s}
        dwells[key] = tuple(sorted(one for one in wanted if one is not None))
    return Places(known=known_places({row[0] for row in rows}), dwells=dwells)


def _retraced(
    brand_id: int, source: Source, places: Places, until: datetime, tell: Tell
) -> Iterator[Step]:
    walkers = Walkers(
        index_of(list(places.known)),
        places.dwells,
        source.device_ids,
        brand_id=brand_id,
        silence_ms=settings.SILENCE_S * 1000,
    )
    done = 0
    for piece in source.pieces:
        yield from walkers.take(piece)
        done += len(piece)
        tell(done / max(1, source.count))
    yield from walkers.end(_ms(until))


@dataclass(frozen=True, slots=True)
class EventRow:
    id: int
    device_id: int
    name: str
    at_ms: int
    properties: Mapping[str, Any]


def _events(
    brand_id: int, stages: Iterable[Catalogue], since: datetime, until: datetime
) -> list[EventRow]:
    """The events that a trigger, a step or an audience asks about; the latter from before, too."""
    entries = [entry for one in stages for entry in one.entries.values()]
    names = {
        one.event for entry in entries for one in entry.selectors() if one.on is TriggerOn.EVENT
    } | {need.name for entry in entries for need in entry.campaign.audience.needs if need.name}
    names |= {
        rule.event
        for entry in entries
        for rule in (entry.campaign.guards.events if entry.campaign.guards else ())
    }
    if not names:
        return []
    with connection.cursor() as cursor:
        cursor.execute(_EVENTS, (brand_id, list(names), since - LONGEST, until))
        return [
            EventRow(key, device_id, name, at_ms, _json(properties))
            for key, device_id, name, at_ms, properties in cursor.fetchall()
            if device_id is not None
        ]


@dataclass(slots=True, kw_only=True)
class _Story:
    """Everything that happened, and who the people in it are."""

    brand: BrandRules
    places: Places
    steps: list[Step]
    events: list[EventRow] = field(default_factory=list)
    known: dict[int, Known] = field(default_factory=dict)
    until_ms: int = 0

    def meet(self, source: Source) -> None:
        """Look the devices up as they are today."""
        devices = {step.device_id for step in self.steps} | {row.device_id for row in self.events}
        if source.strangers:
            tz = wallclock.zone(self.brand.timezone)
            clock = hours.local(0, tz)
            for device_id in devices:
                subject = Subject(device_id=device_id, person=f"device:{device_id}")
                self.known[device_id] = Known(subject, self.brand, tz, clock)
            return
        subjects = Subjects({self.brand.id: self.brand}, 0)
        subjects.load(devices)
        self.known = subjects.known

    def items(self) -> dict[str, list[Item]]:
        """What each person did, as steps of sequences."""
        found: dict[str, list[Item]] = defaultdict(list)
        for number, step in enumerate(self.steps):
            place = self.places.known[step.geofence_id]
            if step.device_id in self.known and not (
                step.change.kind == "exited" and step.change.reason
            ):
                found[self.known[step.device_id].subject.person].append(
                    Item(
                        step.change.occurred_ms,
                        "transition",
                        number,
                        step.device_id,
                        step.change.kind.value,
                        step.geofence_id,
                        place.external_id,
                        place.tags,
                        step.change.dwell_s,
                    )
                )
        for row in self.events:
            if row.device_id in self.known:
                found[self.known[row.device_id].subject.person].append(
                    Item(
                        row.at_ms, "event", row.id, row.device_id, row.name,
                        properties=row.properties,
                    )
                )  # fmt: skip
        return found


def _report(
    story: _Story, stage: Catalogue, campaign_id: int, since: datetime, brand: BrandRules
) -> Report:
    happenings = list(_happenings(story, stage, _ms(since)))
    _measure(story, happenings)
    offers = Offers()
    offers.marks = stage.marks
    counts = offers.counts[brand.id] = Counts(brand.id)
    counts.totals[("brand", brand.id)] = []
    for entry in stage.entries.values():
        counts.totals[("campaign", entry.campaign.id)] = []
    names = {(brand.id, one.coupon_pool) for one in _campaigns(stage) if one.coupon_pool}
    offers.supplies.update(coupons.samples(names))
    verdicts = judging.judge(happenings, stage, lambda _: offers)
    return _counted(story, verdicts, campaign_id, wallclock.zone(brand.timezone))


def _campaigns(stage: Catalogue) -> list[rules.Campaign]:
    return [entry.campaign for entry in stage.entries.values()]


def _happenings(story: _Story, stage: Catalogue, since_ms: int) -> Iterator[Happening]:
    """Every moment that concerns a campaign, each at its own now."""
    for number, step in enumerate(story.steps):
        known, place = story.known.get(step.device_id), story.places.known[step.geofence_id]
        if known is None or step.change.occurred_ms < since_ms:
            continue
        candidates = stage.at_place(
            story.brand.id,
            TriggerOn(step.change.kind.value),
            place.id,
            place.external_id,
            place.tags,
            dwell_s=step.change.dwell_s,
            own_dwell_s=place.dwell_s,
        )
        if candidates:
            moment = _moment(known, step.change.occurred_ms, "transition", number)
            moment.on, moment.geofence_id = TriggerOn(step.change.kind.value), place.id
            moment.place = place
            moment.tags, moment.dwell_s = place.tags, step.change.dwell_s
            moment.visit_id, moment.entered_ms = step.change.visit_id, step.change.entered_ms
            moment.reason = step.change.reason.value
            fix = None if step.lat is None or step.lng is None else (step.lat, step.lng)
            yield Happening(
                moment=moment, brand=story.brand, candidates=candidates, place=place, fix=fix
            )
    for row in story.events:
        known = story.known.get(row.device_id)
        candidates = stage.on_event(story.brand.id, row.name)
        if known is not None and candidates and row.at_ms >= since_ms:
            moment = _moment(known, row.at_ms, "event", row.id)
            moment.event, moment.properties = row.name, row.properties
            yield Happening(moment=moment, brand=story.brand, candidates=candidates)
    yield from _sequences(story, stage, since_ms)
    yield from rounds.happenings(
        stage.entries.values(),
        _stays(story),
        story.known,
        story.places.known,
        since_ms=since_ms,
        until_ms=story.until_ms,
    )


def _sequences(story: _Story, stage: Catalogue, since_ms: int) -> Iterator[Happening]:
    campaigns = [
        entry.campaign for entry in stage.entries.values() if entry.campaign.pattern is not None
    ]
    if not campaigns:
        return
    for items in story.items().values():
        known = story.known[items[-1].device_id or 0]
        for campaign in campaigns:
            for happening in _fired(campaign, items, known):
                if happening.moment.occurred_ms >= since_ms:
                    place = happening.moment.geofence_id
                    happening.place = None if place is None else story.places.known.get(place)
                    happening.moment.place = happening.place
                    yield happening


def _fired(campaign: rules.Campaign, items: Sequence[Item], known: Known) -> Iterator[Happening]:
    """The moments of one person in one sequence: what it completes, and what came in vain."""
    pattern = campaign.pattern
    assert pattern is not None
    new, resting = sequences.fresh(pattern, items, (), known.tz)
    for one in new:
        at_ms, objection = one.last.at_ms, None
        off = sequences.called_off(pattern, one, items, known.tz)
        if off is not None:
            trace = {"by": off.name, "at": off.at_ms}
            objection = rules.Refusal(rules.Reason.CALLED_OFF, trace)
        moment = progress.moment_of(known, campaign, one.last, at_ms + pattern.for_ms)
        moment.occurred_ms = at_ms + pattern.for_ms
        moment.objection = objection
        yield _at_its_time(moment, known, campaign)
    done = {(one.last.kind, one.last.id) for one in (*new, *resting)}
    for one in resting:
        moment = progress.moment_of(known, campaign, one.last, one.last.at_ms)
        moment.objection = rules.Refusal(rules.Reason.SEQUENCE_RESTS, {})
        yield _at_its_time(moment, known, campaign)
    for item in items:
        if (item.kind, item.id) not in done and pattern.steps[-1].matches(item, known.tz):
            moment = progress.moment_of(known, campaign, item, item.at_ms)
            moment.objection = rules.Refusal(rules.Reason.SEQUENCE_INCOMPLETE, {})
            yield _at_its_time(moment, known, campaign)


def _at_its_time(moment: rules.Moment, known: Known, campaign: rules.Campaign) -> Happening:
    moment.subject = replace(known.subject, now_ms=moment.now_ms, measures={})
    moment.local = hours.local(moment.now_ms, known.tz)
    return Happening(moment=moment, brand=known.brand, candidates=(campaign,))


def _moment(known: Known, at_ms: int, kind: str, key: int) -> rules.Moment:
    return rules.Moment(
        kind=kind,
        id=key,
        on=TriggerOn.EVENT,
        occurred_ms=at_ms,
        now_ms=at_ms,
        subject=replace(known.subject, now_ms=at_ms, measures={}),
        tz=known.tz,
        local=hours.local(at_ms, known.tz),
    )


def _measure(story: _Story, happenings: Sequence[Happening]) -> None:
    """Give each subject the figures that audiences ask for, from the story so far."""
    if not any(catalogue.needs(one.candidates, one.moment) for one in happenings):
        return
    events: dict[str, list[behaviour.PastEvent]] = defaultdict(list)
    for row in story.events:
        if row.device_id in story.known:
            person = story.known[row.device_id].subject.person
            events[person].append(behaviour.PastEvent(row.name, row.at_ms, row.properties))
    visits = _visits(story)
    areas = _areas(story, happenings)
    for one in happenings:
        subject, now_ms = one.moment.subject, one.moment.now_ms
        wanted = catalogue.needs(one.candidates, one.moment)
        for need in past.concrete(wanted, one.moment.geofence_id):
            subject.measures[need] = (
                behaviour.area_age_s(need, areas.get(subject.device_id, ()), now_ms=now_ms)
                if need.kind in past.AREAS
                else behaviour.measure(
                    need,
                    events.get(subject.person, ()),
                    visits.get(subject.person, ()),
                    now_ms=now_ms,
                )
            )
        past.tell_of_here(one.moment, [need for need in wanted if need.here])


def _areas(story: _Story, happenings: Sequence[Happening]) -> dict[int, list[behaviour.PastArea]]:
    """Homes and usual areas as they are known today."""
    wanted = {
        need
        for one in happenings
        for need in past.concrete(
            catalogue.needs(one.candidates, one.moment), one.moment.geofence_id
        )
        if need.kind in past.AREAS
    }
    subjects = {key: (known.subject, story.brand.id) for key, known in story.known.items()}
    return past.past_areas(subjects, list(wanted))


def _stays(story: _Story) -> Iterator[rounds.Stay]:
    ended = {
        (step.device_id, step.change.visit_id): step.change.occurred_ms
        for step in story.steps
        if step.change.kind == "exited"
    }
    for step in story.steps:
        if step.change.kind == "entered":
            left_ms = ended.get((step.device_id, step.change.visit_id))
            yield rounds.Stay(
                step.device_id,
                step.geofence_id,
                step.change.visit_id,
                step.change.entered_ms,
                left_ms,
            )


def _visits(story: _Story) -> dict[str, list[behaviour.PastVisit]]:
    ended = {
        (step.device_id, step.change.visit_id): step.change.occurred_ms
        for step in story.steps
        if step.change.kind == "exited"
    }
    found: dict[str, list[behaviour.PastVisit]] = defaultdict(list)
    for step in story.steps:
        if step.change.kind == "entered" and step.device_id in story.known:
            place = story.places.known[step.geofence_id]
            found[story.known[step.device_id].subject.person].append(
                behaviour.PastVisit(
                    place.id,
                    place.external_id,
                    place.tags,
                    step.change.entered_ms,
                    ended.get((step.device_id, step.change.visit_id)),
                )
            )
    return found


def _counted(story: _Story, verdicts: Verdicts, campaign_id: int, tz: ZoneInfo) -> Report:
    sends = [send for send in verdicts.sends if send.campaign.id == campaign_id]
    refused = Counter(
        decision.reason.value
        for _, campaign, decision in verdicts.refusals
        if campaign.id == campaign_id
    )
    days = Counter(hours.local_date(send.happening.moment.now_ms, tz).isoformat() for send in sends)
    offered = Counter(send.happening.moment.geofence_id for send in sends)
    entries = Counter(step.geofence_id for step in story.steps if step.change.kind == "entered")
    places = [
        PlaceReport(
            id=key,
            name=story.places.known[key].name,
            entries=entries[key],
            offers=offered.get(key, 0),
        )
        for key in sorted(
            set(entries) | {key for key in offered if key is not None},
            key=lambda key: (-offered.get(key, 0), -entries[key], key),
        )
    ]
    return Report(
        offers=len(sends),
        devices_reached=len({send.happening.moment.subject.device_id for send in sends}),
        considered=len(sends) + refused.total(),
        money=sum(send.charge.money for send in sends if send.charge is not None),
        per_day=dict(sorted(days.items())),
        refusals=dict(refused.most_common()),
        places=places,
    )


def _difference(draft: Report, live: Report) -> dict[str, int]:
    """What the draft does more (or, negative, less) than what is live."""
    found = {
        "offers": draft.offers - live.offers,
        "devices_reached": draft.devices_reached - live.devices_reached,
        "money": draft.money - live.money,
    }
    for reason in sorted({*draft.refusals, *live.refusals}):
        found[reason] = draft.refusals.get(reason, 0) - live.refusals.get(reason, 0)
    return {name: change for name, change in found.items() if change}


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value

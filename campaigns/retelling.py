"""What evaluation would have had to judge, of what was recorded: a story told to one catalogue.

Each moment at its own now, with the figures that audiences ask for as they were then. It decides
nothing; what is known of people it knows as of today.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from brands import wallclock
from campaigns import behaviour, hours, past, progress, rounds, rules, sequences
from campaigns.audience import Subject
from campaigns.catalogue import Catalogue
from campaigns.compiling import BrandRules
from campaigns.definition import TriggerOn
from campaigns.moments import Happening
from campaigns.places import Place
from campaigns.reasons import Reason, Refusal
from campaigns.retracing import Step
from campaigns.sequences import Item
from campaigns.subjects import Known, Subjects


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The geofences that any campaign needs, and the dwells it wants told."""

    known: Mapping[int, Place]
    dwells: dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event, of the device it is ascribed to."""

    id: int
    device_id: int
    name: str
    at_ms: int
    properties: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Story:
    """Everything that happened, and who the people in it are."""

    brand: BrandRules
    places: Places
    steps: list[Step]
    events: list[EventRow] = field(default_factory=list)
    known: dict[int, Known] = field(default_factory=dict)
    until_ms: int = 0

    def meet(self, *, strangers: bool) -> None:
        """Look the devices up as they are today; `strangers` are known as bare phones."""
        devices = {step.device_id for step in self.steps} | {row.device_id for row in self.events}
        if strangers:
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


def happenings(story: Story, stage: Catalogue, *, since_ms: int) -> list[Happening]:
    """What a catalogue's campaigns would have been asked about since then, in no order."""
    found = list(_moments(story, stage, since_ms))
    _measure(story, found)
    return found


def _moments(story: Story, stage: Catalogue, since_ms: int) -> Iterator[Happening]:
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


def _sequences(story: Story, stage: Catalogue, since_ms: int) -> Iterator[Happening]:
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
            objection = Refusal(Reason.CALLED_OFF, trace)
        moment = progress.moment_of(known, campaign, one.last, at_ms + pattern.for_ms)
        moment.occurred_ms = at_ms + pattern.for_ms
        moment.objection = objection
        yield _at_its_time(moment, known, campaign)
    done = {(one.last.kind, one.last.id) for one in (*new, *resting)}
    for one in resting:
        moment = progress.moment_of(known, campaign, one.last, one.last.at_ms)
        moment.objection = Refusal(Reason.SEQUENCE_RESTS, {})
        yield _at_its_time(moment, known, campaign)
    for item in items:
        if (item.kind, item.id) not in done and pattern.steps[-1].matches(item, known.tz):
            moment = progress.moment_of(known, campaign, item, item.at_ms)
            moment.objection = Refusal(Reason.SEQUENCE_INCOMPLETE, {})
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


def _measure(story: Story, happenings: Sequence[Happening]) -> None:
    """Give each subject the figures that audiences ask for, from the story so far."""
    if not any(rules.needs(one.candidates, one.moment) for one in happenings):
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
        wanted = rules.needs(one.candidates, one.moment)
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


def _areas(story: Story, happenings: Sequence[Happening]) -> dict[int, list[behaviour.PastArea]]:
    """Homes and usual areas as they are known today."""
    wanted = {
        need
        for one in happenings
        for need in past.concrete(rules.needs(one.candidates, one.moment), one.moment.geofence_id)
        if need.kind in past.AREAS
    }
    subjects = {key: (known.subject, story.brand.id) for key, known in story.known.items()}
    return past.past_areas(subjects, list(wanted))


def _left_ms(story: Story) -> dict[tuple[int, int], int]:
    """When each visit ended, by device and visit."""
    return {
        (step.device_id, step.change.visit_id): step.change.occurred_ms
        for step in story.steps
        if step.change.kind == "exited"
    }


def _stays(story: Story) -> Iterator[rounds.Stay]:
    left_ms = _left_ms(story)
    for step in story.steps:
        if step.change.kind == "entered":
            yield rounds.Stay(
                step.device_id,
                step.geofence_id,
                step.change.visit_id,
                step.change.entered_ms,
                left_ms.get((step.device_id, step.change.visit_id)),
            )


def _visits(story: Story) -> dict[str, list[behaviour.PastVisit]]:
    left_ms = _left_ms(story)
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
                    left_ms.get((step.device_id, step.change.visit_id)),
                )
            )
    return found

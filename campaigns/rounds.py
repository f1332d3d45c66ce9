"""To whom schedules would have come round, in a story of visits that were recorded. No rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from campaigns import hours, rules
from campaigns.compiling import Entry
from campaigns.definition import TriggerOn
from campaigns.meaning import schedule_of
from campaigns.moments import Happening
from campaigns.places import Place
from campaigns.schedules import Occurrence, Schedule, occurrences
from campaigns.subjects import Known


class Stay(NamedTuple):
    """One visit; `left_ms` is None while it lasts."""

    device_id: int
    geofence_id: int
    visit_id: int
    entered_ms: int
    left_ms: int | None


def happenings(
    entries: Iterable[Entry],
    stays: Iterable[Stay],
    known: Mapping[int, Known],
    places: Mapping[int, Place],
    *,
    since_ms: int,
    until_ms: int,
) -> Iterator[Happening]:
    """Every device's moments in [since, until), as the schedule's own clock would make them."""
    by_device: dict[int, list[Stay]] = defaultdict(list)
    for stay in stays:
        by_device[stay.device_id].append(stay)
    for entry in entries:
        if entry.campaign.on is not TriggerOn.SCHEDULE:
            continue
        schedule = schedule_of(entry.trigger)
        by_zone: dict[tuple[str, str], list[Occurrence]] = {}
        for device_id, own in by_device.items():
            person = known.get(device_id)
            here = [stay for stay in own if places[stay.geofence_id].is_named(entry.trigger)]
            if person is None or not here:
                continue
            zones = (person.tz.key, person.brand.timezone)
            if zones not in by_zone:
                by_zone[zones] = occurrences(
                    schedule,
                    after_ms=since_ms - 1,
                    until_ms=until_ms - 1,
                    brand_zone=zones[1],
                    zones=[zones[0]],
                )
            for one in by_zone[zones]:
                meant = _where(schedule, here, one.due_ms)
                if meant is not None:
                    yield _happening(entry, person, places[meant.geofence_id], meant, one)


def _where(schedule: Schedule, stays: list[Stay], due_ms: int) -> Stay | None:
    """The stay entered last of those that are meant."""
    since_ms = schedule.looks_back_to(due_ms)
    meant = [
        stay
        for stay in stays
        if stay.entered_ms <= due_ms
        and (stay.left_ms is None or stay.left_ms > due_ms or since_ms <= stay.left_ms < due_ms)
    ]
    return max(meant, key=lambda stay: (stay.entered_ms, -stay.geofence_id), default=None)


def _happening(entry: Entry, known: Known, place: Place, stay: Stay, one: Occurrence) -> Happening:
    then = known._replace(
        subject=replace(known.subject, now_ms=one.due_ms, measures={}),
        local=hours.local(one.due_ms, known.tz),
    )
    moment = moment_of(
        then,
        place,
        key=one.key,
        due_ms=one.due_ms,
        now_ms=one.due_ms,
        entered_ms=stay.entered_ms,
        visit_id=stay.visit_id,
    )
    return Happening(moment=moment, brand=known.brand, candidates=(entry.campaign,), place=place)


def moment_of(
    known: Known,
    place: Place,
    *,
    key: int,
    due_ms: int,
    now_ms: int,
    entered_ms: int,
    visit_id: int,
) -> rules.Moment:
    """The moment at which a schedule comes round for a device."""
    return rules.Moment(
        kind="schedule",
        id=key,
        on=TriggerOn.SCHEDULE,
        occurred_ms=due_ms,
        now_ms=now_ms,
        subject=known.subject,
        tz=known.tz,
        local=known.local,
        geofence_id=place.id,
        tags=place.tags,
        place=place,
        dwell_s=max(0, due_ms - entered_ms) // 1000,
        visit_id=visit_id,
        entered_ms=entered_ms,
    )

"""What a campaign would have done: the engine over recorded fixes and events, by a virtual clock.

The same matching, presence, gates, caps and templates as the real road; nothing is written and
nothing is sent. What is known of people is what is known today: attributes have no history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from django.conf import settings
from django.db import connection
from numpy.typing import NDArray

from brands import wallclock
from campaigns import catalogue, compiling, coupons, hours, judging, retelling
from campaigns.caps import Counts
from campaigns.catalogue import Catalogue
from campaigns.compiling import BrandRules, Entry
from campaigns.definition import TriggerOn
from campaigns.judging import Offers, Verdicts
from campaigns.models import Campaign
from campaigns.places import known_places
from campaigns.retelling import EventRow, Places, Story
from campaigns.retracing import Step, Walkers
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
    story = Story(brand=brand, places=places, steps=steps)
    story.events = _events(brand.id, stages.values(), since, until)
    story.meet(strangers=source.strangers)
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
    own = compiling.entry_of(
        raw, campaign_id=campaign.pk, version=0, name=campaign.name, brand=brand
    )
    if own is None:
        raise ValueError("the campaign's trigger cannot be read")
    marks = catalogue.current().marks
    return catalogue.build((), {brand.id: brand}, [*others, own], marks)


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


def _report(
    story: Story, stage: Catalogue, campaign_id: int, since: datetime, brand: BrandRules
) -> Report:
    happenings = retelling.happenings(story, stage, since_ms=_ms(since))
    offers = Offers()
    offers.marks = stage.marks
    counts = offers.counts[brand.id] = Counts(brand.id)
    counts.totals[("brand", brand.id)] = []
    for entry in stage.entries.values():
        counts.totals[("campaign", entry.campaign.id)] = []
    pools = {entry.campaign.coupon_pool for entry in stage.entries.values()}
    offers.supplies.update(coupons.samples({(brand.id, pool) for pool in pools if pool}))
    verdicts = judging.judge(happenings, stage, lambda _: offers)
    return _counted(story, verdicts, stage.entries[campaign_id], wallclock.zone(brand.timezone))


def _counted(story: Story, verdicts: Verdicts, entry: Entry, tz: ZoneInfo) -> Report:
    campaign_id = entry.campaign.id
    sends = [send for send in verdicts.sends if send.campaign.id == campaign_id]
    refused = Counter(
        decision.reason.value
        for _, campaign, decision in verdicts.refusals
        if campaign.id == campaign_id
    )
    days = Counter(hours.local_date(send.happening.moment.now_ms, tz).isoformat() for send in sends)
    offered = Counter(send.happening.moment.geofence_id for send in sends)
    # What was retraced holds the places of its rivals too.
    selectors = entry.selectors()
    own = {key for key, place in story.places.known.items() if any(map(place.is_named, selectors))}
    entries = Counter(
        step.geofence_id
        for step in story.steps
        if step.change.kind == "entered" and step.geofence_id in own
    )
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

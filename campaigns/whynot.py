"""Why a campaign never even considered a device: the first thing missing on the road to a decision.

Where there are decisions, they say why themselves. Where there is none, nothing was stored, so this
looks at what is there now and follows the road: campaign, consent, positions, geofences, visits,
evaluation. It reads rows and decides nothing; campaigns.obstacles has the words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib.gis.db.models.functions import Distance
from django.contrib.gis.geos import Point
from django.db import connection
from django.db.models import Q, QuerySet

from brands import wallclock
from campaigns import definition
from campaigns.definition import (
    PLACE_TRIGGERS,
    Definition,
    DefinitionError,
    StepText,
    Trigger,
    TriggerOn,
)
from campaigns.models import Campaign, CampaignState, Completion, Occurrence
from campaigns.obstacles import Obstacle, Words, in_words
from campaigns.subjects import person_of
from devices.fixes import FixVerdict
from devices.models import Device, DeviceState, Event, Fix, Presence, Transition
from devices.presence import CERTAINTY, PresenceState
from geofences.models import Geofence

NEAREST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One thing that stood in the way, with the values that its words need."""

    obstacle: Obstacle
    values: dict[str, Any]

    def words(self, language: str, tz: ZoneInfo) -> Words:
        return in_words(self.obstacle, language, tz, **self.values)


def _cause(obstacle: Obstacle, **values: Any) -> Cause:
    return Cause(obstacle=obstacle, values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What there is to know about one device and one campaign, now."""

    device: Device
    state: DeviceState | None
    campaign: Campaign
    live: Definition
    trigger: Trigger | StepText  # what sets it off in the end: of a sequence, its last step
    since: datetime  # when the live version was published
    now: datetime

    def places(self) -> QuerySet[Geofence]:
        """Return the geofences that the campaign waits at."""
        ids = [place for place in self.trigger.geofences if isinstance(place, int)]
        external_ids = [place for place in self.trigger.geofences if isinstance(place, str)]
        return Geofence.objects.filter(brand_id=self.campaign.brand_id).filter(
            Q(pk__in=ids)
            | Q(external_id__in=external_ids)
            | Q(tags__overlap=list(self.trigger.tags))
        )


def in_words_of(
    device: Device, campaign: Campaign, *, now: datetime, language: str = "en"
) -> list[Words]:
    """Return why there is no decision, in words, by the device's clock."""
    tz = wallclock.zone(device.timezone, device.brand.timezone)
    return [cause.words(language, tz) for cause in causes(device, campaign, now=now)]


def causes(device: Device, campaign: Campaign, *, now: datetime) -> list[Cause]:
    """Return why there is no decision, the most decisive first; never empty."""
    version = campaign.live_version
    if version is None:
        return [_cause(Obstacle.NEVER_PUBLISHED)]
    try:
        live = definition.decode(version.definition)
    except DefinitionError as error:
        return [_cause(Obstacle.UNREADABLE, problem=str(error))]
    trigger: Trigger | StepText | None = live.trigger
    if live.trigger is not None and live.trigger.on is TriggerOn.SEQUENCE:
        trigger = live.trigger.steps[-1] if live.trigger.steps else None
    if trigger is None:
        return [_cause(Obstacle.NO_TRIGGER)]
    case = Case(
        device=device,
        state=DeviceState.objects.filter(pk=device.pk).first(),
        campaign=campaign,
        live=live,
        trigger=trigger,
        since=version.published_at,
        now=now,
    )
    found = list(_not_running(case))
    looks: tuple[Callable[[Case], Iterator[Cause]], ...] = (_no_event,)
    if trigger.on in PLACE_TRIGGERS:
        looks = (_not_seen, _not_armed, _not_there)
    elif trigger.on is TriggerOn.SCHEDULE:
        looks = (_not_seen, _not_armed, _not_scheduled)
    for look in (_sequence_waits, *looks):
        # Where the device was never heard of, its distance to a geofence explains nothing more.
        if causes_of_look := list(look(case)):
            found += causes_of_look
            break
    return found or [_cause(Obstacle.NOTHING)]


def _not_running(case: Case) -> Iterator[Cause]:
    if case.campaign.state != CampaignState.LIVE:
        yield _cause(Obstacle.NOT_LIVE, state=case.campaign.state)
    if case.live.starts_at and case.live.starts_at > case.now:
        yield _cause(Obstacle.NOT_BEGUN, at=case.live.starts_at)
    if case.live.ends_at and case.live.ends_at <= case.now:
        yield _cause(Obstacle.OVER, at=case.live.ends_at)


def _sequence_waits(case: Case) -> Iterator[Cause]:
    waits = Completion.objects.filter(
        brand_id=case.campaign.brand_id,
        campaign_id=case.campaign.pk,
        person=person_of(case.device.pk, case.device.external_id),
        settled_at__isnull=True,
    ).first()
    if waits is not None:
        yield _cause(Obstacle.SEQUENCE_WAITS, at=waits.due_at)


def _not_seen(case: Case) -> Iterator[Cause]:
    if not case.device.consent_location:
        yield _cause(Obstacle.NO_CONSENT)
    state = case.state
    if state is None or state.received_at is None:
        yield _cause(Obstacle.NEVER_HEARD)
    elif state.received_at < case.since and case.trigger.on is not TriggerOn.SCHEDULE:
        # A schedule finds who is inside already.
        yield _cause(Obstacle.NOT_HEARD_SINCE, at=state.received_at)


def _not_armed(case: Case) -> Iterator[Cause]:
    places = case.places()
    if not places.exists():
        yield _cause(Obstacle.PLACES_GONE)
        return
    if not places.armed(case.now).exists():  # type: ignore[attr-defined]
        ended = places.filter(Q(retired_at__isnull=False) | Q(ends_at__lte=case.now))
        over = ended.count() == places.count()
        yield _cause(Obstacle.PLACES_OVER if over else Obstacle.NOT_ARMED)


def _not_there(case: Case) -> Iterator[Cause]:
    places = case.places()
    visits = list(
        Transition.objects.filter(
            device_id=case.device.pk,
            occurred_at__gte=case.since,
            geofence_id__in=places.values("pk"),
        ).order_by("-occurred_at")[:50]
    )
    wanted = [visit for visit in visits if visit.kind == case.trigger.on.value]
    if wanted:
        yield from _not_decided(wanted[0])
    elif visits:
        yield from _other_kind(case, visits)
    else:
        yield from _nearest(case, places)


def _not_decided(visit: Transition) -> Iterator[Cause]:
    if visit.parked_reason:
        yield _cause(Obstacle.PARKED, problem=visit.parked_reason)
    elif visit.processed_at is None:
        yield _cause(Obstacle.UNDECIDED)
    else:
        yield _cause(Obstacle.NOT_COVERED)


def _other_kind(case: Case, visits: list[Transition]) -> Iterator[Cause]:
    last = visits[0]
    name = Geofence.objects.filter(pk=last.geofence_id).values_list("name", flat=True).first()
    if case.trigger.on is TriggerOn.DWELLED:
        longest_s = max((visit.occurred_at - visit.entered_at).total_seconds() for visit in visits)
        yield _cause(
            Obstacle.TOO_SHORT,
            needed=f"{case.trigger.dwell_s // 60} min" if case.trigger.dwell_s else None,
            longest_min=f"{longest_s // 60:.0f}",
            place=name,
            at=last.occurred_at,
        )
    elif case.trigger.on is TriggerOn.EXITED:
        yield _cause(Obstacle.NOT_LEFT, place=name, at=last.entered_at)
    else:
        yield _cause(Obstacle.NOT_ENTERED, place=name)


def _nearest(case: Case, places: QuerySet[Geofence]) -> Iterator[Cause]:
    entering = Presence.objects.filter(
        device_id=case.device.pk,
        geofence_id__in=places.values("pk"),
        state=PresenceState.ENTERING.value,
    ).first()
    if entering is not None:
        place = places.get(pk=entering.geofence_id)
        yield _cause(
            Obstacle.ENTERING,
            place=place.name,
            agreeing=entering.agreeing,
            needed=place.confirm_fixes,
        )
        return
    yield _closest_approach(case, places)
    yield from _useless_fixes(case)


def _closest_approach(case: Case, places: QuerySet[Geofence]) -> Cause:
    """The nearest miss among the latest positions, to the metre."""
    since = max(case.since, case.now - timedelta(days=7))
    fixes = list(
        Fix.objects.filter(device_id=case.device.pk, received_at__gte=since).order_by(
            "-recorded_at"
        )[:200]
    )
    state = case.state
    spots = [(fix.lat, fix.lng, fix.recorded_at, fix.accuracy_m) for fix in fixes]
    if not spots and state and state.lat is not None and state.lng is not None:
        assert state.recorded_at is not None, "a position has its time"
        spots = [(state.lat, state.lng, state.recorded_at, state.accuracy_m)]
    best: tuple[float, Geofence, datetime, float | None] | None = None
    spot = Point(0, 0, srid=4326)
    # Every tenth is enough to find the region, the nearest place's own look is exact.
    for lat, lng, at, accuracy_m in spots[:: max(1, len(spots) // 20)]:
        here = Point(lng, lat, srid=4326)
        for place in places.annotate(away=Distance("geometry", here)).order_by("away")[:NEAREST]:
            away_m = max(0.0, place.away.m - (place.radius_m or 0.0))
            if best is None or away_m < best[0]:
                best, spot = (away_m, place, at, accuracy_m), here
    if best is None:
        return _cause(Obstacle.NEVER_THERE)
    away_m, nearest, at, accuracy_m = best
    seen = {"place": nearest.name, "at": at, "accuracy_m": accuracy_m}
    if away_m > 0:
        return _cause(Obstacle.NEARBY, away_m=f"{away_m:,.0f}", **seen)
    enough_m = _enough_m(nearest, spot)
    if accuracy_m is None or accuracy_m <= enough_m:
        return _cause(Obstacle.AT_THE_EDGE, **seen)
    if enough_m < 1:
        return _cause(Obstacle.EDGE_TOO_NEAR, **seen)
    return _cause(Obstacle.EDGE_ACCURACY, enough_m=enough_m, **seen)


def _enough_m(place: Geofence, spot: Point) -> int:
    """The accuracy with which a position inside would have been believed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT CASE WHEN radius_m IS NULL"
            " THEN ST_Distance(ST_Boundary(geometry)::geography, p::geography)"
            " ELSE radius_m - ST_Distance(geometry::geography, p::geography) END"
            " FROM geofences_geofence, ST_SetSRID(ST_MakePoint(%s, %s), 4326) AS p WHERE id = %s",
            (spot.x, spot.y, place.pk),
        )
        depth_m: float = cursor.fetchone()[0]
    return math.floor(max(0.0, depth_m) / CERTAINTY)


_USELESS = (FixVerdict.LATE, FixVerdict.MOCKED, FixVerdict.TELEPORT, FixVerdict.INACCURATE)


def _useless_fixes(case: Case) -> Iterator[Cause]:
    verdicts = list(
        Fix.objects.filter(
            device_id=case.device.pk, received_at__gte=case.now - timedelta(days=1)
        ).values_list("verdict", flat=True)[:1000]
    )
    for verdict in _USELESS:
        count = verdicts.count(verdict)
        if count and count * 2 > len(verdicts):
            why = verdict.name.lower()
            yield _cause(Obstacle.USELESS_FIXES, count=count, of=len(verdicts), why=why)


def _not_scheduled(case: Case) -> Iterator[Cause]:
    zone = wallclock.zone(case.device.timezone, case.device.brand.timezone).key
    times = Occurrence.objects.filter(
        Q(zones=[]) | Q(zones__contains=[zone]), campaign=case.campaign, due_at__gte=case.since
    )
    last = times.filter(due_at__lte=case.now).order_by("-due_at").first()
    if last is None:
        following = times.order_by("due_at").first()
        next_at = None if following is None else following.due_at
        yield _cause(Obstacle.NOT_YET_TIME, next_at=next_at)
    elif last.missed:
        yield _cause(Obstacle.TIME_MISSED, at=last.due_at)
    elif last.finished_at is None:
        yield _cause(Obstacle.BEING_ASKED)
    else:
        yield _not_among(case, last)


def _not_among(case: Case, last: Occurrence) -> Cause:
    """Whether it was there after all: a phone may tell of its coming when the time is over."""
    before = (
        Transition.objects.filter(
            device_id=case.device.pk,
            geofence_id__in=case.places().values("pk"),
            occurred_at__lte=last.due_at,
        )
        .order_by("-occurred_at", "-id")
        .first()
    )
    if before is not None and before.kind != TriggerOn.EXITED and before.recorded_at > last.due_at:
        name = Geofence.objects.filter(pk=before.geofence_id).values_list("name", flat=True).first()
        return _cause(Obstacle.AMONG_UNKNOWN, place=name, at=last.due_at)
    return _cause(Obstacle.NOT_AMONG, at=last.due_at, members=last.members)


def _no_event(case: Case) -> Iterator[Cause]:
    name = case.trigger.event or ""
    mine = Event.objects.filter(
        Q(device_id=case.device.pk)
        | Q(external_id=case.device.external_id or "-", device_id__isnull=True),
        brand_id=case.campaign.brand_id,
        name=name,
        occurred_at__gte=case.since,
    )
    last = mine.order_by("-occurred_at").first()
    if last is None:
        yield _cause(Obstacle.NO_EVENT, event=name)
    elif last.parked_reason:
        yield _cause(Obstacle.EVENT_PARKED, problem=last.parked_reason)
    elif last.processed_at is None:
        yield _cause(Obstacle.EVENT_UNDECIDED)

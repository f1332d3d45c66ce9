"""Why a campaign never even considered a device: the first thing missing on the road to a decision.

Where there are decisions, they say why themselves. Where there is none, nothing was stored, so this
looks at what is there now and follows the road: campaign, consent, positions, geofences, visits,
evaluation. It reads rows and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.gis.db.models.functions import Distance
from django.contrib.gis.geos import Point
from django.db import connection
from django.db.models import Q, QuerySet

from campaigns import definition
from campaigns.definition import PLACE_TRIGGERS, Definition, DefinitionError, Trigger, TriggerOn
from campaigns.models import Campaign, CampaignState, Occurrence
from devices.fixes import FixVerdict
from devices.models import Device, DeviceState, Event, Fix, Presence, Transition
from devices.presence import CERTAINTY, PresenceState
from geofences.models import Geofence

NEAREST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One thing that stood in the way, and what would change it."""

    title: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What there is to know about one device and one campaign, now."""

    device: Device
    state: DeviceState | None
    campaign: Campaign
    live: Definition
    since: datetime  # when the live version was published
    now: datetime

    @property
    def trigger(self) -> Trigger:
        assert self.live.trigger is not None, "published without a trigger"
        return self.live.trigger

    def places(self) -> QuerySet[Geofence]:
        """Return the geofences that the campaign waits at."""
        ids = [place for place in self.trigger.geofences if isinstance(place, int)]
        external_ids = [place for place in self.trigger.geofences if isinstance(place, str)]
        return Geofence.objects.filter(brand_id=self.campaign.brand_id).filter(
            Q(pk__in=ids)
            | Q(external_id__in=external_ids)
            | Q(tags__overlap=list(self.trigger.tags))
        )


def causes(device: Device, campaign: Campaign, *, now: datetime) -> list[Cause]:
    """Return why there is no decision, the most decisive first; never empty."""
    version = campaign.live_version
    if version is None:
        return [Cause(title="The campaign was never published.", text="A draft fires for nobody.")]
    try:
        live = definition.decode(version.definition)
    except DefinitionError as error:
        return [Cause(title="The live version cannot be read.", text=str(error))]
    if live.trigger is None:
        return [Cause(title="The live version names nothing that would set it off.")]
    case = Case(
        device=device,
        state=DeviceState.objects.filter(pk=device.pk).first(),
        campaign=campaign,
        live=live,
        since=version.published_at,
        now=now,
    )
    found = list(_not_running(case))
    if live.trigger.on in PLACE_TRIGGERS:
        looks: tuple[Callable[[Case], Iterator[Cause]], ...] = (
            _not_seen,
            _not_armed,
            _not_there,
        )
    elif live.trigger.on is TriggerOn.SCHEDULE:
        looks = (_not_seen, _not_armed, _not_scheduled)
    else:
        looks = (_no_event,)
    for look in looks:
        # Where the device was never heard of, its distance to a geofence explains nothing more.
        if causes_of_look := list(look(case)):
            found += causes_of_look
            break
    return found or [
        Cause(
            title="Nothing stands in the way now.",
            text="The moment may have passed before the campaign was published, or its decisions "
            "are older than the retention keeps.",
        )
    ]


def _not_running(case: Case) -> Iterator[Cause]:
    if case.campaign.state != CampaignState.LIVE:
        yield Cause(
            title=f"The campaign is {case.campaign.state}.", text="Only a live one decides."
        )
    if case.live.starts_at and case.live.starts_at > case.now:
        yield Cause(title=f"It starts only at {case.live.starts_at:%d %b %Y %H:%M} UTC.")
    if case.live.ends_at and case.live.ends_at <= case.now:
        yield Cause(title=f"It ended at {case.live.ends_at:%d %b %Y %H:%M} UTC.")


def _not_seen(case: Case) -> Iterator[Cause]:
    if not case.device.consent_location:
        yield Cause(
            title="The person has not agreed to the use of their location.",
            text="Positions of this device are refused at the door.",
        )
    state = case.state
    if state is None or state.received_at is None:
        yield Cause(
            title="The device has never reported a position.",
            text="Does the app have the permission, and has it been opened since?",
        )
    elif state.received_at < case.since:
        yield Cause(
            title="The device has not reported a position since the campaign was published.",
            text=f"The last one came at {state.received_at:%d %b %Y %H:%M} UTC.",
        )


def _not_armed(case: Case) -> Iterator[Cause]:
    places = case.places()
    if not places.exists():
        yield Cause(title="The geofences the campaign names are gone.")
        return
    if not places.armed(case.now).exists():  # type: ignore[attr-defined]
        ended = places.filter(Q(retired_at__isnull=False) | Q(ends_at__lte=case.now))
        yield Cause(
            title="None of the campaign's geofences is armed.",
            text="They have ended or were removed."
            if ended.count() == places.count()
            else "Nothing needs them at the moment: is the campaign live and within its dates?",
        )


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
        yield Cause(title="The moment was set aside as broken.", text=visit.parked_reason)
    elif visit.processed_at is None:
        yield Cause(
            title="It happened and waits to be decided.",
            text="If it waits for more than a few seconds, the evaluation worker is not running.",
        )
    else:
        yield Cause(
            title="The moment was judged, but not by this campaign.",
            text="The campaign did not cover the geofence then, or its decisions are older than "
            "the retention keeps.",
        )


def _other_kind(case: Case, visits: list[Transition]) -> Iterator[Cause]:
    last = visits[0]
    name = Geofence.objects.filter(pk=last.geofence_id).values_list("name", flat=True).first()
    if case.trigger.on is TriggerOn.DWELLED:
        longest_s = max((visit.occurred_at - visit.entered_at).total_seconds() for visit in visits)
        needed = f"{case.trigger.dwell_s // 60} min" if case.trigger.dwell_s else "the dwell time"
        yield Cause(
            title=f"It came, but did not stay for {needed}.",
            text=f"The longest stay seen: {longest_s // 60:.0f} min. Last at {name}, "
            f"{last.occurred_at:%d %b %H:%M} UTC.",
        )
    elif case.trigger.on is TriggerOn.EXITED:
        yield Cause(
            title="It came, but has not been seen leaving.",
            text=f"Entered {name} at {last.entered_at:%d %b %H:%M} UTC; it is believed inside "
            "until a position outside arrives or it falls silent.",
        )
    else:
        yield Cause(
            title="It was seen leaving, but not entering, since the campaign was published.",
            text=f"It was inside {name} before.",
        )


def _nearest(case: Case, places: QuerySet[Geofence]) -> Iterator[Cause]:
    entering = Presence.objects.filter(
        device_id=case.device.pk,
        geofence_id__in=places.values("pk"),
        state=PresenceState.ENTERING.value,
    ).first()
    if entering is not None:
        place = places.get(pk=entering.geofence_id)
        yield Cause(
            title=f"It may be inside {place.name}: more positions must agree.",
            text=f"{entering.agreeing} of {place.confirm_fixes} so far.",
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
        return Cause(title="It has not been at any of the campaign's geofences.")
    away_m, nearest, at, accuracy_m = best
    name = nearest.name
    how_sure = f", with an accuracy of {accuracy_m:.0f} m" if accuracy_m else ""
    if away_m == 0:
        return Cause(
            title=f"It was at the edge of {name}, but not surely inside.",
            text=f"At {at:%d %b %H:%M} UTC{how_sure}: the uncertainty reached across the edge."
            + _would_have_counted(nearest, spot, accuracy_m),
        )
    return Cause(
        title="It has not been at any of the campaign's geofences.",
        text=f"The nearest it came: {away_m:,.0f} m from {name}, "
        f"at {at:%d %b %H:%M} UTC{how_sure}.",
    )


def _would_have_counted(place: Geofence, spot: Point, accuracy_m: float | None) -> str:
    """The accuracy with which a position inside would have been believed, where it was worse."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT CASE WHEN radius_m IS NULL"
            " THEN ST_Distance(ST_Boundary(geometry)::geography, p::geography)"
            " ELSE radius_m - ST_Distance(geometry::geography, p::geography) END"
            " FROM geofences_geofence, ST_SetSRID(ST_MakePoint(%s, %s), 4326) AS p WHERE id = %s",
            (spot.x, spot.y, place.pk),
        )
        (depth_m,) = cursor.fetchone()
    enough_m = math.floor(max(0.0, depth_m) / CERTAINTY)
    if accuracy_m is None or accuracy_m <= enough_m:
        return ""
    if enough_m < 1:
        return " So near the edge no phone is accurate enough."
    return f" It would have counted with an accuracy under {enough_m} m."


_USELESS = {
    FixVerdict.LATE: "came late",
    FixVerdict.MOCKED: "were mocked by a tool on the phone",
    FixVerdict.TELEPORT: "jumped impossibly far",
    FixVerdict.INACCURATE: "were too inaccurate",
}


def _useless_fixes(case: Case) -> Iterator[Cause]:
    verdicts = list(
        Fix.objects.filter(
            device_id=case.device.pk, received_at__gte=case.now - timedelta(days=1)
        ).values_list("verdict", flat=True)[:1000]
    )
    for verdict, why in _USELESS.items():
        count = verdicts.count(verdict)
        if count and count * 2 > len(verdicts):
            yield Cause(title=f"{count} of its last {len(verdicts)} positions {why}.")


def _not_scheduled(case: Case) -> Iterator[Cause]:
    times = Occurrence.objects.filter(campaign=case.campaign, due_at__gte=case.since)
    last = times.filter(due_at__lte=case.now).order_by("-due_at").first()
    if last is None:
        yield Cause(title="Its time has not come since the campaign was published.")
    elif last.missed:
        yield Cause(
            title=f"Its time came at {last.due_at:%d %b %Y %H:%M} UTC, and nobody was asked.",
            text="The campaign did not run then, or the server noticed too late.",
        )
    elif last.finished_at is None:
        yield Cause(title="Its time has come, and the devices are being asked.")
    else:
        yield Cause(
            title="The device was not at the campaign's geofences when the time came.",
            text=f"Last at {last.due_at:%d %b %Y %H:%M} UTC: {last.members} devices were asked.",
        )


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
        yield Cause(title=f"No event “{name}” has come since the campaign was published.")
    elif last.parked_reason:
        yield Cause(title="The event was set aside as broken.", text=last.parked_reason)
    elif last.processed_at is None:
        yield Cause(title="The event has come and waits to be decided.")

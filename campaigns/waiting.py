"""Asks again, before an offer that waited goes out, whether it still holds; keeps why one did not.

An offer waits for a better hour, for a provider that was down, or was asked for once more. What
went out at once was judged a moment ago and is not asked. The rules are those that are live now:
campaigns.rules judges, notifications.outbox cancels; this only gathers, and writes the reason onto
the decision.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from django.db import connection

from campaigns import catalogue, guards, hours, past, rules
from campaigns.behaviour import Need
from campaigns.catalogue import Catalogue
from campaigns.definition import HoursPolicy
from campaigns.history import COUNTED, LONGEST_HOLD
from campaigns.places import Place, known_places
from campaigns.reasons import Reason
from campaigns.standing import TEST
from campaigns.subjects import Known, Subjects, person_of
from notifications.gates import Hold, Stop, Subject
from notifications.outbox import Withheld

# What is sent later than this after it was decided is asked again, whatever kept it.
FRESH = timedelta(minutes=1)
SOMEBODY_ELSE = "somebody_else"

_MS = "(extract(epoch FROM {}) * 1000)::bigint"
_WAITED = f"""
    SELECT d.id, d.device_id, d.person, d.campaign_id, d.moment_kind, d.geofence_id,
           d.content->'data', {_MS.format("d.created_at")}, {_MS.format("d.expires_at")},
           e.name, e.properties
      FROM notifications_delivery d
      LEFT JOIN campaigns_completion c ON d.moment_kind = 'timer' AND c.id = d.moment_id
      LEFT JOIN devices_event e ON e.brand_id = d.brand_id AND e.id = CASE
             WHEN d.moment_kind = 'event' THEN d.moment_id
             WHEN c.last_kind = 'event' THEN c.last_id END
     WHERE d.id = ANY(%s)
"""  # noqa: S608 - only names of our own columns are put in
# What each was offered besides, under its own name or on the same phone.
_OTHERS = f"""
    WITH mine AS (
      SELECT id, brand_id, person, device_id FROM notifications_delivery WHERE id = ANY(%(ids)s)
    ), others AS (
      SELECT m.id AS mine, d.id FROM mine m
        JOIN notifications_delivery d ON d.brand_id = m.brand_id AND d.person = m.person
       WHERE d.created_at > %(since)s AND d.id <> m.id
       UNION
      SELECT m.id, d.id FROM mine m JOIN notifications_delivery d ON d.device_id = m.device_id
       WHERE d.created_at > %(since)s AND d.id <> m.id
    )
    SELECT o.mine, {_MS.format("coalesce(d.sent_at, d.due_at)")}, d.campaign_id
      FROM others o JOIN notifications_delivery d ON d.id = o.id
     WHERE d.state = ANY(%(states)s) AND NOT d.transactional AND d.moment_kind <> 'test'
"""  # noqa: S608 - only names of our own columns are put in
_KEEP_WHY = """
    UPDATE campaigns_decision d SET trace = d.trace || jsonb_build_object('withheld', v.why)
      FROM unnest(%s::bigint[], %s::jsonb[]) AS v (delivery_id, why)
      JOIN notifications_delivery n ON n.id = v.delivery_id
     WHERE d.id = n.decision_id
"""


class Waited(NamedTuple):
    """An offer that is due at last, with what it was about."""

    id: int
    device_id: int
    person: str
    campaign_id: int
    moment_kind: str
    geofence_id: int | None
    data: Any  # what it carries for the app
    created_ms: int
    expires_ms: int
    event: str | None
    properties: Any


class Asked(NamedTuple):
    """One offer, its live campaign, and its moment as it is now and as it was then."""

    row: Waited
    campaign: rules.Campaign
    now: rules.Moment
    then: rules.Moment


def still_right(deliveries: Sequence[Subject], *, now: datetime) -> Mapping[int, Hold | Stop]:
    """Stop what contradicts today's facts; hold what would come at a wrong hour after all.

    At most nine queries for a batch, none where nothing waited.
    """
    ids = [one.id for one in deliveries if one.moment_kind != TEST and _waited(one, now)]
    if not ids:
        return {}
    current, now_ms = catalogue.current(), _ms(now)
    rows = _rows(ids)
    subjects = Subjects(current.brands, now_ms)
    subjects.load({row.device_id for row in rows})
    found: dict[int, Hold | Stop] = {}
    asked = []
    places = known_places({row.geofence_id for row in rows if row.geofence_id is not None})
    for row in rows:
        known, entry = subjects.known.get(row.device_id), current.entries.get(row.campaign_id)
        if known is None or entry is None:
            continue  # erased, or stopped: others say so
        if row.person not in {known.subject.person, person_of(row.device_id, None)}:
            found[row.id] = Stop(reason=SOMEBODY_ELSE)
            continue
        asked.append(_asked(row, _as_sent(entry.campaign, row), known, places, now_ms))
    _measure(asked)
    made = _made([one for one in asked if one.campaign.guards and one.campaign.guards.offers], now)
    for one in asked:
        verdict = _verdict(one, made.get(one.row.id, ()), current)
        if verdict is not None:
            found[one.row.id] = verdict
    return found


def keep_why(withheld: Sequence[Withheld]) -> None:
    """Write onto their decisions why offers do not go out, in the caller's transaction."""
    said = [
        msgspec.json.encode(
            {"reason": one.reason, "at": _ms(one.at), **({"seen": one.seen} if one.seen else {})}
        ).decode()
        for one in withheld
    ]
    with connection.cursor() as cursor:
        cursor.execute(_KEEP_WHY, ([one.delivery_id for one in withheld], said))


def _waited(one: Subject, now: datetime) -> bool:
    return one.due_at > one.created_at or now - one.created_at > FRESH


def _rows(ids: list[int]) -> list[Waited]:
    with connection.cursor() as cursor:
        cursor.execute(_WAITED, (ids,))
        return [Waited._make(row) for row in cursor.fetchall()]


def _as_sent(campaign: rules.Campaign, row: Waited) -> rules.Campaign:
    """The live campaign; its rules look at the data that this offer carries."""
    asked, data = campaign.guards, _json(row.data) or {}
    if asked is None or asked.data == data:
        return campaign
    return replace(campaign, guards=replace(asked, data=data))


def _asked(
    row: Waited,
    campaign: rules.Campaign,
    known: Known,
    places: Mapping[int, Place],
    now_ms: int,
) -> Asked:
    place = places.get(row.geofence_id or 0)
    # A sequence that ended at a place is about that, whatever event told of it late.
    tells = campaign.pattern is None or row.geofence_id is None
    now, then = (
        rules.Moment(
            kind=row.moment_kind,
            id=row.id,
            on=campaign.on,
            occurred_ms=row.created_ms,
            now_ms=at_ms,
            subject=replace(known.subject, measures={}, now_ms=at_ms),
            tz=known.tz,
            local=known.local,
            geofence_id=row.geofence_id,
            tags=() if place is None else place.tags,
            place=place,
            event=(row.event or "") if tells else "",
            properties=(_json(row.properties) or {}) if tells else {},
        )
        for at_ms in (now_ms, row.created_ms)
    )
    return Asked(row, campaign, now, then)


def _measure(asked: Iterable[Asked]) -> None:
    needed: list[tuple[rules.Moment, int, frozenset[Need] | set[Need]]] = []
    for one in asked:
        needed.append((one.then, one.campaign.brand_id, one.campaign.audience.needs))
        if one.campaign.guards is not None:
            wanted = one.campaign.guards.needs(one.now)
            needed.append((one.now, one.campaign.brand_id, wanted))
    past.measure_each(needed)


def _made(asked: Sequence[Asked], now: datetime) -> dict[int, list[tuple[int, int]]]:
    """The offers made to the same person: instants and campaigns, by the delivery that asks."""
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    if asked:
        longest_s = max(one.campaign.guards.longest_s for one in asked if one.campaign.guards)
        with connection.cursor() as cursor:
            cursor.execute(
                _OTHERS,
                {
                    "ids": [one.row.id for one in asked],
                    "since": now - timedelta(seconds=longest_s) - LONGEST_HOLD,
                    "states": list(COUNTED),
                },
            )
            for key, at_ms, campaign_id in cursor.fetchall():
                found[key].append((at_ms, campaign_id))
    return found


def _verdict(one: Asked, made: Iterable[tuple[int, int]], current: Catalogue) -> Hold | Stop | None:
    refusal = rules.gate_again(one.campaign, one.now, then=one.then)
    if refusal is not None:
        return Stop(reason=refusal.reason, seen=refusal.trace)
    if one.campaign.guards is not None:
        told = guards.against_offer(one.campaign.guards, made, current.marks, at_ms=one.now.now_ms)
        if told is not None:
            return Stop(reason=Reason.CONTRADICTS_OFFER, seen=told)
    return _hour(one)


def _hour(one: Asked) -> Hold | Stop | None:
    """The hour where the device is now: it may have travelled, or the wait was longer."""
    campaign, moment = one.campaign, one.now
    wall = moment.local
    is_open = hours.is_open(wall.weekday, wall.minute, campaign.dayparts)
    quiet = None if campaign.transactional else campaign.quiet
    if is_open and not hours.is_quiet(wall.weekday, wall.minute, quiet):
        return None
    reason = Reason.QUIET_HOURS if is_open else Reason.OUTSIDE_DAYPART
    policy = campaign.quiet_policy if is_open else campaign.outside_dayparts
    next_ms = hours.next_allowed_ms(
        moment.now_ms, moment.tz, dayparts=campaign.dayparts, quiet=quiet
    )
    if policy is HoursPolicy.DROP or next_ms is None or next_ms >= one.row.expires_ms:
        seen: dict[str, Any] = {"local": wall.text}
        return Stop(reason=reason, seen=seen if next_ms is None else seen | {"next_at": next_ms})
    return Hold(until=datetime.fromtimestamp(next_ms / 1000, UTC), reason=reason)


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)

"""What a campaign was worth: who saw it, who did not on purpose, what they did then. Reads only.

A person counts once, from the first offer (or ghost) of the campaign on; at a place, from the first
one there. Both groups passed the same gates, so the offer is all that differs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
from django.db import connection

from campaigns import lift as lifts
from campaigns.course import ANSWERS
from campaigns.definition import Goal, decode
from campaigns.experiments import Arm
from campaigns.models import Campaign
from geofences.models import Geofence

MOST_PLACES = 200

# First exposures: offers with their variant, ghosts with their group.
_EXPOSED = """
    SELECT DISTINCT ON (person {by_place})
           coalesce(d.external_id, 'device:' || d.id) AS person, e.device_id, e.geofence_id,
           e.decided_at AS at, e.id AS decision_id,
           CASE WHEN e.verdict = 'send' THEN coalesce(e.trace->>'variant', '')
                ELSE 'ghost:' || (e.trace->>'group') END AS arm
      FROM campaigns_decision e JOIN devices_device d ON d.id = e.device_id
     WHERE e.campaign_id = %(campaign)s AND (e.verdict = 'send' OR e.reason = 'held_out')
       AND e.campaign_version >= %(version)s
     ORDER BY person {by_place}, e.decided_at, e.id
"""
_BY_EVENT = """
    EXISTS (SELECT FROM devices_event v
             WHERE v.brand_id = %(brand)s AND v.name = %(event)s AND v.properties @> %(where)s
               AND v.occurred_at > x.at AND v.occurred_at <= x.at + %(within)s * interval '1 second'
               AND (v.device_id = x.device_id OR v.external_id = x.person
                    OR v.device_id IN (SELECT o.id FROM devices_device o
                                        WHERE o.brand_id = %(brand)s AND o.external_id = x.person)))
"""
_BY_VISIT = """
    EXISTS (SELECT FROM devices_transition v JOIN geofences_geofence g ON g.id = v.geofence_id
             WHERE v.kind = 'entered' AND v.occurred_at > x.at
               AND v.occurred_at <= x.at + %(within)s * interval '1 second'
               AND (v.device_id = x.device_id
                    OR v.device_id IN (SELECT o.id FROM devices_device o
                                        WHERE o.brand_id = %(brand)s AND o.external_id = x.person))
               AND (g.id = ANY(%(ids)s::bigint[]) OR g.external_id = ANY(%(external_ids)s::text[])
                    OR g.tags && %(tags)s::varchar[]))
"""
_BY_FEEDBACK = """
    EXISTS (SELECT FROM notifications_delivery y JOIN notifications_feedback f
                ON f.delivery_id = y.id AND f.event = %(feedback)s
             WHERE y.device_id = x.device_id AND y.decision_id = x.decision_id
               AND f.occurred_at <= x.at + %(within)s * interval '1 second')
"""
_COUNT = """
    SELECT {place}, x.arm, count(*), count(*) FILTER (WHERE {converted})
      FROM ({exposed}) x GROUP BY 1, 2
"""


# Offers as sent and answered, each counted once.
_FUNNEL = f"""
    SELECT d.variant, count(*) FILTER (WHERE d.state = 'sent'),
           count(*) FILTER (WHERE f.received), count(*) FILTER (WHERE f.opened),
           count(*) FILTER (WHERE f.redeemed)
      FROM notifications_delivery d
      {ANSWERS}
     WHERE d.campaign_id = %s AND d.moment_kind <> 'test' GROUP BY 1
"""  # noqa: S608 - constants


class LiftOut(msgspec.Struct, kw_only=True):
    """One comparison; shares are of persons."""

    treated: list[int]  # shown, converted
    control: list[int]
    treated_share: float
    control_share: float
    difference: float
    low: float
    high: float
    relative: float | None


class VariantOut(msgspec.Struct, kw_only=True):
    """What became of one variant; a campaign without variants has one without a name."""

    name: str
    sent: int = 0
    received: int = 0
    opened: int = 0
    redeemed: int = 0
    persons: int = 0
    converted: int = 0
    share: tuple[float, float] = (0.0, 1.0)  # Wilson's interval of those who reached the goal
    lift: LiftOut | None = None  # over those left out


class Results(msgspec.Struct, kw_only=True):
    """What came of a campaign."""

    goal: dict[str, Any] | None
    arms: dict[str, list[int]]  # variant or ghost group: persons, converted
    variants: list[VariantOut] = []
    lift: LiftOut | None = None
    places: list[dict[str, Any]] = []
    level: float = lifts.LEVEL
    method: str = "Newcombe's hybrid score interval (Wilson), by persons, from their first offer"


def arms_of(campaign: Campaign, goal: Goal | None, *, version: int = 0) -> dict[str, Arm]:
    """Persons and conversions of every variant and ghost group, from a version on."""
    found = _counted(campaign, goal, version, by_place=False)
    return {arm: counts for (_, arm), counts in found.items()}


def results(campaign: Campaign) -> Results:
    """Everything that a marketer asks about a campaign's worth."""
    live = campaign.live_version
    goal = decode(live.definition).goal if live is not None else None
    arms = arms_of(campaign, goal)
    by_feedback = goal is not None and goal.feedback is not None
    found = Results(
        goal=None if goal is None else msgspec.to_builtins(goal),
        arms={name or "offer": list(arm) for name, arm in sorted(arms.items())},
        variants=_variants(campaign, arms, compared=goal is not None and not by_feedback),
    )
    # Who got nothing cannot open it: feedback compares variants, not offers with silence.
    if goal is not None and not by_feedback:
        found.lift = _lift(arms)
        found.places = _places(campaign, goal)
    return found


def _variants(campaign: Campaign, arms: dict[str, Arm], *, compared: bool) -> list[VariantOut]:
    with connection.cursor() as cursor:
        cursor.execute(_FUNNEL, (campaign.pk,))
        funnels = {name: counts for name, *counts in cursor.fetchall()}
    ghosts = {name: arm for name, arm in arms.items() if name.startswith("ghost:")}
    found = []
    for name in sorted({*funnels, *arms} - ghosts.keys()):
        sent, received, opened, redeemed = funnels.get(name, (0, 0, 0, 0))
        arm = arms.get(name, Arm(0, 0))
        found.append(
            VariantOut(
                name=name,
                sent=sent,
                received=received,
                opened=opened,
                redeemed=redeemed,
                persons=arm.shown,
                converted=arm.converted,
                share=(lifts.share(arm).low, lifts.share(arm).high),
                lift=_lift({name: arm, **ghosts}) if compared else None,
            )
        )
    return found


def _places(campaign: Campaign, goal: Goal) -> list[dict[str, Any]]:
    by_place: dict[int, dict[str, Arm]] = defaultdict(dict)
    for (geofence_id, arm), counts in _counted(campaign, goal, 0, by_place=True).items():
        if geofence_id is not None:
            by_place[geofence_id][arm] = counts
    busiest = sorted(by_place, key=lambda key: -sum(arm.shown for arm in by_place[key].values()))
    names = dict(Geofence.objects.filter(pk__in=by_place).values_list("pk", "name"))
    return [
        {
            "id": key,
            "name": names.get(key, ""),
            "lift": None if (lift := _lift(by_place[key])) is None else msgspec.to_builtins(lift),
        }
        for key in busiest[:MOST_PLACES]
    ]


def _lift(arms: dict[str, Arm]) -> LiftOut | None:
    treated = _sum(arm for name, arm in arms.items() if not name.startswith("ghost:"))
    control = _sum(arm for name, arm in arms.items() if name.startswith("ghost:"))
    if not treated.shown or not control.shown:
        return None
    found = lifts.lift(treated, control)
    return LiftOut(
        treated=list(treated),
        control=list(control),
        treated_share=found.treated,
        control_share=found.control,
        difference=found.difference,
        low=found.interval.low,
        high=found.interval.high,
        relative=found.relative,
    )


def _sum(arms: Any) -> Arm:
    shown, converted = 0, 0
    for arm in arms:
        shown, converted = shown + arm.shown, converted + arm.converted
    return Arm(shown, converted)


def _counted(
    campaign: Campaign, goal: Goal | None, version: int, *, by_place: bool
) -> dict[tuple[int | None, str], Arm]:
    query = _COUNT.format(
        place="x.geofence_id" if by_place else "NULL::bigint",
        converted=_condition(goal),
        exposed=_EXPOSED.format(by_place=", e.geofence_id" if by_place else ""),
    )
    values = {
        "campaign": campaign.pk,
        "brand": campaign.brand_id,
        "version": version,
        **_values(goal),
    }
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return {
            (geofence_id, arm): Arm(shown, converted)
            for geofence_id, arm, shown, converted in cursor.fetchall()
        }


def _condition(goal: Goal | None) -> str:
    if goal is None:
        return "false"
    if goal.event:
        return _BY_EVENT
    return _BY_FEEDBACK if goal.feedback else _BY_VISIT


def _values(goal: Goal | None) -> dict[str, Any]:
    if goal is None:
        return {}
    return {
        "event": goal.event,
        "where": msgspec.json.encode(goal.where).decode(),
        "within": goal.within_s,
        "feedback": goal.feedback,
        "ids": [place for place in goal.geofences if isinstance(place, int)],
        "external_ids": [place for place in goal.geofences if isinstance(place, str)],
        "tags": list(goal.tags),
    }

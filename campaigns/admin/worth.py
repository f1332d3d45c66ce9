"""A campaign's results as its page shows them: figures of campaigns.results, in words."""

from __future__ import annotations

from typing import Any

import msgspec

from campaigns import budgets, results, sentences
from campaigns.definition import DefinitionError, Goal, decode
from campaigns.models import Campaign, Spend
from campaigns.results import LiftOut, Results

GROUPS = {
    "ghost:holdout": "Left out by this campaign",
    "ghost:control": "The brand's control group",
}


def shown_results(campaign: Campaign) -> dict[str, Any]:
    """Everything the page needs."""
    found = results.results(campaign)
    best = max((one.converted / one.persons for one in found.variants if one.persons), default=0.0)
    return {
        "campaign": campaign,
        "results": found,
        "goal": _goal(found),
        "by_feedback": bool(found.goal and found.goal.get("feedback")),
        "variants": [
            {
                "name": one.name or "The offer",
                "counts": one,
                "share": percent(one.converted, one.persons),
                "low": f"{one.share[0]:.1%}",
                "high": f"{one.share[1]:.1%}",
                "bar": round(100 * one.converted / one.persons / best)
                if one.persons and best
                else 0,
                "lift": lift_of(one.lift),
            }
            for one in found.variants
        ],
        "groups": [
            {
                "name": title,
                "persons": arm[0],
                "converted": arm[1],
                "share": percent(arm[1], arm[0]),
            }
            for name, title in GROUPS.items()
            if (arm := found.arms.get(name))
        ],
        "lift": lift_of(found.lift),
        "places": [
            {"id": one["id"], "name": one["name"], "lift": lift_of(_struct(one["lift"]))}
            for one in found.places
        ],
        "level": f"{found.level:.0%}",
        "spent": _spent(campaign),
        "learnt": campaign.allocations.first(),
    }


def percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def lift_of(lift: LiftOut | None) -> dict[str, Any] | None:
    """A comparison in words: points of percent, and whether that is more than chance."""
    if lift is None:
        return None
    sure = "good" if lift.low > 0 else "bad" if lift.high < 0 else ""
    return {
        "points": f"{100 * lift.difference:+.1f}",
        "low": f"{100 * lift.low:+.1f}",
        "high": f"{100 * lift.high:+.1f}",
        "relative": None if lift.relative is None else f"{lift.relative:+.0%}",
        "treated": f"{lift.treated[1]:,} of {lift.treated[0]:,}",
        "control": f"{lift.control[1]:,} of {lift.control[0]:,}",
        "treated_share": f"{lift.treated_share:.1%}",
        "control_share": f"{lift.control_share:.1%}",
        "tone": sure,
        "verdict": {"good": "better than chance", "bad": "worse than nothing"}.get(
            sure, "may be chance"
        ),
    }


def _struct(raw: dict[str, Any] | None) -> LiftOut | None:
    return None if raw is None else LiftOut(**raw)


def _goal(found: Results) -> str:
    if found.goal is None:
        return ""
    return sentences.goal(msgspec.convert(found.goal, Goal))


def _spent(campaign: Campaign) -> str:
    """What the budget has given so far, where there is one."""
    live = campaign.live_version
    total = Spend.objects.filter(campaign=campaign, day=None, geofence_id=None).first()
    if live is None or total is None:
        return ""
    try:
        budget = decode(live.definition).budget
    except DefinitionError:
        return ""
    said = f"{total.sends:,} offers"
    if budget is not None and budget.cost:
        said += f", {budgets.money(total.money, budget.currency)}"
    return said + (f" of {budgets.in_words(budget)}" if budget is not None else "")

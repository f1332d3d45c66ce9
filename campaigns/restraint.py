"""What other offers have against an offer: said otherwise, a better one, too many, too dear. Pure.

Asked once a campaign's own rules are passed (`campaigns.rules`), in this order; with them it makes
the verdict. It also says what follows from a yes: what it counts for, costs and takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from campaigns import budgets, codes, experiments, hours, scores
from campaigns import caps as capping
from campaigns import guards as guarding
from campaigns.definition import HoursPolicy
from campaigns.reasons import Decision, Reason, Trace
from campaigns.rules import Campaign, Moment, allowed_ms, gate, window_trace


class Winner(NamedTuple):
    """Who already speaks at this moment."""

    campaign_id: int
    name: str
    priority: int
    score: float | None = None  # None: of a batch before


@dataclass(slots=True, kw_only=True)
class History:
    """What restraint looks at: offers counted so far, who won this moment, what was spent."""

    counts: capping.Counts
    winners: dict[str, Winner] = field(default_factory=dict)
    # What each campaign's offers are called by in rules (campaigns.guards.marks_of).
    marks: Mapping[int, frozenset[str]] = field(default_factory=dict)
    purses: dict[int, budgets.Purse] = field(default_factory=lambda: defaultdict(budgets.Purse))
    supplies: Mapping[tuple[int, str], codes.Supply] = field(default_factory=dict)


def decide(campaign: Campaign, moment: Moment, history: History) -> Decision:
    """The verdict of one campaign on one moment: the first reason against it, or an offer."""
    refusal = gate(campaign, moment)
    if refusal is not None:
        return Decision(False, *refusal)
    return restrain(campaign, moment, history)


def restrain(campaign: Campaign, moment: Moment, history: History) -> Decision:
    """The verdict once the gates are passed: said otherwise, a better one, too many, or go."""
    if campaign.guards is not None and campaign.guards.offers:
        due_ms = _due_ms(campaign, moment)
        made = history.counts.made_to(moment.subject.person, moment.subject.device_id)
        told = guarding.against_offer(campaign.guards, made, history.marks, at_ms=due_ms)
        if told is not None:
            return Decision(False, Reason.CONTRADICTS_OFFER, told)
    beaten = None if campaign.transactional else history.winners.get(campaign.group)
    if beaten is not None:
        return _lost(
            campaign.priority,
            score_of(campaign, moment),
            beaten.campaign_id,
            beaten.name,
            beaten.priority,
            beaten.score,
        )
    due_ms = _due_ms(campaign, moment)
    if campaign.ends_ms is not None and due_ms >= campaign.ends_ms:
        # The right hour comes, but the campaign's end comes first.
        return Decision(False, Reason.OUTSIDE_WINDOW, window_trace(campaign, due_ms))
    offer = offer_of(campaign, moment, due_ms)
    if campaign.caps and not campaign.transactional:
        full = capping.reached(campaign.caps, offer, history.counts, moment.tz)
        if full is not None:
            return Decision(False, Reason.CAP_REACHED, _cap_trace(full))
    if campaign.budget is not None:
        lacking = budgets.short(
            campaign.budget, history.purses[campaign.id], due_ms, moment.geofence_id
        )
        if lacking is not None:
            reason = Reason.PACED if lacking.is_paced else Reason.BUDGET_SPENT
            return Decision(False, reason, _budget_trace(campaign.budget, lacking))
    if campaign.coupon_pool and coupon(campaign, history) is None:
        return Decision(False, Reason.COUPONS_GONE, {"pool": campaign.coupon_pool})
    if due_ms > moment.now_ms:
        return Decision(True, Reason.HELD, {"due_at": due_ms, "local": moment.local.text}, due_ms)
    return Decision(True, Reason.MATCHED, {"local": moment.local.text}, due_ms)


@lru_cache(maxsize=4_096)
def _lost(
    priority: int,
    score: float,
    winner_id: int,
    winner: str,
    winner_priority: int,
    winner_score: float | None,
) -> Decision:
    """The same decision wherever the same campaigns meet: nobody may write into its trace."""
    trace: Trace = {
        "winner_id": winner_id,
        "winner": winner,
        "winner_priority": winner_priority,
        "priority": priority,
    }
    if winner_priority > priority:
        trace["by"] = "priority"
    elif winner_priority == priority and (winner_score or 0.0) > score:
        trace["by"] = "score"
    else:
        # It is older, or spoke before this one could be judged.
        trace["by"] = "order"
    if winner_score or score:
        trace |= {"winner_score": winner_score, "score": score}
    return Decision(False, Reason.LOST_TO_PRIORITY, trace)


def score_of(campaign: Campaign, moment: Moment) -> float:
    """What the campaign is worth at this moment."""
    if not campaign.score_by:
        return campaign.score
    return scores.score(
        campaign.score,
        campaign.score_by,
        dwell_s=moment.dwell_s,
        distance_m=moment.distance_m,
        attributes=moment.subject.attributes,
    )


def left_out(campaign: Campaign, moment: Moment) -> str:
    """The group that gets nothing on purpose, where this person is in one: a ghost offer.

    Asked last of all: a ghost has passed every gate and counts like an offer, so that what is
    compared differs in nothing but the offer itself.
    """
    if campaign.transactional:
        return ""
    person, (share, salt) = moment.subject.person, campaign.control
    if experiments.is_control(person, brand_id=campaign.brand_id, share=share, salt=salt):
        return "control"
    held = experiments.is_held_out(person, campaign_id=campaign.id, share=campaign.holdout)
    return "holdout" if held else ""


def variant_of(campaign: Campaign, moment: Moment) -> str:
    """The variant this person gets; nothing where the campaign has none."""
    if not campaign.weights:
        return ""
    return experiments.variant_of(
        moment.subject.person, campaign_id=campaign.id, weights=campaign.weights
    )


def won(campaign: Campaign, moment: Moment, history: History, due_ms: int) -> None:
    """Let the offers that follow know of this one."""
    history.counts.add(offer_of(campaign, moment, due_ms))
    if not campaign.transactional:
        history.winners[campaign.group] = Winner(
            campaign_id=campaign.id,
            name=campaign.name,
            priority=campaign.priority,
            score=score_of(campaign, moment),
        )


def charge(
    campaign: Campaign, moment: Moment, history: History, due_ms: int
) -> budgets.Charge | None:
    """Take an offer from the budget, where there is one.

    Not asked of ghosts: both groups meet the same purse at the same time, and only offers cost.
    """
    if campaign.budget is None:
        return None
    taken = budgets.charge_of(campaign.budget, due_ms, moment.geofence_id)
    history.purses[campaign.id].take(taken)
    return taken


def coupon(campaign: Campaign, history: History, *, take: bool = False) -> codes.Code | None:
    """The next code of the campaign's pool, for good where it is taken; None without one."""
    if not campaign.coupon_pool:
        return None
    supply = history.supplies.get((campaign.brand_id, campaign.coupon_pool), codes.NOTHING)
    return supply.take() if take else supply.peek()


def offer_of(campaign: Campaign, moment: Moment, due_ms: int) -> capping.Offer:
    subject = moment.subject
    return capping.Offer(
        due_ms,
        subject.device_id,
        subject.person,
        campaign.id,
        moment.geofence_id,
        moment.tags,
        "push" if subject.has_push else "inbox",
    )


def _due_ms(campaign: Campaign, moment: Moment) -> int:
    """When the offer may go out: now, or where the campaign holds it, at the next good hour."""
    if campaign.speaks_at(moment.local):
        return moment.now_ms
    return allowed_ms(campaign, moment) or moment.now_ms


def expires_ms(campaign: Campaign, moment: Moment, due_ms: int) -> int:
    """Until when an offer is good: from when it is due, or from now if its wait counts."""
    wall = moment.local
    counts = due_ms > moment.now_ms and (
        campaign.quiet_policy is HoursPolicy.WHILE_GOOD
        if hours.is_open(wall.weekday, wall.minute, campaign.dayparts)
        else campaign.outside_dayparts is HoursPolicy.WHILE_GOOD
    )
    return (moment.now_ms if counts else due_ms) + campaign.expires_after_ms


def _cap_trace(full: capping.Full) -> Trace:
    cap = full.cap
    trace: Trace = {"scope": cap.scope.value, "seen": full.seen, "limit": cap.limit}
    if cap.of_brand:
        trace["of"] = "brand"
    if cap.tag or cap.channel:
        trace["what"] = cap.tag or cap.channel
    if cap.window_ms is not None:
        trace["window_s"] = cap.window_ms // 1000
    if cap.period is not None:
        trace["per"] = cap.period.value
    if full.next_ms is not None:
        trace["next_at"] = full.next_ms
    return trace


def _budget_trace(budget: budgets.Budget, lacking: budgets.Short) -> Trace:
    trace: Trace = {
        "whole": lacking.limit.whole.value,
        "unit": lacking.limit.unit.value,
        "seen": lacking.seen,
        "limit": lacking.allowed,
    }
    if lacking.is_paced:
        trace["of"] = lacking.limit.amount
    if lacking.limit.unit is budgets.Unit.MONEY:
        trace["currency"] = budget.currency
    if lacking.next_ms is not None:
        trace["next_at"] = lacking.next_ms
    return trace

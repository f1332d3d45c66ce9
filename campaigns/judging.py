"""Every candidate's verdict on every moment: gates, then turns, restraint and content. No rows.

The same for what happens now and for what happened long ago: evaluation hands in the offers that
it locked and read, a backtest those that it made up itself.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from campaigns import budgets, caps, codes, places, restraint, rules
from campaigns.audience import Subject
from campaigns.catalogue import Catalogue
from campaigns.content import ContentError, Scene, render
from campaigns.moments import Happening
from campaigns.reasons import Decision, Reason

logger = logging.getLogger(__name__)

Pair = tuple[Happening, rules.Campaign]
Refused = tuple[Happening, rules.Campaign, Decision]
MomentKey = tuple[object, ...]


class Offers:
    """The offers that count, per brand, and who won which moment so far."""

    def __init__(self) -> None:
        self.counts: dict[int, caps.Counts] = {}
        self.winners: dict[MomentKey, dict[str, restraint.Winner]] = defaultdict(dict)
        self.marks: Mapping[int, frozenset[str]] = {}  # see campaigns.guards.marks_of
        self.purses: dict[int, budgets.Purse] = defaultdict(budgets.Purse)  # by campaign
        self.supplies: dict[tuple[int, str], codes.Supply] = {}  # by brand and pool
        # What is said of those who lose, by winner and campaign: see `_lost`.
        self.losses: dict[tuple[restraint.Winner, int], Decision] = {}

    def of(self, happening: Happening) -> restraint.History:
        """What restraint looks at for one moment."""
        return restraint.History(
            counts=self.counts[happening.brand.id],
            winners=self.winners[moment_key(happening)],
            marks=self.marks,
            purses=self.purses,
            supplies=self.supplies,
        )


Read = Callable[[Sequence[Pair]], Offers]


def moment_key(happening: Happening) -> MomentKey:
    """What one winner is chosen for: an event, or all that one fix of a device brought about."""
    moment = happening.moment
    if moment.kind == "transition":
        return ("transition", moment.subject.device_id, moment.occurred_ms)
    return (moment.kind, moment.subject.device_id, moment.id)  # of a schedule: what the wall shows


@dataclass(slots=True, kw_only=True)
class Send:
    """An offer that is to be made."""

    happening: Happening
    campaign: rules.Campaign
    decision: Decision
    content: dict[str, Any]
    variant: str = ""
    charge: budgets.Charge | None = None
    coupon: codes.Code | None = None


@dataclass(slots=True, kw_only=True)
class Verdicts:
    """Everything a batch decided."""

    sends: list[Send] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)


def judge(happenings: Sequence[Happening], current: Catalogue, read: Read) -> Verdicts:
    """Every candidate's verdict on every moment; `read` gets those that the gates let through."""
    verdicts = Verdicts()
    for verdicts in in_steps(happenings, current, read):  # noqa: B007 - it grows: the last has all
        pass
    return verdicts


def in_steps(happenings: Sequence[Happening], current: Catalogue, read: Read) -> Iterator[Verdicts]:
    """As `judge`: what is decided so far, once `read` was asked, and again after each moment."""
    verdicts = Verdicts()
    likely = _through_the_gates(happenings, verdicts)
    offers = read(likely)
    yield verdicts
    refuse = verdicts.refusals.append
    for group in _in_turn(likely):
        past = offers.of(group[0][0])
        winners = past.winners
        for happening, campaign in group:
            if campaign.gives_way and campaign.group in winners:
                refuse((happening, campaign, _lost(happening, campaign, past, offers)))
            else:
                _restrain(happening, campaign, past, current, verdicts)
        yield verdicts


class _Plan(NamedTuple):
    """What to ask some candidates of plain moments, unless one is too late for any of them."""

    candidates: tuple[rules.Campaign, ...]
    asked: list[rules.Asked]
    max_age_ms: int


def _plan(candidates: tuple[rules.Campaign, ...], moment: rules.Moment) -> _Plan:
    asked = []
    for campaign in candidates:
        try:
            asked.append(rules.ask_at(campaign, moment))
        except Exception:  # noqa: BLE001 - it breaks again, and is logged, when it is asked
            asked.append(rules.Asked(campaign, campaign.gates, None))
    most_ms = min((campaign.max_age_ms for campaign in candidates), default=0)
    return _Plan(candidates, asked, most_ms)


def _through_the_gates(happenings: Iterable[Happening], verdicts: Verdicts) -> list[Pair]:
    likely: list[Pair] = []
    refusals, objection_of = verdicts.refusals, rules.objection_of
    # By candidates, instant and zone: a thousand moments of a batch share a few.
    plans: dict[tuple[int, int, ZoneInfo], _Plan] = {}
    for happening in happenings:
        moment, candidates = happening.moment, happening.candidates
        key = (id(candidates), moment.now_ms, moment.tz)
        plan = plans.get(key)
        if plan is None:
            plan = plans[key] = _plan(candidates, moment)
        asked = plan.asked
        if moment.now_ms - moment.occurred_ms > plan.max_age_ms or not rules.is_plain(moment):
            asked = [rules.Asked(campaign, campaign.gates, None) for campaign in candidates]
        for one in asked:
            try:
                refused = objection_of(one, moment)
            # A campaign that breaks the rules' own code refuses by itself and stops no other.
            except Exception as error:
                logger.exception("campaign %s broke on %s", one.campaign.id, moment.id)
                trace = {"problem": str(error)[:200]}
                refused = Decision(False, Reason.MALFORMED, trace)
            if refused is None:
                likely.append((happening, one.campaign))
            else:
                refusals.append((happening, one.campaign, refused))
    return likely


def _in_turn(likely: Iterable[Pair]) -> list[list[Pair]]:
    """By moment, earliest first; within one, in the order in which campaigns may speak."""
    groups: dict[MomentKey, list[Pair]] = defaultdict(list)
    last, mine = None, list[Pair]()
    for pair in likely:
        if pair[0] is not last:
            last = pair[0]
            mine = groups[moment_key(last)]
        mine.append(pair)
    for group in groups.values():
        alone = group[0][0] is group[-1][0]  # nothing else of the same fix
        if alone and not any(one.score_by for _, one in group):
            group.sort(key=_own_turn)
        else:
            group.sort(key=_turn)
    return sorted(
        groups.values(), key=lambda group: (group[0][0].moment.occurred_ms, group[0][0].moment.id)
    )


def _own_turn(pair: Pair) -> tuple[float, ...]:
    return pair[1].turn


def _turn(pair: Pair) -> tuple[float, ...]:
    happening, campaign = pair
    moment = happening.moment
    if not campaign.score_by:
        return (*campaign.turn, moment.id)
    if "distance_m" in campaign.score_by and happening.place is not None:
        moment.distance_m = places.distance_m(happening.place, happening.fix)
    return (-campaign.priority, -restraint.score_of(campaign, moment), campaign.id, moment.id)


def _lost(
    happening: Happening, campaign: rules.Campaign, past: restraint.History, offers: Offers
) -> Decision:
    """The refusal of one that gives way, made once for the same two campaigns."""
    key = (past.winners[campaign.group], campaign.id)
    found = offers.losses.get(key)
    if found is None:
        found = offers.losses[key] = restraint.restrain(campaign, happening.moment, past)
    return found


def _restrain(
    happening: Happening,
    campaign: rules.Campaign,
    past: restraint.History,
    current: Catalogue,
    verdicts: Verdicts,
) -> None:
    moment = happening.moment
    decision = restraint.restrain(campaign, moment, past)
    if not decision.send:
        verdicts.refusals.append((happening, campaign, decision))
        return
    variant = restraint.variant_of(campaign, moment)
    if variant:
        decision.trace["variant"] = variant
    try:
        content = _content(happening, campaign, variant, current, restraint.coupon(campaign, past))
    except ContentError as error:
        trace = {"field": error.field, "problem": error.message}
        refused = Decision(False, Reason.CONTENT_ERROR, trace)
        verdicts.refusals.append((happening, campaign, refused))
        return
    restraint.won(campaign, moment, past, decision.due_ms)
    group = restraint.left_out(campaign, moment)
    if group:
        ghost = Decision(False, Reason.HELD_OUT, {"group": group, **decision.trace})
        verdicts.refusals.append((happening, campaign, ghost))
        return
    verdicts.sends.append(
        Send(
            happening=happening,
            campaign=campaign,
            decision=decision,
            content=content,
            variant=variant,
            charge=restraint.charge(campaign, moment, past, decision.due_ms),
            coupon=restraint.coupon(campaign, past, take=True),
        )
    )


def _content(
    happening: Happening,
    campaign: rules.Campaign,
    variant: str,
    current: Catalogue,
    coupon: codes.Code | None,
) -> dict[str, Any]:
    template = current.entries[campaign.id].contents.get(variant)
    if template is None:
        raise ContentError("content", "there is none")
    scene = scene_of(happening, campaign)
    if coupon is not None:
        scene = replace(scene, coupon=coupon_of(coupon))
    return render(template, scene, locale=happening.moment.subject.locale)


def coupon_of(coupon: codes.Code) -> dict[str, Any]:
    """What templates may say of a coupon."""
    return {
        "code": coupon.code,
        "last_day": None if coupon.last_day is None else coupon.last_day.isoformat(),
    }


def scene_of(happening: Happening, campaign: rules.Campaign) -> Scene:
    """What the offer's templates may speak of."""
    moment, place, subject = happening.moment, happening.place, happening.moment.subject
    return Scene(
        device=about_device(subject),
        place={} if place is None else about_place(place),
        moment={
            "on": moment.on.value,
            "at": moment.local.text,
            "dwell_s": moment.dwell_s,
            "distance_m": None if place is None else places.distance_m(place, happening.fix),
        },
        event={"name": moment.event, "properties": moment.properties},
        brand={"name": happening.brand.name},
        campaign={"name": campaign.name},
    )


def about_device(subject: Subject) -> dict[str, Any]:
    """A device and its person, to a template."""
    return {
        "platform": subject.platform,
        "locale": subject.locale,
        "timezone": subject.timezone,
        "app_version": subject.app_version,
        "external_id": subject.external_id,
        "attributes": subject.attributes,
    }


def about_place(place: places.Place) -> dict[str, Any]:
    """A geofence, to a template."""
    return {
        "id": place.id,
        "external_id": place.external_id,
        "name": place.name,
        "tags": list(place.tags),
        "metadata": place.metadata,
    }

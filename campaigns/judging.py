"""Every candidate's verdict on every moment: gates, then turns, restraint and content. No rows.

The same for what happens now and for what happened long ago: evaluation hands in the offers that
it locked and read, a backtest those that it made up itself.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from campaigns import budgets, caps, codes, places, rules
from campaigns.audience import Subject
from campaigns.catalogue import Catalogue
from campaigns.content import ContentError, Scene, render
from campaigns.moments import Happening

logger = logging.getLogger(__name__)

Pair = tuple[Happening, rules.Campaign]
Refused = tuple[Happening, rules.Campaign, rules.Decision]
MomentKey = tuple[object, ...]


class Offers:
    """The offers that count, per brand, and who won which moment so far."""

    def __init__(self) -> None:
        self.counts: dict[int, caps.Counts] = {}
        self.winners: dict[MomentKey, dict[str, rules.Winner]] = defaultdict(dict)
        self.marks: Mapping[int, frozenset[str]] = {}  # see campaigns.guards.marks_of
        self.purses: dict[int, budgets.Purse] = defaultdict(budgets.Purse)  # by campaign
        self.supplies: dict[tuple[int, str], codes.Supply] = {}  # by brand and pool

    def of(self, happening: Happening) -> rules.History:
        """What restraint looks at for one moment."""
        return rules.History(
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
    decision: rules.Decision
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
    for group in _in_turn(likely):
        past = offers.of(group[0][0])
        for happening, campaign in group:
            _restrain(happening, campaign, past, current, verdicts)
        yield verdicts


def _through_the_gates(happenings: Iterable[Happening], verdicts: Verdicts) -> list[Pair]:
    likely = []
    refusals, gate = verdicts.refusals, rules.gate
    for happening in happenings:
        moment = happening.moment
        plain = rules.is_plain(moment)
        for campaign in happening.candidates:
            try:
                refusal = gate(campaign, moment, plain=plain)
            # A campaign that breaks the rules' own code refuses by itself and stops no other.
            except Exception as error:
                logger.exception("campaign %s broke on %s", campaign.id, moment.id)
                refusal = rules.Refusal(rules.Reason.MALFORMED, {"problem": str(error)[:200]})
            if refusal is None:
                likely.append((happening, campaign))
            else:
                refusals.append((happening, campaign, rules.Decision(False, *refusal)))
    return likely


def _in_turn(
    likely: Iterable[Pair],
) -> list[list[Pair]]:
    """By moment, earliest first; within one, in the order in which campaigns may speak."""
    groups: dict[MomentKey, list[Pair]] = defaultdict(list)
    last, mine = None, list[Pair]()
    for pair in likely:
        if pair[0] is not last:
            last = pair[0]
            mine = groups[moment_key(last)]
        mine.append(pair)
    for group in groups.values():
        if len(group) > 1:
            group.sort(key=_turn)
    return sorted(
        groups.values(), key=lambda group: (group[0][0].moment.occurred_ms, group[0][0].moment.id)
    )


def _turn(pair: Pair) -> tuple[float, ...]:
    happening, campaign = pair
    moment = happening.moment
    if not campaign.score_by:
        return (*campaign.turn, moment.id)
    if "distance_m" in campaign.score_by and happening.place is not None:
        moment.distance_m = places.distance_m(happening.place, happening.fix)
    return (-campaign.priority, -rules.score_of(campaign, moment), campaign.id, moment.id)


def _restrain(
    happening: Happening,
    campaign: rules.Campaign,
    past: rules.History,
    current: Catalogue,
    verdicts: Verdicts,
) -> None:
    moment = happening.moment
    decision = rules.restrain(campaign, moment, past)
    if not decision.send:
        verdicts.refusals.append((happening, campaign, decision))
        return
    variant = rules.variant_of(campaign, moment)
    if variant:
        decision.trace["variant"] = variant
    try:
        content = _content(happening, campaign, variant, current, rules.coupon(campaign, past))
    except ContentError as error:
        trace = {"field": error.field, "problem": error.message}
        refused = rules.Decision(False, rules.Reason.CONTENT_ERROR, trace)
        verdicts.refusals.append((happening, campaign, refused))
        return
    rules.won(campaign, moment, past, decision.due_ms)
    group = rules.left_out(campaign, moment)
    if group:
        ghost = rules.Decision(False, rules.Reason.HELD_OUT, {"group": group, **decision.trace})
        verdicts.refusals.append((happening, campaign, ghost))
        return
    verdicts.sends.append(
        Send(
            happening=happening,
            campaign=campaign,
            decision=decision,
            content=content,
            variant=variant,
            charge=rules.charge(campaign, moment, past, decision.due_ms),
            coupon=rules.coupon(campaign, past, take=True),
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

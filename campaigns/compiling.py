"""A published definition made ready to be judged, with what its brand asks of all. Pure.

What is broken is not left out: it carries its problem, so that it refuses and says why.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import msgspec

from campaigns import caps as capping
from campaigns import experiments, hours, rules
from campaigns import guards as guarding
from campaigns.audience import Audience, compile_tree
from campaigns.conditions import Tree
from campaigns.definition import (
    ContentText,
    Definition,
    StepText,
    Trigger,
    TriggerOn,
    decode,
    selectors,
)
from campaigns.meaning import (
    brand_caps_of,
    budget_of,
    caps_of,
    contents_of,
    dayparts_of,
    ms_of,
    pattern_of,
    quiet_of,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrandRules:
    """What a brand asks of all its campaigns."""

    id: int
    name: str
    timezone: str = "UTC"
    quiet_text: Mapping[str, Any] = field(default_factory=dict)
    quiet: hours.Daypart | None = None
    caps: tuple[capping.Cap, ...] = ()
    segments: Mapping[str, Tree] = field(default_factory=dict)
    guards: tuple[guarding.GuardText, ...] = ()
    control: tuple[float, str] = (0.0, "")  # share and salt of the group that gets nothing
    problem: str = ""


def with_rules(plain: BrandRules, quiet: Any, caps: Any, guards: list[Any]) -> BrandRules:
    """The brand with its quiet hours, caps and rules, or with what is wrong with them."""
    try:
        return replace(
            plain,
            quiet_text=quiet or {},
            quiet=quiet_of(quiet),
            caps=brand_caps_of(caps or []),
            guards=msgspec.convert(guards, tuple[guarding.GuardText, ...]),
        )
    except (msgspec.ValidationError, ValueError) as error:
        # Without its quiet hours, caps and rules a brand would say too much: it says nothing.
        return replace(plain, problem=f"the brand's quiet hours, caps or rules: {error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One live campaign: what the rules judge and what it says."""

    campaign: rules.Campaign
    trigger: Trigger
    contents: Mapping[str, ContentText]  # by variant
    labels: tuple[str, ...] = ()

    def selectors(self) -> list[Trigger | StepText]:
        """What names places or events in it."""
        return [one for _, one in selectors(self.trigger)]


def compiled(
    definition: Definition, *, campaign_id: int, version: int, name: str, brand: BrandRules
) -> rules.Campaign:
    """What the rules run on. AudienceError where a segment is gone or goes in a circle."""
    trigger = definition.trigger or Trigger(on=TriggerOn.EVENT)
    return rules.Campaign(
        id=campaign_id,
        version=version,
        name=name,
        brand_id=brand.id,
        on=trigger.on,
        audience=_audience(msgspec.json.encode((definition.audience, brand.segments))),
        dwell_s=trigger.dwell_s,
        event=trigger.event or "",
        where=tuple(trigger.where.items()),
        pattern=pattern_of(trigger) if trigger.on is TriggerOn.SEQUENCE else None,
        starts_ms=ms_of(definition.starts_at),
        ends_ms=ms_of(definition.ends_at),
        dayparts=dayparts_of(definition.dayparts),
        outside_dayparts=definition.outside_dayparts,
        quiet=brand.quiet,
        quiet_policy=definition.quiet_hours,
        caps=(*caps_of(definition.caps), *brand.caps),
        guards=_guards(definition, brand),
        priority=definition.priority,
        score=definition.score,
        score_by=definition.score_by,
        group=definition.group,
        expires_after_ms=definition.expires_after_s * 1000,
        max_age_ms=definition.max_age_s * 1000,
        only_while_inside=definition.only_while_inside,
        initial_state=definition.initial_state,
        transactional=definition.transactional,
        weights=experiments.weights_of(
            [variant.name for variant in definition.variants],
            {variant.name: variant.weight for variant in definition.variants},
        ),
        budget=budget_of(definition, timezone=brand.timezone, quiet=brand.quiet),
        coupon_pool=definition.coupon_pool,
        holdout=definition.holdout,
        control=brand.control,
        problem=brand.problem,
    )


@lru_cache(maxsize=4_096)
def _audience(text: bytes) -> Audience:
    """Campaigns that ask for the same people share what asks, and so what it answered."""
    tree, segments = msgspec.json.decode(text)
    return compile_tree(tree, segments=segments)


def _guards(definition: Definition, brand: BrandRules) -> guarding.Guards | None:
    """The campaign's rules and, unless it is a service message, its brand's."""
    texts = (*definition.guards, *(() if definition.transactional else brand.guards))
    data = definition.content.data if definition.content else {}
    return guarding.compiled(texts, data) if texts else None


def entry_of(
    raw: Mapping[str, Any], *, campaign_id: int, version: int, name: str, brand: BrandRules
) -> Entry | None:
    """A live version as an entry; a broken one with its problem, so that it refuses and says why.

    None where not even the trigger can be read: nothing can ever set such a campaign off.
    """
    try:
        definition = decode(raw, segments=list(brand.segments))
        campaign = compiled(
            definition, campaign_id=campaign_id, version=version, name=name, brand=brand
        )
        return Entry(
            campaign=campaign,
            trigger=definition.trigger or Trigger(on=TriggerOn.EVENT),
            contents=contents_of(definition),
            labels=definition.labels,
        )
    # One broken campaign must not take the others with it, whatever is wrong with it (promise 9).
    except Exception as error:  # noqa: BLE001 - kept as the campaign's problem
        problem = " ".join(str(error).split())[:300] or type(error).__name__
        logger.warning("campaign %s version %s cannot be used: %s", campaign_id, version, problem)
    try:
        trigger = msgspec.convert(raw.get("trigger"), Trigger)
    except (msgspec.ValidationError, AttributeError):
        return None
    broken = compiled(
        Definition(trigger=trigger),
        campaign_id=campaign_id,
        version=version,
        name=name,
        brand=brand,
    )
    return Entry(campaign=replace(broken, problem=problem), trigger=trigger, contents={})

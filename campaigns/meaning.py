"""What a definition means: its parts as the values that the rules run on. Pure.

What nobody said has its meaning here too: no day is every day, a variant's silence the campaign's
words. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from brands import wallclock
from campaigns import budgets, hours, schedules, sequences
from campaigns import caps as capping
from campaigns.definition import (
    CapText,
    ContentText,
    DaypartText,
    Definition,
    LocalContent,
    StepText,
    Trigger,
    TriggerOn,
    language_tag,
    weekday,
)


def pattern_of(trigger: Trigger) -> sequences.Pattern:
    """The pattern a sequence waits for."""
    return sequences.Pattern(
        steps=tuple(_step(step) for step in trigger.steps for _ in range(step.times)),
        within_ms=None if trigger.within_s is None else trigger.within_s * 1000,
        unless=None if trigger.unless is None else _step(trigger.unless),
        for_ms=(trigger.for_s or 0) * 1000,
        key=trigger.key,
        nth=trigger.nth,
        every=trigger.every,
        absent_ms=None if trigger.absent_s is None else trigger.absent_s * 1000,
        once=trigger.once,
        again_after_ms=trigger.again_after_s * 1000,
    )


def schedule_of(trigger: Trigger) -> schedules.Schedule:
    """When a schedule comes round, and for whom."""
    days = frozenset(found for day in trigger.days if (found := weekday(day)) is not None)
    return schedules.Schedule(
        at_ms=ms_of(trigger.at),
        times_min=tuple(wallclock.minutes(time) % wallclock.DAY_MINUTES for time in trigger.times),
        days=days or hours.EVERY_DAY,
        clock=trigger.zone,
        within_ms=None if trigger.within_s is None else trigger.within_s * 1000,
        since_ms=ms_of(trigger.since),
    )


def _step(text: StepText) -> sequences.Step:
    is_event = text.on is TriggerOn.EVENT
    return sequences.Step(
        name=(text.event or "") if is_event else text.on.value,
        is_event=is_event,
        geofences=frozenset(text.geofences),
        tags=frozenset(text.tags),
        dwell_s=text.dwell_s,
        where=tuple(text.where.items()),
        days=frozenset(found for day in text.days if (found := weekday(day)) is not None),
    )


def contents_of(definition: Definition) -> dict[str, ContentText]:
    """What each variant says, by name; without variants the campaign's content, by nothing."""
    plain = definition.content
    if plain is None:
        return {}
    if not definition.variants:
        return {"": plain}
    return {
        variant.name: msgspec.structs.replace(
            plain,
            **_said(variant.content),
            locales=_by_language(plain.locales, variant.content.locales),
        )
        for variant in definition.variants
    }


def _said(content: LocalContent) -> dict[str, str]:
    return {
        field: text
        for field in ("title", "body", "deep_link", "image_url")
        if (text := getattr(content, field)) is not None
    }


def _by_language(
    plain: Mapping[str, LocalContent], own: Mapping[str, LocalContent]
) -> dict[str, LocalContent]:
    """Each language's texts, field by field the variant's own before the campaign's."""
    found, names = dict(plain), {language_tag(name): name for name in plain}
    for name, said in own.items():
        key = names.get(language_tag(name), name)
        found[key] = msgspec.structs.replace(found.get(key, LocalContent()), **_said(said))
    return found


def dayparts_of(texts: Sequence[DaypartText]) -> tuple[hours.Daypart, ...]:
    return tuple(
        hours.Daypart(
            frozenset(found for day in text.days if (found := weekday(day)) is not None)
            or hours.EVERY_DAY,
            wallclock.minutes(text.start),
            wallclock.minutes(text.end),
        )
        for text in texts
    )


def quiet_of(raw: Mapping[str, Any]) -> hours.Daypart | None:
    """A brand's quiet hours `{"from", "to"}`; None where there are none."""
    if not raw:
        return None
    text = msgspec.convert(raw, DaypartText)
    return None if text.start == text.end else dayparts_of((text,))[0]


def ms_of(at: datetime | None) -> int | None:
    """An instant as epoch milliseconds."""
    return None if at is None else round(at.timestamp() * 1000)


def budget_of(
    definition: Definition, *, timezone: str, quiet: hours.Daypart | None
) -> budgets.Budget | None:
    """A campaign's budget; it is spread over the hours in which the campaign may speak."""
    text = definition.budget
    if text is None:
        return None
    return budgets.Budget(
        limits=budgets.limits_of(text),
        cost=text.cost,
        currency=text.currency,
        tz=wallclock.zone(text.timezone, timezone),
        even=text.even,
        starts_ms=ms_of(definition.starts_at),
        ends_ms=ms_of(definition.ends_at),
        dayparts=dayparts_of(definition.dayparts),
        quiet=None if definition.transactional else quiet,
    )


def caps_of(texts: Sequence[CapText], *, of_brand: bool = False) -> tuple[capping.Cap, ...]:
    return tuple(
        capping.Cap(
            limit=text.limit,
            scope=text.scope,
            window_ms=None if text.window_s is None else text.window_s * 1000,
            period=text.per,
            tag=text.tag,
            channel=text.channel,
            of_brand=of_brand,
        )
        for text in texts
    )


def brand_caps_of(raw: Sequence[Mapping[str, Any]]) -> tuple[capping.Cap, ...]:
    """A brand's caps as stored in `Brand.caps`."""
    return caps_of(msgspec.convert(raw, tuple[CapText, ...]), of_brand=True)

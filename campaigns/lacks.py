"""What a campaign's draft lacks to be published, as far as it can be said without rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from campaigns import budgets
from campaigns import guards as guarding
from campaigns.definition import (
    PLACE_TRIGGERS,
    ContentText,
    Definition,
    StepText,
    Trigger,
    TriggerOn,
)
from campaigns.meaning import ms_of, schedule_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """One thing that stands between a draft and being live."""

    field: str
    code: str
    message: str


def missing(definition: Definition, *, now: datetime) -> list[Missing]:
    """What a draft lacks to be published, as far as it can be said without rows."""
    return [
        *_missing_trigger(definition.trigger, now),
        *_missing_content(definition.content),
        *_wrong_times(definition, now),
        *_missing_variants(definition),
        *_missing_guards(definition),
        *_missing_budget(definition),
        *_missing_inside(definition),
    ]


def _missing_trigger(trigger: Trigger | None, now: datetime) -> list[Missing]:
    if trigger is None:
        return [Missing(field="trigger", code="missing", message="Say what sets it off.")]
    if trigger.on is TriggerOn.SEQUENCE:
        return _missing_sequence(trigger)
    return _missing_selector(trigger, "trigger") + _missing_schedule(trigger, now)


def _missing_selector(one: Trigger | StepText, path: str) -> list[Missing]:
    """What a trigger or a step lacks to be recognised."""
    if one.on is TriggerOn.EVENT:
        if one.event:
            return []
        return [Missing(field=f"{path}.event", code="missing", message="Name the event.")]
    if isinstance(one, StepText) and one.on in {TriggerOn.SEQUENCE, TriggerOn.SCHEDULE}:
        return [Missing(field=f"{path}.on", code="invalid", message=f"A step is no {one.on}.")]
    if one.geofences or one.tags:
        return []
    return [
        Missing(
            field=f"{path}.geofences",
            code="missing",
            message="Choose geofences, or tags of geofences.",
        )
    ]


def _missing_schedule(trigger: Trigger, now: datetime) -> list[Missing]:
    if trigger.on is not TriggerOn.SCHEDULE:
        return []
    found = []
    if trigger.at is None and not trigger.times:
        found.append(
            Missing(
                field="trigger.times", code="missing", message="Say at what time, or what times."
            )
        )
    elif trigger.at is not None and trigger.times:
        found.append(
            Missing(
                field="trigger.at", code="contradiction", message="Either one instant, or times."
            )
        )
    elif trigger.at is not None and trigger.at <= now:
        found.append(
            Missing(field="trigger.at", code="in_the_past", message="The time has passed.")
        )
    if trigger.since is not None and trigger.within_s is not None:
        found.append(
            Missing(
                field="trigger.since",
                code="contradiction",
                message="Either since an instant, or within so long.",
            )
        )
    return found


def _missing_sequence(trigger: Trigger) -> list[Missing]:
    found = [
        lack
        for number, step in enumerate(trigger.steps)
        for lack in _missing_selector(step, f"trigger.steps[{number}]")
    ]
    if not trigger.steps:
        found.append(
            Missing(field="trigger.steps", code="missing", message="A sequence needs steps.")
        )
    if trigger.unless is not None:
        found += _missing_selector(trigger.unless, "trigger.unless")
    if (trigger.unless is None) is not (trigger.for_s is None):
        found.append(
            Missing(
                field="trigger.for_s" if trigger.for_s is None else "trigger.unless",
                code="missing",
                message="Say both what calls it off and for how long (`unless`, `for_s`).",
            )
        )
    return found


def _missing_content(content: ContentText | None) -> list[Missing]:
    if content is None:
        return [Missing(field="content", code="missing", message="Say what the offer is.")]
    return [
        Missing(field=f"content.{name}", code="missing", message=f"The offer needs a {name}.")
        for name in ("title", "body")
        if not getattr(content, name).strip()
    ]


def _wrong_times(definition: Definition, now: datetime) -> Iterator[Missing]:
    starts, ends = definition.starts_at, definition.ends_at
    if ends is not None and ends <= now:
        yield Missing(field="ends_at", code="in_the_past", message="The end has passed.")
    if starts is not None and ends is not None and ends <= starts:
        yield Missing(field="ends_at", code="before_start", message="It ends before it starts.")


def _missing_variants(definition: Definition) -> Iterator[Missing]:
    if definition.optimise is not None and (len(definition.variants) < 2 or not definition.goal):
        yield Missing(
            field="optimise",
            code="missing",
            message="Optimising needs at least two variants and a goal.",
        )
    if definition.variants and not any(variant.weight for variant in definition.variants):
        yield Missing(field="variants", code="missing", message="No variant has any weight.")


def _missing_guards(definition: Definition) -> Iterator[Missing]:
    data = definition.content.data if definition.content else {}
    for path, message in guarding.lacking(definition.guards, data):
        yield Missing(field=path, code="missing", message=message)


def _missing_budget(definition: Definition) -> Iterator[Missing]:
    if definition.budget is None:
        return
    starts_ms, ends_ms = ms_of(definition.starts_at), ms_of(definition.ends_at)
    for field, code, message in budgets.lacks(
        definition.budget, starts_ms=starts_ms, ends_ms=ends_ms
    ):
        yield Missing(field=field, code=code, message=message)


def _missing_inside(definition: Definition) -> Iterator[Missing]:
    if not definition.only_while_inside:
        return
    if not _ends_at_a_place(definition.trigger):
        yield Missing(
            field="only_while_inside",
            code="needs_a_place",
            message="Only a trigger at a geofence has an inside.",
        )
    elif _last(definition.trigger) is TriggerOn.EXITED:
        yield Missing(
            field="only_while_inside",
            code="contradiction",
            message="A campaign about leaving cannot ask that the device is still inside.",
        )


def _last(trigger: Trigger | None) -> TriggerOn | None:
    """What sets it off in the end: of a sequence, its last step."""
    if trigger is None or trigger.on is not TriggerOn.SEQUENCE:
        return None if trigger is None else trigger.on
    return trigger.steps[-1].on if trigger.steps else None


def _ends_at_a_place(trigger: Trigger | None) -> bool:
    if trigger is not None and trigger.on is TriggerOn.SCHEDULE:
        return schedule_of(trigger).is_now
    return _last(trigger) in PLACE_TRIGGERS

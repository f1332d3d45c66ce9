"""A whole campaign as one English sentence, so that nobody has to read its fields. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from campaigns import scores
from campaigns.budgets import in_words
from campaigns.caps import CapScope
from campaigns.definition import (
    DAY_NAMES,
    PLACE_TRIGGERS,
    CapText,
    DaypartText,
    Definition,
    Goal,
    HoursPolicy,
    InitialState,
    StepText,
    Trigger,
    TriggerOn,
    weekday,
)
from campaigns.guards import GuardText

_SPANS = ((604_800, "week"), (86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_OPS = {
    "eq": "is",
    "ne": "is not",
    "in": "is one of",
    "not_in": "is none of",
    "gt": "is over",
    "gte": "is at least",
    "lt": "is under",
    "lte": "is at most",
    "contains": "contains",
    "starts_with": "starts with",
    "exists": "is known",
    "missing": "is unknown",
}
_WHOM = {
    CapScope.DEVICE: "per device",
    CapScope.PERSON: "per person",
    CapScope.PLACE: "per person and place",
    CapScope.TAG: "per person at places tagged",
    CapScope.CHANNEL: "per person by",
    CapScope.CAMPAIGN: "to everybody together",
    CapScope.BRAND: "per person over all campaigns",
}


def sentence(definition: Definition, names: Mapping[int | str, str] | None = None) -> str:
    """The campaign in words; `names` of geofences by what the trigger calls them."""
    parts = [
        when(definition.trigger, names or {}),
        _window(definition.starts_at, definition.ends_at),
        _hours(definition.dayparts),
        _who(definition.audience),
        _what(definition),
        _caps(definition.caps),
        _never(definition.guards),
        _budget(definition),
        *_asides(definition),
    ]
    said = ", ".join(part for part in parts if part)
    return said[:1].upper() + said[1:] + "."


def span(seconds: int) -> str:
    """90 → `90 seconds`, 3600 → `1 hour`: the largest unit that fits evenly."""
    for length, unit in _SPANS:
        if seconds % length == 0:
            count = seconds // length
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return f"{seconds} seconds"


def when(trigger: Trigger | None, names: Mapping[int | str, str]) -> str:
    """What sets a campaign off, in words."""
    if trigger is None:
        return "when something happens that is still to be chosen"
    if trigger.on is TriggerOn.SCHEDULE:
        return f"when {_schedule(trigger, names)}"
    if trigger.on is not TriggerOn.SEQUENCE:
        return f"when {_thing(trigger, names)}"
    steps = [_thing(step, names) + _times(step) for step in trigger.steps]
    said = "when " + (" and then ".join(steps) or "a sequence still to be chosen")
    if trigger.within_s is not None:
        said += f", all within {span(trigger.within_s)}"
    if trigger.nth > 1:
        said += f", every {trigger.nth} times" if trigger.every else f", for time {trigger.nth}"
    if trigger.absent_s is not None:
        said += f", for the first time in {span(trigger.absent_s)}"
    if trigger.key:
        said += f", all with one {trigger.key}"
    if trigger.unless is not None and trigger.for_s is not None:
        said += f", unless {_thing(trigger.unless, names)} in the next {span(trigger.for_s)}"
    if trigger.once:
        return said + ", once ever"
    if trigger.again_after_s:
        return said + f", and again after {span(trigger.again_after_s)} at the earliest"
    return said


def _thing(one: Trigger | StepText, names: Mapping[int | str, str]) -> str:
    if one.on is TriggerOn.EVENT:
        if not one.event:
            return "something is reported"
        where = " and ".join(f"{key} {value}" for key, value in one.where.items())
        return f"“{one.event}” is reported" + (f" with {where}" if where else "")
    where = _where(one, names)
    if one.on is TriggerOn.DWELLED:
        length = "its dwell time" if one.dwell_s is None else span(one.dwell_s)
        return f"a device has stayed in {where} for {length}"
    return f"a device {'enters' if one.on is TriggerOn.ENTERED else 'leaves'} {where}"


def _where(one: Trigger | StepText, names: Mapping[int | str, str]) -> str:
    places = [f"“{names.get(place, place)}”" for place in one.geofences[:5]]
    if len(one.geofences) > 5:
        places.append(f"{len(one.geofences) - 5} more places")
    if one.tags:
        places.append("any place tagged " + _either([f"“{tag}”" for tag in one.tags]))
    return _either(places) or "places still to be chosen"


def _schedule(trigger: Trigger, names: Mapping[int | str, str]) -> str:
    if trigger.at is not None:
        time = f"{trigger.at:%d %B %Y %H:%M %Z}"
    else:
        days = sorted(found for day in trigger.days if (found := weekday(day)) is not None)
        clock = f"on the {trigger.zone}’s clock"
        time = f"{_either(trigger.times) or 'a time still to be chosen'} {_days(days)} {clock}"
    where = _where(trigger, names)
    if trigger.since is not None:
        return f"it is {time} and a device has been in {where} since {trigger.since:{_INSTANT}}"
    if trigger.within_s is not None:
        return f"it is {time} and a device has been in {where} in the last {span(trigger.within_s)}"
    return f"it is {time} and a device is in {where}"


_INSTANT = "%d %B %Y %H:%M %Z"


def _times(step: StepText) -> str:
    days = sorted(found for day in step.days if (found := weekday(day)) is not None)
    said = f" {_days(days)}" if days else ""
    return said + (f" {step.times} times" if step.times > 1 else "")


def _window(starts: datetime | None, ends: datetime | None) -> str:
    said = []
    if starts is not None:
        said.append(f"from {starts:%d %B %Y %H:%M %Z}")
    if ends is not None:
        said.append(f"until {ends:%d %B %Y %H:%M %Z}")
    return " ".join(said)


def _hours(dayparts: Sequence[DaypartText]) -> str:
    said = []
    for part in dayparts:
        days = sorted(found for day in part.days if (found := weekday(day)) is not None)
        said.append(f"{_days(days)} {part.start}–{part.end}")
    return f"{' and '.join(said)} on the device’s clock" if said else ""


def _days(days: Sequence[int]) -> str:
    if not days or len(days) == 7:
        return "daily"
    if days == [0, 1, 2, 3, 4]:
        return "on weekdays"
    if days == [5, 6]:
        return "at weekends"
    return "on " + _both([DAY_NAMES[day].title() for day in days])


def _who(tree: Mapping[str, Any]) -> str:
    return f"if {condition(tree)}" if tree else ""


def condition(tree: Mapping[str, Any]) -> str:
    """A condition tree in words."""
    if not tree:
        return "anybody"
    if "all" in tree:
        return _both([_inner(part) for part in tree["all"]]) or "anybody"
    if "any" in tree:
        return _either([_inner(part) for part in tree["any"]])
    if "not" in tree:
        return f"not ({condition(tree['not'])})"
    return _leaf(tree)


def _inner(tree: Mapping[str, Any]) -> str:
    said = condition(tree)
    return f"({said})" if len(tree.get("all", tree.get("any", ()))) > 1 else said


def _leaf(leaf: Mapping[str, Any]) -> str:
    if "segment" in leaf:
        return f"in the segment “{leaf['segment']}”"
    if "consent" in leaf:
        return f"has agreed to {leaf['consent']}"
    if "bucket" in leaf:
        low, high = leaf["bucket"]
        return f"in test group {low}–{high} of {leaf.get('of', 100)}"
    if "event" in leaf or "visits" in leaf:
        return _behaviour(leaf)
    if "area" in leaf:
        verb = "lives" if leaf["area"] == "home" else "usually is"
        age = f" (seen in the last {span(leaf['max_age_s'])})" if "max_age_s" in leaf else ""
        return f"{verb} near {_places(leaf['places'])}{age}"
    if "attribute" in leaf:
        said = f"{leaf['attribute']} {_OPS[leaf.get('op', 'eq')]} {_value(leaf)}".strip()
        if "source" in leaf:
            said += f" says {leaf['source']}"
        return said + (f" (at most {span(leaf['max_age_s'])} old)" if "max_age_s" in leaf else "")
    kind = next(iter(set(leaf) - {"op"}))
    wanted = leaf[kind]
    values = wanted if isinstance(wanted, list) else [wanted]
    verb = "is" if leaf.get("op", "in") in {"eq", "in"} else _OPS[leaf["op"]]
    return f"{kind.replace('_', ' ')} {verb} {_either([str(one) for one in values])}"


def _behaviour(leaf: Mapping[str, Any]) -> str:
    named = _places(leaf.get("visits") or {})
    where = named if leaf.get("measure") == "dwell_s" else f"visits to {named}"
    what = f"“{leaf['event']}”" if "event" in leaf else where
    figure = {
        "count": f"the number of {what}",
        "sum": f"the sum of {leaf.get('property')} over {what}",
        "recency_s": f"the time in seconds since the last of {what}",
        "dwell_s": f"the time in seconds spent in {what}",
    }[leaf.get("measure", "count")]
    within = f" within {span(leaf['within_s'])}" if "within_s" in leaf else ""
    return f"{figure}{within} {_OPS[leaf.get('op', 'gte')]} {_value(leaf)}".strip()


def _places(places: Any) -> str:
    if places == "here":
        return "this very place"
    named = (*places.get("tags", ()), *places.get("geofences", ()))
    return _either([f"“{one}”" for one in named])


def _value(leaf: Mapping[str, Any]) -> str:
    value = leaf.get("value", "")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _what(definition: Definition) -> str:
    if definition.content is None or not definition.content.title:
        return "make an offer still to be written"
    said = f"offer “{definition.content.title}”"
    if definition.coupon_pool:
        said += f" with a coupon of “{definition.coupon_pool}”"
    locales = sorted(definition.content.locales)
    return said + (f" (also in {_both(locales)})" if locales else "")


def _caps(caps: Sequence[CapText]) -> str:
    said = []
    for cap in caps:
        whom = _WHOM[cap.scope] + (f" “{cap.tag}”" if cap.tag else "")
        whom += f" {cap.channel}" if cap.channel else ""
        if cap.per is not None:
            often = f"per calendar {cap.per.value}"
        else:
            often = "ever" if cap.window_s is None else f"in any {span(cap.window_s)}"
        said.append(f"{cap.limit} {whom} {often}")
    return f"at most {_both(said)}" if said else ""


def _never(guards: Sequence[GuardText]) -> str:
    return f"never where {_either([guard(one) for one in guards])}" if guards else ""


def guard(rule: GuardText) -> str:
    """What a rule of relevance refuses, in words that follow “never where”."""
    within = f" in the last {span(rule.within_s)}" if rule.within_s else ""
    if rule.event is not None:
        where = [f"{key} {value}" for key, value in rule.where.items()]
        where += [f"the same {key} as {_referred(path)}" for key, path in rule.same.items()]
        times = f" {rule.times} times" if rule.times > 1 else ""
        with_ = f" with {_both(where)}" if where else ""
        return f"“{rule.event}” was reported{with_}{times}{within}"
    if rule.offer is not None:
        kind, _, what = rule.offer.mark.partition(":")
        return f"an offer of {_OFFERS[kind]} “{what}” was made{within}"
    wanted = _referred(rule.against) if rule.against else _value({"value": rule.value})
    said = f"it is known otherwise than that {rule.attribute} {_OPS[rule.op.value]} {wanted}"
    said = said.rstrip()
    if rule.source is not None:
        said += f" (from {rule.source})"
    return said + (f" (at most {span(rule.max_age_s)} old)" if rule.max_age_s else "")


_OFFERS = {"campaign": "campaign", "group": "the group", "label": "the kind"}


def _referred(path: str) -> str:
    """What a reference stands for: `place.metadata.city` → the place’s city."""
    of, _, rest = path.partition(".")
    name = rest.removeprefix("metadata.").replace("_", " ")
    if rest.startswith("tags."):
        name = f"tags in “{rest.removeprefix('tags.')}”"
    return f"the {of}’s {name}"


def _budget(definition: Definition) -> str:
    said = in_words(definition.budget) if definition.budget is not None else ""
    return f"spending at most {said}" if said else ""


def goal(one: Goal) -> str:
    """What an offer is for, in words that follow “so that they”."""
    within = f"within {span(one.within_s)}"
    if one.feedback:
        return f"have {one.feedback} it {within}"
    if one.event:
        where = _both([f"{key} {value}" for key, value in one.where.items()])
        return f"report “{one.event}”" + (f" with {where}" if where else "") + f" {within}"
    count = len(one.geofences)
    places = [f"{count} place{'' if count == 1 else 's'}"] if count else []
    if one.tags:
        places.append("any place tagged " + _either([f"“{tag}”" for tag in one.tags]))
    return f"come to {_either(places)} {within}"


def _asides(definition: Definition) -> list[str]:
    said = [f"good for {span(definition.expires_after_s)}"]
    if definition.only_while_inside:
        said.append("only while the device is still inside")
    trigger = definition.trigger
    if trigger is not None and trigger.on in PLACE_TRIGGERS:
        said.append(
            {
                InitialState.FIRE: "devices already there count as arriving",
                InitialState.SUPPRESS: "devices already there are not greeted",
                InitialState.REQUIRE_EXIT: "devices already there must leave first",
            }[definition.initial_state]
        )
    if definition.transactional:
        said.append("as a service message that no cap or quiet hour stops")
    elif definition.quiet_hours is HoursPolicy.HOLD:
        said.append("kept back through quiet hours")
    elif definition.quiet_hours is HoursPolicy.WHILE_GOOD:
        said.append("kept back through quiet hours as long as it is good")
    if definition.variants:
        said.append(f"in {len(definition.variants)} variants")
    if definition.holdout:
        said.append(f"with {definition.holdout * 100:g} % of people left out to compare")
    if definition.goal:
        said.append(f"so that they {goal(definition.goal)}")
    if definition.priority:
        said.append(f"with priority {definition.priority}")
    if definition.score or definition.score_by:
        parts = [f"{definition.score:g}"] if definition.score else []
        parts += [scores.said(definition.score_by)] if definition.score_by else []
        said.append(f"with the score {' + '.join(parts)}")
    return said


def _both(parts: Sequence[str]) -> str:
    return _joined(parts, "and")


def _either(parts: Sequence[str]) -> str:
    return _joined(parts, "or")


def _joined(parts: Sequence[str], word: str) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {word} {parts[-1]}"

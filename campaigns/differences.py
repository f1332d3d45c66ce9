"""What changed between two versions of a campaign, part by part and in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from campaigns import scores
from campaigns.budgets import in_words
from campaigns.definition import ContentText, Definition, HoursPolicy, InitialState, TriggerOn
from campaigns.sentences import condition, goal, guard, span, when

Names = Mapping[int | str, str]
"""Names of geofences by what a trigger calls them: id or external id."""

MOST_NAMED = 20

_TRIGGERS = {
    TriggerOn.ENTERED: "enters",
    TriggerOn.DWELLED: "stays in",
    TriggerOn.EXITED: "leaves",
    TriggerOn.EVENT: "reports",
}
_ALREADY_THERE = {
    InitialState.FIRE: "count as having just come",
    InitialState.SUPPRESS: "get no welcome",
    InitialState.REQUIRE_EXIT: "must leave and come back first",
}
_POLICIES = {
    HoursPolicy.HOLD: "waits for the right hour",
    HoursPolicy.WHILE_GOOD: "waits for the right hour as long as it is good",
    HoursPolicy.DROP: "stays silent",
}


class Change(NamedTuple):
    title: str
    before: str
    after: str


def differences(before: Definition, after: Definition, names: Names) -> list[Change]:
    """Return the parts in which two definitions differ, in the order of the builder."""
    old, new = parts(before, names), parts(after, names)
    titles = dict.fromkeys([*new, *old])  # a language may be gone
    return [
        Change(title, old.get(title, ""), new.get(title, ""))
        for title in titles
        if old.get(title, "") != new.get(title, "")
    ]


def parts(definition: Definition, names: Names) -> dict[str, str]:
    """Return every part of a campaign in words, by its title; nothing where it says nothing."""
    content = definition.content or ContentText()
    starts, ends = definition.starts_at, definition.ends_at
    return {
        **_trigger(definition, names),
        "Starts": f"{starts:%d %b %Y %H:%M} UTC" if starts else "",
        "Ends": f"{ends:%d %b %Y %H:%M} UTC" if ends else "",
        "Hours": "; ".join(
            f"{', '.join(map(str, part.days)) or 'every day'} {part.start}–{part.end}"
            for part in definition.dayparts
        ),
        "Outside its hours": _POLICIES[definition.outside_dayparts],
        "In quiet hours": _POLICIES[definition.quiet_hours],
        "Who": condition(definition.audience) if definition.audience else "everybody",
        "How often": "; ".join(
            f"{cap.limit} per {cap.scope.value}{f' “{cap.tag}”' if cap.tag else ''}"
            f"{f' {cap.channel}' if cap.channel else ''} in "
            + (f"a calendar {cap.per.value}" if cap.per else span(cap.window_s or 0))
            for cap in definition.caps
        ),
        "Never where": "; ".join(guard(one) for one in definition.guards),
        "Kinds of offer": ", ".join(definition.labels),
        "Budget": in_words(definition.budget) if definition.budget else "",
        "Coupons": definition.coupon_pool,
        **{
            f"Variant {one.name}": f"{one.weight:g} parts: {one.content.title or 'same title'} / "
            f"{one.content.body or 'same text'}"
            for one in definition.variants
        },
        **{
            f"Variant {one.name}, {tag}": f"{said.title or 'same title'} / "
            f"{said.body or 'same text'}"
            for one in definition.variants
            for tag, said in sorted(one.content.locales.items())
        },
        "Left out, to compare": f"{definition.holdout * 100:g} %" if definition.holdout else "",
        "Goal": goal(definition.goal) if definition.goal else "",
        "Best variant gets more": "yes" if definition.optimise else "",
        "Title": content.title,
        "Text": content.body,
        "Opens": content.deep_link or "",
        "Image": content.image_url or "",
        "Data": _pairs(content.data),
        **{
            f"Language {tag}": f"{local.title or '–'} / {local.body or '–'}"
            for tag, local in content.locales.items()
        },
        "Expires after": span(definition.expires_after_s),
        "Not for moments older than": span(definition.max_age_s),
        "Only while inside": "yes" if definition.only_while_inside else "no",
        "Those already there": _ALREADY_THERE[definition.initial_state],
        "Priority": str(definition.priority),
        "Score": f"{definition.score:g} {scores.said(definition.score_by)}".strip(),
        "Competes in": definition.group,
        "Kind": "service message" if definition.transactional else "marketing",
    }


def _trigger(definition: Definition, names: Names) -> dict[str, str]:
    trigger = definition.trigger
    if trigger is None:
        return {"When somebody": "", "Where": "", "Tags": ""}
    if trigger.on in {TriggerOn.SEQUENCE, TriggerOn.SCHEDULE}:
        return {"When somebody": when(trigger, names), "Where": "", "Tags": ""}
    said = _TRIGGERS[trigger.on]
    if trigger.on is TriggerOn.EVENT:
        said += f" “{trigger.event or ''}” {_pairs(trigger.where)}".rstrip()
    elif trigger.dwell_s:
        said += f" for {span(trigger.dwell_s)}"
    named = [names.get(place, str(place)) for place in trigger.geofences]
    more = len(named) - MOST_NAMED
    return {
        "When somebody": said,
        "Where": ", ".join(named[:MOST_NAMED]) + (f" and {more} more" if more > 0 else ""),
        "Tags": ", ".join(trigger.tags),
    }


def _pairs(pairs: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in pairs.items())

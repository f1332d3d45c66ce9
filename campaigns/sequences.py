"""Patterns over what a person did and where: A then B, k times, the n-th, none since. Pure.

Event time decides, not the order of arrival: the same things make the same completions however
late or often they are told. A completion ends at a thing that matches the last step and takes, for
each step before, the latest match; nothing is used twice, so what was used by one completion lies
behind the next. Times are epoch milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from campaigns import hours
from campaigns.behaviour import typed


class Item(NamedTuple):
    """One thing that happened: a transition at a place, or an event."""

    at_ms: int
    kind: str  # transition, event
    id: int
    device_id: int | None
    name: str  # entered, dwelled, exited; or the event's name
    geofence_id: int | None = None
    external_id: str | None = None  # of the geofence
    tags: Sequence[str] = ()
    dwell_s: int = 0
    properties: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one thing must be like. A place step names a kind and places, an event step a name."""

    name: str
    is_event: bool = False
    geofences: frozenset[int | str] = frozenset()
    tags: frozenset[str] = frozenset()
    dwell_s: int | None = None
    where: tuple[tuple[str, Any], ...] = ()
    days: frozenset[int] = frozenset()  # on the person's clock; empty: every day

    def matches(self, item: Item, tz: ZoneInfo) -> bool:
        if item.name != self.name or self.is_event is not (item.kind == "event"):
            return False
        if self.days and hours.local_date(item.at_ms, tz).weekday() not in self.days:
            return False
        if self.is_event:
            return all(typed(item.properties.get(key)) == typed(value) for key, value in self.where)
        if self.dwell_s is not None and item.dwell_s != self.dwell_s:
            return False
        return (
            item.geofence_id in self.geofences
            or (item.external_id is not None and item.external_id in self.geofences)
            or not self.tags.isdisjoint(item.tags)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What a sequence waits for. `unless` within `for_ms` after the last step calls it off."""

    steps: tuple[Step, ...]
    within_ms: int | None = None  # from the first to the last step
    unless: Step | None = None
    for_ms: int = 0
    key: str = ""  # a property that all events of one completion share
    nth: int = 1
    every: bool = False  # every n-th, not only the n-th
    absent_ms: int | None = None  # the last step came before, but not in so long
    once: bool = False
    again_after_ms: int = 0

    @property
    def has_places(self) -> bool:
        """Whether somebody's whereabouts are part of it, whatever it ends with."""
        return not all(step.is_event for step in self.steps)


class Completion(NamedTuple):
    """A pattern that came to its end with `last`."""

    last: Item
    first_ms: int
    key: str = ""


class Fired(NamedTuple):
    """A completion that was already settled."""

    kind: str
    id: int
    key: str
    at_ms: int
    called_off: bool = False


class Nearest(NamedTuple):
    """How far a person came: the steps that were there, of how many, and what is wrong."""

    matched: int
    of: int
    lacks: str  # the name of the step that is missing; empty where only time was wrong
    late_by_s: int | None = None


def ordered(items: Iterable[Item]) -> list[Item]:
    """By event time; at one instant leaving comes before coming, then by id. Repeats fall away."""
    unique = {(item.kind, item.id): item for item in items}
    return sorted(
        unique.values(), key=lambda item: (item.at_ms, item.name != "exited", item.kind, item.id)
    )


def completions(pattern: Pattern, items: Iterable[Item], tz: ZoneInfo) -> list[Completion]:
    """Every completion in event time, before anything is known of what fired."""
    line = ordered(items)
    found: list[Completion] = []
    for key, mine in _by_key(pattern, line):
        found += _numbered(pattern, list(_completions(pattern, mine, tz, key)))
    return sorted(found, key=lambda one: (one.last.at_ms, one.last.kind, one.last.id, one.key))


def fresh(
    pattern: Pattern, items: Iterable[Item], fired: Sequence[Fired], tz: ZoneInfo
) -> tuple[list[Completion], list[Completion]]:
    """The completions that are new, and those that the re-entry policy keeps back."""
    settled = {(one.kind, one.id, one.key) for one in fired}
    times = sorted(one.at_ms for one in fired if not one.called_off)
    new: list[Completion] = []
    kept_back: list[Completion] = []
    for one in completions(pattern, items, tz):
        if (one.last.kind, one.last.id, one.key) in settled:
            continue
        if _rests(pattern, one.last.at_ms, times):
            kept_back.append(one)
            continue
        new.append(one)
        times.insert(bisect_left(times, one.last.at_ms), one.last.at_ms)
    return new, kept_back


def called_off(
    pattern: Pattern, completion: Completion, items: Iterable[Item], tz: ZoneInfo
) -> Item | None:
    """What happened after all in the time that nothing should have, or None."""
    if pattern.unless is None:
        return None
    after, until = completion.last.at_ms, completion.last.at_ms + pattern.for_ms
    for item in ordered(items):
        if (
            (after < item.at_ms <= until)
            and pattern.unless.matches(item, tz)
            and _has_key(pattern, item, completion.key)
        ):
            return item
    return None


def nearest(pattern: Pattern, items: Iterable[Item], last: Item, tz: ZoneInfo) -> Nearest:
    """How far the person was when `last`, a match of the last step, completed nothing."""
    line = ordered(items)
    place = next((i for i, item in enumerate(line) if _same(item, last)), len(line))
    wanted, matched = list(pattern.steps[:-1]), 1
    at = place
    while wanted:
        step = wanted[-1]
        at = _latest(step, line, 0, at, tz)
        if at < 0:
            return Nearest(matched, len(pattern.steps), step.name)
        wanted.pop()
        matched += 1
    late = None
    if pattern.within_ms is not None and pattern.steps[:-1]:
        over_ms = last.at_ms - line[at].at_ms - pattern.within_ms
        late = over_ms // 1000 if over_ms > 0 else None
    return Nearest(matched, len(pattern.steps), "", late)


def lookback_ms(pattern: Pattern) -> int | None:
    """How far back things matter for something that ends now; None: as far as is kept."""
    if pattern.nth > 1 or pattern.once or pattern.absent_ms is not None:
        return None
    if len(pattern.steps) > 1 and pattern.within_ms is None:
        return None
    return (pattern.within_ms or 0) + pattern.for_ms


def _by_key(pattern: Pattern, line: Sequence[Item]) -> list[tuple[str, list[Item]]]:
    """The things of each value of the key; what happens at a place belongs to all of them."""
    if not pattern.key:
        return [("", list(line))]
    values = {
        str(item.properties[pattern.key])
        for item in line
        if item.kind == "event" and item.properties.get(pattern.key) is not None
    }
    return [
        (value, [item for item in line if _has_key(pattern, item, value)])
        for value in sorted(values)
    ]


def _has_key(pattern: Pattern, item: Item, value: str) -> bool:
    return not pattern.key or item.kind != "event" or str(item.properties.get(pattern.key)) == value


def _completions(
    pattern: Pattern, line: Sequence[Item], tz: ZoneInfo, key: str
) -> Iterable[Completion]:
    last_step, used = pattern.steps[-1], 0
    before_ms: int | None = None
    for place, item in enumerate(line):
        if not last_step.matches(item, tz):
            continue
        away_ms = None if before_ms is None else item.at_ms - before_ms
        before_ms = item.at_ms
        if pattern.absent_ms is not None and (away_ms is None or away_ms < pattern.absent_ms):
            continue
        first = _first_of_chain(pattern, line, used, place, tz)
        if first is None:
            continue
        if pattern.within_ms is not None and item.at_ms - line[first].at_ms > pattern.within_ms:
            continue
        used = place + 1
        yield Completion(item, line[first].at_ms, key)


def _first_of_chain(
    pattern: Pattern, line: Sequence[Item], start: int, place: int, tz: ZoneInfo
) -> int | None:
    """Where the chain that ends at `place` begins, each step at its latest; None: no chain.

    The latest match of each step, from the end on, gives the chain that begins latest of all.
    """
    at = place
    for step in reversed(pattern.steps[:-1]):
        at = _latest(step, line, start, at, tz)
        if at < 0:
            return None
    return at


def _latest(step: Step, line: Sequence[Item], start: int, end: int, tz: ZoneInfo) -> int:
    for place in range(end - 1, start - 1, -1):
        if step.matches(line[place], tz):
            return place
    return -1


def _numbered(pattern: Pattern, found: list[Completion]) -> list[Completion]:
    if pattern.every:
        return found[pattern.nth - 1 :: pattern.nth]
    if pattern.nth > 1:
        return found[pattern.nth - 1 : pattern.nth]
    return found


def _rests(pattern: Pattern, at_ms: int, times: Sequence[int]) -> bool:
    if not times:
        return False
    if pattern.once or (pattern.nth > 1 and not pattern.every):
        return True
    return any(abs(at_ms - one) < pattern.again_after_ms for one in times)


def _same(one: Item, other: Item) -> bool:
    return (one.kind, one.id) == (other.kind, other.id)

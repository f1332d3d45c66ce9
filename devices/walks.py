"""One device's fixes in event time against every geofence it may be in: pure, no rows, no clock.

Order on one fix, always: what time did since the last fix, then exits, then entries, each by
geofence id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from devices.presence import (
    Belief,
    Change,
    PresenceState,
    Rules,
    Sighting,
    TransitionKind,
    TransitionReason,
    elapse,
    ended,
    step,
)

Seen = tuple[Sighting, Sighting]
"""A fix against a geofence: the sighting if the device is believed outside, and if inside."""


class Stop(msgspec.Struct, frozen=True, gc=False):
    """One fix of the walk: when, and what it shows of each geofence that may matter."""

    at_ms: int
    seen: Mapping[int, Seen]  # by geofence id; those not named stay as they are believed


class Footprint(msgspec.Struct, frozen=True, gc=False):
    """A change, of which geofence, and which fix told it (-1: time alone)."""

    geofence_id: int
    change: Change
    stop: int


_BELIEVED = frozenset({PresenceState.INSIDE, PresenceState.LEAVING})


def walk(
    device_id: int,
    stops: Sequence[Stop],
    beliefs: Mapping[int, Belief],
    *,
    rules_of: Callable[[int], Rules],
    seen_ms: int,
    initial: frozenset[int] = frozenset(),
) -> tuple[dict[int, Belief], list[Footprint]]:
    """The beliefs after all stops, and the changes on the way in the order they happened.

    `beliefs` are the stored ones by geofence id, of armed geofences only; `seen_ms` is the last
    fix before this walk (for a first walk, anything); `initial` are the geofences that were armed
    around the device's last known place.
    """
    now = dict(beliefs)
    prints: list[Footprint] = []
    for number, stop in enumerate(stops):
        if now:
            _pass_time(now, prints, until_ms=stop.at_ms, seen_ms=seen_ms, rules_of=rules_of)
        seen_ms = stop.at_ms
        arrivals: list[int] = []
        for geofence_id in sorted(stop.seen):
            belief = now.get(geofence_id)
            if belief is not None and belief.state in _BELIEVED:
                _move(now, prints, geofence_id, stop, number, device_id, rules_of, initial)
            else:
                arrivals.append(geofence_id)
        for geofence_id in arrivals:
            _move(now, prints, geofence_id, stop, number, device_id, rules_of, initial)
    return now, prints


def _pass_time(
    now: dict[int, Belief],
    prints: list[Footprint],
    *,
    until_ms: int,
    seen_ms: int,
    rules_of: Callable[[int], Rules],
) -> None:
    """Dwells, silences and moved geofences up to the next fix, in the order they fell due."""
    found: list[Footprint] = []
    for geofence_id in sorted(now):
        belief, rules = now[geofence_id], rules_of(geofence_id)
        if belief.shape_version != rules.shape_version:
            del now[geofence_id]
            if belief.state in _BELIEVED:
                moved = ended(belief, at_ms=until_ms, reason=TransitionReason.GEOFENCE_MOVED)
                found.append(Footprint(geofence_id, moved, -1))
        # Where neither can be, elapse changes nothing, and a crowd has many beliefs to call it for.
        elif rules.dwell_thresholds or until_ms - seen_ms > rules.silence_ms:
            after, changes = elapse(belief, until_ms=until_ms, seen_ms=seen_ms, rules=rules)
            found += [Footprint(geofence_id, change, -1) for change in changes]
            if after is None:
                del now[geofence_id]
            else:
                now[geofence_id] = after
    found.sort(key=lambda each: each.change.occurred_ms)
    prints += found


def _move(
    now: dict[int, Belief],
    prints: list[Footprint],
    geofence_id: int,
    stop: Stop,
    number: int,
    device_id: int,
    rules_of: Callable[[int], Rules],
    initial: frozenset[int],
) -> None:
    belief = now.get(geofence_id)
    if_outside, if_inside = stop.seen[geofence_id]
    believed = belief is not None and belief.state in _BELIEVED
    sighting = if_inside if believed else if_outside
    if believed and belief.state is PresenceState.INSIDE and sighting is not Sighting.OUTSIDE:  # type: ignore[union-attr]
        return  # the common case: still there
    after, change = step(
        belief,
        sighting,
        at_ms=stop.at_ms,
        rules=rules_of(geofence_id),
        device_id=device_id,
        geofence_id=geofence_id,
        initial=geofence_id in initial,
    )
    if after is None:
        now.pop(geofence_id, None)
    else:
        now[geofence_id] = after
    if change is not None:
        prints.append(Footprint(geofence_id, change, number))
        if change.kind is TransitionKind.ENTERED and after is not None:
            _dwell_at_once(now, prints, geofence_id, after, stop, number, rules_of)


def _dwell_at_once(
    now: dict[int, Belief],
    prints: list[Footprint],
    geofence_id: int,
    belief: Belief,
    stop: Stop,
    number: int,
    rules_of: Callable[[int], Rules],
) -> None:
    """A confirmed entry may come later than the dwell counted from the visit's first fix."""
    rules = rules_of(geofence_id)
    if not rules.dwell_thresholds:
        return
    after, changes = elapse(belief, until_ms=stop.at_ms, seen_ms=stop.at_ms, rules=rules)
    prints += [Footprint(geofence_id, change, number) for change in changes]
    if after is not None:
        now[geofence_id] = after

"""The presence rules once more, belief by belief in plain Python: the slow, obvious way.

`devices.walks` moves rows of numbers by the same rules; tests hold it to what is told here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from devices.presence import (
    TABLE,
    Change,
    Move,
    PresenceState,
    Sighting,
    TransitionKind,
    TransitionReason,
)


class Rules(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one geofence wants its presence judged."""

    confirm_fixes: int = 1
    confirm_ms: int = 0
    dwell_thresholds: tuple[int, ...] = ()  # seconds, ascending
    silence_ms: int = 3_600_000
    shape_version: int = 1


class Belief(msgspec.Struct, frozen=True, gc=False):
    """What is stored of one presence; None stands for outside."""

    state: PresenceState
    visit_id: int
    entered_ms: int
    since_ms: int
    agreeing: int = 1
    dwelled_s: int = 0
    shape_version: int = 1


_MASK = (1 << 64) - 1


def visit_id(*, device_id: int, geofence_id: int, entered_ms: int) -> int:
    """A positive 63-bit id that depends on nothing but the visit: a replay finds the same one.

    The finaliser of splitmix64 (Steele, Lea, Flood 2014) over the three numbers. Uniqueness is
    per device in the database, so a collision needs two visits of one device.
    """
    mixed = 0
    for part in (device_id, geofence_id, entered_ms):
        mixed = (mixed + part + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        mixed ^= mixed >> 31
    return mixed >> 1


def elapse(
    belief: Belief | None, *, until_ms: int, seen_ms: int, rules: Rules
) -> tuple[Belief | None, list[Change]]:
    """What time alone does until `until_ms` to a device last heard of at `seen_ms`.

    Dwells fire at their exact due time while the device is believed inside and its silence is
    bearable; past that the visit ends at the moment the silence became too long.
    """
    changes: list[Change] = []
    if belief is None:
        return None, changes
    given_up_ms = seen_ms + rules.silence_ms
    if belief.state is PresenceState.INSIDE:
        horizon_ms = min(until_ms, given_up_ms)
        for dwell_s in rules.dwell_thresholds:
            due_ms = belief.entered_ms + dwell_s * 1000
            if dwell_s > belief.dwelled_s and due_ms <= horizon_ms:
                changes.append(
                    Change(
                        TransitionKind.DWELLED,
                        belief.visit_id,
                        belief.entered_ms,
                        due_ms,
                        dwell_s=dwell_s,
                    )
                )
                belief = msgspec.structs.replace(belief, dwelled_s=dwell_s)
    if until_ms > given_up_ms:
        if belief.state is not PresenceState.ENTERING:
            changes.append(ended(belief, at_ms=given_up_ms, reason=TransitionReason.SILENCE))
        return None, changes
    return belief, changes


def ended(belief: Belief, *, at_ms: int, reason: TransitionReason) -> Change:
    """The exit of a visit that something other than a crossing ends."""
    return Change(
        TransitionKind.EXITED,
        belief.visit_id,
        belief.entered_ms,
        max(at_ms, belief.entered_ms),
        reason=reason,
    )


def step(
    belief: Belief | None,
    sighting: Sighting,
    *,
    at_ms: int,
    rules: Rules,
    device_id: int,
    geofence_id: int,
    initial: bool = False,
) -> tuple[Belief | None, Change | None]:
    """Move one belief by one sighting at `at_ms`; `elapse` must have run up to then.

    `initial` says that the device was already there when the geofence was armed.
    """
    state = PresenceState.OUTSIDE if belief is None else belief.state
    move = TABLE[state, sighting]
    if move is Move.NOTHING:
        return belief, None
    if move is Move.FORGET:
        return None, None
    if belief is None:  # BEGIN
        belief = Belief(
            PresenceState.ENTERING,
            visit_id(device_id=device_id, geofence_id=geofence_id, entered_ms=at_ms),
            entered_ms=at_ms,
            since_ms=at_ms,
            shape_version=rules.shape_version,
        )
    elif move is Move.DOUBT:
        belief = msgspec.structs.replace(
            belief, state=PresenceState.LEAVING, since_ms=at_ms, agreeing=1
        )
    elif move is Move.AGREE:
        belief = msgspec.structs.replace(belief, agreeing=belief.agreeing + 1)
    else:  # RETURN
        back = msgspec.structs.replace(
            belief, state=PresenceState.INSIDE, since_ms=at_ms, agreeing=1
        )
        return back, None
    return _confirm(belief, at_ms=at_ms, rules=rules, initial=initial)


def _confirm(
    belief: Belief, *, at_ms: int, rules: Rules, initial: bool
) -> tuple[Belief | None, Change | None]:
    """Finish the change under way once enough fixes agree for long enough."""
    if belief.agreeing < rules.confirm_fixes or at_ms - belief.since_ms < rules.confirm_ms:
        return belief, None
    if belief.state is PresenceState.LEAVING:
        return None, ended(belief, at_ms=at_ms, reason=TransitionReason.CROSSED)
    inside = msgspec.structs.replace(belief, state=PresenceState.INSIDE, since_ms=at_ms, agreeing=1)
    reason = TransitionReason.INITIAL if initial else TransitionReason.CROSSED
    return inside, Change(
        TransitionKind.ENTERED, belief.visit_id, belief.entered_ms, at_ms, reason=reason
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

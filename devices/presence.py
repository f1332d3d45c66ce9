"""When a device is believed to be inside a geofence: pure rules, no rows, no clock of its own.

The diagram is TABLE below. A fix becomes a *sighting* (`classify`), a sighting moves a belief
(`step`), and time alone moves it too (`elapse`): the same function serves a fix that arrives
after a gap and the server's clock when none arrives, so both tell the same story.
Times are integers, milliseconds since 1970 in event time.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

CERTAINTY = 0.45
"""Share of the reported accuracy that a fix must lie on its side of the edge to count as sure.

Accuracy is the radius that holds the true place with 68 % (Android `Location.getAccuracy`); for a
round Gaussian that is 1.51 sigma. A straight edge at 0.674 sigma leaves 75 % on one side, the
share at which Google Play services report an entry: 0.674 / 1.51 = 0.45.
"""


class Sighting(IntEnum):
    """A fix judged against one geofence."""

    OUTSIDE = 0
    UNSURE = 1
    INSIDE = 2


class PresenceState(StrEnum):
    """What we believe. OUTSIDE is never stored: it is the absence of a row."""

    OUTSIDE = "outside"
    ENTERING = "entering"
    INSIDE = "inside"
    LEAVING = "leaving"


class TransitionKind(StrEnum):
    ENTERED = "entered"
    DWELLED = "dwelled"
    EXITED = "exited"


class TransitionReason(StrEnum):
    """Why a transition happened when it was not simply a crossing."""

    CROSSED = ""
    INITIAL = "initial"  # the geofence was armed around the device
    SILENCE = "silence"  # the device fell silent and was given up
    GEOFENCE_ENDED = "geofence_ended"
    GEOFENCE_MOVED = "geofence_moved"
    DISARMED = "disarmed"
    CONSENT_WITHDRAWN = "consent_withdrawn"


class Move(StrEnum):
    """What a sighting does to a belief."""

    NOTHING = "nothing"
    BEGIN = "begin"  # first fix inside
    AGREE = "agree"  # one more fix for the change that is under way
    FORGET = "forget"  # it was never a visit
    DOUBT = "doubt"  # first fix outside
    RETURN = "return"  # inside after all


_S, _P = Sighting, PresenceState
TABLE: dict[tuple[PresenceState, Sighting], Move] = {
    (_P.OUTSIDE, _S.OUTSIDE): Move.NOTHING,
    (_P.OUTSIDE, _S.UNSURE): Move.NOTHING,
    (_P.OUTSIDE, _S.INSIDE): Move.BEGIN,
    (_P.ENTERING, _S.OUTSIDE): Move.FORGET,
    (_P.ENTERING, _S.UNSURE): Move.NOTHING,
    (_P.ENTERING, _S.INSIDE): Move.AGREE,
    (_P.INSIDE, _S.OUTSIDE): Move.DOUBT,
    (_P.INSIDE, _S.UNSURE): Move.NOTHING,
    (_P.INSIDE, _S.INSIDE): Move.NOTHING,
    (_P.LEAVING, _S.OUTSIDE): Move.AGREE,
    (_P.LEAVING, _S.UNSURE): Move.NOTHING,
    (_P.LEAVING, _S.INSIDE): Move.RETURN,
}


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


class Change(msgspec.Struct, frozen=True, gc=False):
    """A transition to be written."""

    kind: TransitionKind
    visit_id: int
    entered_ms: int
    occurred_ms: int
    dwell_s: int = 0
    reason: TransitionReason = TransitionReason.CROSSED


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


def classify(
    distance_m: NDArray[np.float64],
    accuracy_m: NDArray[np.float64],
    exit_buffer_m: NDArray[np.float64],
    believed_inside: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Sightings of n fixes against n geofences.

    `distance_m` is signed (positive inside); unknown accuracy is NaN and counts as exact. Entering
    and leaving have separate thresholds: to enter, a fix must be inside by its uncertainty; to
    leave, outside by its uncertainty and the geofence's exit buffer. In between it is unsure.
    """
    doubt_m = CERTAINTY * np.nan_to_num(accuracy_m, nan=0.0)
    enters = distance_m >= doubt_m
    leaves = distance_m < -(doubt_m + exit_buffer_m)
    stays = distance_m >= 0
    sure_inside = np.where(believed_inside, stays, enters & stays)
    sure_outside = np.where(believed_inside, leaves, ~stays)
    unsure = np.full(distance_m.shape, Sighting.UNSURE, dtype=np.int8)
    unsure[sure_inside] = Sighting.INSIDE
    unsure[sure_outside] = Sighting.OUTSIDE
    return unsure


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


def due_ms(belief: Belief, *, seen_ms: int, rules: Rules) -> int:
    """When `elapse` would next change this belief if nothing more is heard of the device."""
    due = seen_ms + rules.silence_ms + 1
    if belief.state is PresenceState.INSIDE:
        for dwell_s in rules.dwell_thresholds:
            if dwell_s > belief.dwelled_s:
                return min(due, belief.entered_ms + dwell_s * 1000)
    return due


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

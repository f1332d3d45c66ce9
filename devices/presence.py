"""When a device is believed to be inside a geofence: the words, their rows and the diagram. Pure.

The diagram is TABLE below. A fix becomes a *sighting* (`classify`); how a sighting and time alone
move a belief is in `devices.walks`. Times are integers, milliseconds since 1970 in event time.
"""

from __future__ import annotations

from collections.abc import Iterator
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


class Move(IntEnum):
    """What a sighting does to a belief."""

    NOTHING = 0
    BEGIN = 1  # first fix inside
    AGREE = 2  # one more fix for the change that is under way
    FORGET = 3  # it was never a visit
    DOUBT = 4  # first fix outside
    RETURN = 5  # inside after all


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


STATES, KINDS, REASONS = tuple(PresenceState), tuple(TransitionKind), tuple(TransitionReason)
"""Rows hold a word as its place in its list, from nought."""

BELIEF_DTYPE = np.dtype(
    [
        ("device_id", "i8"),
        ("geofence_id", "i8"),
        ("visit_id", "i8"),
        ("entered_ms", "i8"),  # while entering: the first fix inside
        ("since_ms", "i8"),  # when the state began
        ("shape_version", "i4"),
        ("dwelled_s", "i4"),  # the longest dwell threshold already reported
        ("agreeing", "i2"),  # fixes in a row that speak for a change
        ("state", "i1"),  # place in STATES; outside: nothing is believed, the rest means nothing
    ]
)
"""What is believed of a device and a geofence; stored ones ascending by both."""

CHANGE_DTYPE = np.dtype(
    [
        ("device_id", "i8"),
        ("geofence_id", "i8"),
        ("visit_id", "i8"),
        ("entered_ms", "i8"),
        ("occurred_ms", "i8"),
        ("row", "i8"),  # of the batch: the fix that told it; -1: time alone
        ("dwell_s", "i4"),
        ("kind", "i1"),  # place in KINDS
        ("reason", "i1"),  # place in REASONS
    ]
)
"""Transitions to be written, in the order they are told."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """A transition in words."""

    kind: TransitionKind
    visit_id: int
    entered_ms: int
    occurred_ms: int
    dwell_s: int = 0
    reason: TransitionReason = TransitionReason.CROSSED


def in_words(told: NDArray[np.void]) -> Iterator[Change]:
    """CHANGE_DTYPE rows, one by one."""
    for row in told[["kind", "visit_id", "entered_ms", "occurred_ms", "dwell_s", "reason"]]:
        kind, visit_id, entered_ms, occurred_ms, dwell_s, reason = row.item()
        yield Change(KINDS[kind], visit_id, entered_ms, occurred_ms, dwell_s, REASONS[reason])


def classify(
    distance_m: NDArray[np.float64],
    accuracy_m: NDArray[np.float64],
    exit_buffer_m: NDArray[np.float64],
    believed_inside: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Sightings of n fixes against n geofences.

    `distance_m` is signed (positive inside). Entering and leaving have separate thresholds: to
    enter, a fix must be inside by its uncertainty; to leave, outside by its uncertainty and the
    geofence's exit buffer. In between it is unsure. Unknown accuracy is NaN and counts as exact:
    trackers and operators that never send one would be met less for it (taken for 20 m, of 39 buses
    whose positions were in Austin's parks 8 were).
    """
    doubt_m = np.where(np.isnan(accuracy_m), 0.0, CERTAINTY * accuracy_m)
    enters = distance_m >= doubt_m
    leaves = distance_m < -(doubt_m + exit_buffer_m)
    stays = distance_m >= 0
    sure_inside = np.where(believed_inside, stays, enters & stays)
    sure_outside = np.where(believed_inside, leaves, ~stays)
    unsure = np.full(distance_m.shape, Sighting.UNSURE, dtype=np.int8)
    unsure[sure_inside] = Sighting.INSIDE
    unsure[sure_outside] = Sighting.OUTSIDE
    return unsure

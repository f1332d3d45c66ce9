"""What an offer was worth: shares, their difference, and how sure that is. Pure.

Wilson's score interval for one share (1927); for the difference of two, Newcombe's hybrid score
interval (1998, method 10), built from both Wilson intervals. Both keep their nominal level for the
small and lopsided groups that places have. Wilson's bounds come from `scipy.stats`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import stats

from campaigns.experiments import Arm

LEVEL = 0.95


class Interval(NamedTuple):
    low: float
    high: float


class Lift(NamedTuple):
    """The difference that the offer made, in shares of persons."""

    treated: float
    control: float
    difference: float
    interval: Interval
    relative: float | None  # None where nobody of the control converted


def share(arm: Arm, *, level: float = LEVEL) -> Interval:
    """Wilson's interval of a share; (0, 1) where nobody was asked."""
    if arm.shown == 0:
        return Interval(0.0, 1.0)
    bounds = stats.binomtest(arm.converted, arm.shown).proportion_ci(level, method="wilson")
    return Interval(float(bounds.low), float(bounds.high))


def lift(treated: Arm, control: Arm, *, level: float = LEVEL) -> Lift:
    """What the offer changed, with Newcombe's interval of the difference."""
    of_treated = treated.converted / treated.shown if treated.shown else 0.0
    of_control = control.converted / control.shown if control.shown else 0.0
    one, two = share(treated, level=level), share(control, level=level)
    difference = of_treated - of_control
    return Lift(
        treated=of_treated,
        control=of_control,
        difference=difference,
        interval=Interval(
            difference - math.hypot(of_treated - one.low, two.high - of_control),
            difference + math.hypot(one.high - of_treated, of_control - two.low),
        ),
        relative=difference / of_control if of_control else None,
    )

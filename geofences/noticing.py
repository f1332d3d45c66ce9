"""How likely a phone that goes straight through a place is noticed, if it reports now and then.

A report falls inside where the way through is longer than the way between two reports; else in the
share that the one is of the other. Ways through are the chords of a disc, all equally far apart.
"""

from __future__ import annotations

from math import asin, pi, sqrt

TYPICAL_ACCURACY_M = 15.0
DOUBT_M = 0.45 * TYPICAL_ACCURACY_M  # so deep inside a report must lie: devices.presence.CERTAINTY
SPEEDS = {"on foot": 5 / 3.6, "by bike": 18 / 3.6, "by car": 50 / 3.6}  # metres a second
EVERY_S = (30, 60, 300)


def radius_of(area_m2: float, perimeter_m: float) -> float:
    """The radius of the disc with the same mean way through.

    Of any convex area that is pi * area / perimeter (Cauchy's formula), of a disc pi * radius / 2.
    """
    return 2 * area_m2 / perimeter_m if perimeter_m > 0 else 0.0


def chance(radius_m: float, *, speed_mps: float, every_s: float) -> float:
    """The share of ways through a disc on which a report falls inside, 0 to 1.

    With c the way between two reports over the diameter: sqrt(1 - c²) / 2 + asin(c) / 2c, and where
    no way through is longer than that, pi / 4c.
    """
    deep_m = radius_m - DOUBT_M
    if deep_m <= 0:
        return 0.0
    between = speed_mps * every_s / (2 * deep_m)
    if between >= 1:
        return pi / (4 * between)
    return sqrt(1 - between**2) / 2 + asin(between) / (2 * between)

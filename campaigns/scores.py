"""What a campaign is worth at one moment, to choose among those of one priority. Pure.

A score is a number, plus so much for each unit of what is known of the moment: `dwell_s` (seconds
inside so far), `distance_m` (metres from the fix to the middle of the place), `attribute.<name>`
(a number known of the person, for example what a model in the back office thinks they like). What
is not known adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Weights = Mapping[str, float]

_PREFIX = "attribute."
_MEASURES = frozenset({"dwell_s", "distance_m"})


def score(
    plain: float,
    weights: Weights,
    *,
    dwell_s: int,
    distance_m: int | None,
    attributes: Mapping[str, Any],
) -> float:
    """The score at a moment, to a thousandth."""
    total = plain
    for name, weight in weights.items():
        if name == "dwell_s":
            seen: Any = dwell_s
        elif name == "distance_m":
            seen = distance_m
        else:
            seen = attributes.get(name.removeprefix(_PREFIX))
        if isinstance(seen, int | float) and not isinstance(seen, bool):
            total += weight * seen
    return round(total, 3)


def problems(weights: Weights) -> list[tuple[str, str]]:
    """Names that stand for nothing."""
    return [
        (f"score_by.{name}", "Must be dwell_s, distance_m or attribute.<name>.")
        for name in weights
        if name not in _MEASURES and not (name.startswith(_PREFIX) and name != _PREFIX)
    ]


def said(weights: Weights) -> str:
    """Where a score comes from, in words: `0.5 × dwell_s`."""
    return " + ".join(f"{weight:g} × {name}" for name, weight in weights.items())

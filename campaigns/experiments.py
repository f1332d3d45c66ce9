"""Who gets which variant, and who gets nothing on purpose. Pure.

Everybody's place is a hash of the person and the experiment: the same on every machine, for ever,
and independent from one experiment to the next. What is learnt is reproducible from the counts
and a seed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

DRAWS = 20_000  # of each posterior: a chance of 0.5 is known to ±0.4 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """How far optimisation may go."""

    burn_in: int = 100  # offers of each variant before anything is learnt
    floor: float = 0.05  # no variant gets less than this share while it is on
    freeze_at: float = 0.99  # one that is the best with this chance stays the best: it is over


class Arm(NamedTuple):
    """What came of one variant, or of a group that got nothing."""

    shown: int
    converted: int


class Allocation(NamedTuple):
    """The shares of the variants from now on, and how sure that is."""

    weights: dict[str, float]
    best: str | None  # decided for good
    chances: dict[str, float]  # of being the best


def point_of(person: str, salt: str) -> float:
    """A person's place in [0, 1), by 53 bits of BLAKE2b; another salt is another shuffle."""
    digest = hashlib.blake2b(f"{salt}\x00{person}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def is_held_out(person: str, *, campaign_id: int, share: float) -> bool:
    """Whether a campaign leaves this person out, to see what its offers are worth."""
    return share > 0 and point_of(person, f"holdout:{campaign_id}") < share


def is_control(person: str, *, brand_id: int, share: float, salt: str) -> bool:
    """Whether this person is in the brand's control group, which no campaign reaches."""
    return share > 0 and point_of(person, f"control:{brand_id}:{salt}") < share


def variant_of(person: str, *, campaign_id: int, weights: Mapping[str, float]) -> str:
    """A person's variant. Where shares change, only as many persons move as must.

    Rendezvous hashing with weights (Schindelhauer, Schomaker 2005): the variant with the highest
    -weight / ln(point) wins.
    """
    return max(
        (name for name, weight in weights.items() if weight > 0),
        key=lambda name: (
            -weights[name] / math.log(point_of(person, f"variant:{campaign_id}:{name}") or 2**-54),
            name,
        ),
    )


def allocate(arms: Mapping[str, Arm], *, guard: Guard, seed: int) -> Allocation:
    """Thompson sampling over Beta(1, 1) priors: each variant's share is its chance to be the best.

    Until every variant has its burn-in, all share alike.
    """
    names = sorted(arms)
    alike = {name: 1 / len(names) for name in names}
    if min(arms[name].shown for name in names) < guard.burn_in:
        return Allocation(alike, None, alike)
    random = np.random.default_rng(seed)
    draws = np.stack(
        [
            random.beta(
                1 + arms[name].converted, 1 + arms[name].shown - arms[name].converted, DRAWS
            )
            for name in names
        ]
    )
    wins = np.bincount(draws.argmax(axis=0), minlength=len(names)) / DRAWS
    chances = {name: float(chance) for name, chance in zip(names, wins, strict=True)}
    best = max(names, key=lambda name: (chances[name], name))
    if chances[best] >= guard.freeze_at:
        return Allocation({name: float(name == best) for name in names}, best, chances)
    floor = min(guard.floor, 1 / len(names))
    spare = 1 - floor * len(names)
    return Allocation(
        {name: floor + spare * chance for name, chance in chances.items()}, None, chances
    )


def weights_of(names: Sequence[str], asked: Mapping[str, float]) -> dict[str, float]:
    """The shares that a campaign asks for, made to add up to one; alike where it asks nothing."""
    wanted = {name: max(0.0, asked.get(name, 1.0)) for name in names}
    total = sum(wanted.values())
    return {name: weight / total for name, weight in wanted.items()} if total else {}

"""How many devices an audience holds now: counted where they are few, from a sample where many.

It reads rows and judges by the rules' own closures; it writes and sends nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import connection

from campaigns import catalogue, compiling, past, rules
from campaigns.conditions import without_here
from campaigns.definition import Definition, Trigger, TriggerOn
from campaigns.moments import Happening
from campaigns.subjects import Subjects

SAMPLE = 2_000
COUNTED = 1_000_000  # a brand with more is "over a million"
CERTAINTY = 1.96  # standard deviations: nineteen samples in twenty


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Devices that match, of all; exact where everybody was asked, else from `low` to `high`."""

    matching: int
    of: int
    low: int
    high: int
    asked: int
    # A condition about the place of the moment cannot be asked without one: it is left out.
    without_here: bool = False

    @property
    def is_exact(self) -> bool:
        return self.asked == self.of

    def __str__(self) -> str:
        most = "At most " if self.without_here else ""
        left_out = " What is asked about “here” depends on the moment and is left out." * bool(most)
        if self.is_exact:
            return f"{most}{self.matching:,} of {self.of:,} devices now.{left_out}"
        over = "over " if self.of >= COUNTED else ""
        about = "At most about" if most else "About"
        return (
            f"{about} {_round(self.matching):,} of {over}{self.of:,} devices now "
            f"({_round(self.low):,} to {_round(self.high):,}, from a sample of {self.asked:,})."
            f"{left_out}"
        )


def estimate(
    brand_id: int, tree: Mapping[str, Any], *, now: datetime, sample: int = SAMPLE
) -> Estimate:
    """Ask everybody, or a sample. AudienceError where the tree cannot be used."""
    brand = catalogue.load_brands(brand_id)[brand_id]
    _compiled(tree, brand)  # what is wrong with it is said of the whole
    asked_of, left_out = without_here(tree, brand.segments)
    campaign = _compiled(asked_of, brand)
    of, ids = _devices(brand_id, sample)
    now_ms = round(now.timestamp() * 1000)
    subjects = Subjects({brand_id: brand}, now_ms)
    subjects.load(set(ids))
    happenings = [
        Happening(
            moment=rules.Moment(
                kind="event",
                id=0,
                on=TriggerOn.EVENT,
                occurred_ms=now_ms,
                now_ms=now_ms,
                subject=known.subject,
                tz=known.tz,
                local=known.local,
            ),
            brand=brand,
            candidates=(campaign,),
        )
        for known in subjects.known.values()
    ]
    past.measure(happenings, now_ms)
    asked = len(happenings)
    hits = sum(campaign.audience.miss(one.moment.subject) is None for one in happenings)
    return replace(_scaled(hits, asked, of), without_here=left_out)


def _compiled(tree: Mapping[str, Any], brand: compiling.BrandRules) -> rules.Campaign:
    return compiling.compiled(
        Definition(trigger=Trigger(on=TriggerOn.EVENT), audience=dict(tree)),
        campaign_id=0,
        version=0,
        name="",
        brand=brand,
    )


def _scaled(hits: int, asked: int, of: int) -> Estimate:
    if asked >= of or not asked:
        return Estimate(matching=hits, of=asked, low=hits, high=hits, asked=asked)
    # Wilson's interval: it keeps its promise where a share is near none or all.
    share, square = hits / asked, CERTAINTY**2
    middle = (share + square / (2 * asked)) / (1 + square / asked)
    spread = (
        CERTAINTY
        * math.sqrt(share * (1 - share) / asked + square / (4 * asked**2))
        / (1 + square / asked)
    )
    return Estimate(
        matching=round(share * of),
        of=of,
        low=max(0, math.floor((middle - spread) * of)),
        high=min(of, math.ceil((middle + spread) * of)),
        asked=asked,
    )


def _devices(brand_id: int, sample: int) -> tuple[int, list[int]]:
    """How many devices there are, and the ids of a sample of them, each as likely as any."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), min(id), max(id) FROM (SELECT id FROM devices_device"
            " WHERE brand_id = %s LIMIT %s) d",
            (brand_id, COUNTED),
        )
        of, first, last = cursor.fetchone()
        if of <= sample:
            cursor.execute("SELECT id FROM devices_device WHERE brand_id = %s", (brand_id,))
            return of, [row[0] for row in cursor.fetchall()]
        found: set[int] = set()
        for _ in range(4):
            # More than are wanted: between a brand's ids lie those of others.
            drawn = [random.randint(first, last) for _ in range(10 * sample)]  # noqa: S311
            cursor.execute(
                "SELECT id FROM devices_device WHERE id = ANY(%s) AND brand_id = %s LIMIT %s",
                (drawn, brand_id, sample),
            )
            found |= {row[0] for row in cursor.fetchall()}
            if len(found) >= sample:
                break
        return of, sorted(found)[:sample] if len(found) <= sample else random.sample(
            sorted(found), sample
        )


def _round(count: int) -> int:
    """To three digits: more would look surer than it is."""
    digits = max(0, len(str(count)) - 3)
    return round(count, -digits)

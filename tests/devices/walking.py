"""Beliefs in words as the rows that `devices.walks` moves, and back; its walk as the clerk's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from devices import walks
from devices.presence import BELIEF_DTYPE, STATES, in_words
from tests.devices.clerk import Belief, Footprint, Rules, Stop


def rows_of(device_id: int, beliefs: Mapping[int, Belief | None]) -> NDArray[np.void]:
    """BELIEF_DTYPE by geofence id; None is a slot in which nothing is believed."""
    rows = np.zeros(len(beliefs), BELIEF_DTYPE)
    rows["device_id"] = device_id
    for row, geofence_id in zip(rows, sorted(beliefs), strict=True):
        row["geofence_id"] = geofence_id
        belief = beliefs[geofence_id]
        if belief is not None:
            row["state"] = STATES.index(belief.state)
            for name in Belief.__struct_fields__[1:]:
                row[name] = getattr(belief, name)
    return rows


def beliefs_of(rows: NDArray[np.void]) -> dict[int, Belief]:
    """By geofence id."""
    return {
        int(row["geofence_id"]): Belief(
            STATES[row["state"]], *(int(row[name]) for name in Belief.__struct_fields__[1:])
        )
        for row in rows
        if row["state"]
    }


def prints_of(told: NDArray[np.void]) -> list[Footprint]:
    """With the batch's rows as the stops' numbers."""
    places = zip(told["geofence_id"].tolist(), in_words(told), told["row"].tolist(), strict=True)
    return [Footprint(*place) for place in places]


def as_rows(rules: Sequence[Rules]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """RULES_DTYPE and the thresholds they point to."""
    rows, thresholds = np.zeros(len(rules), walks.RULES_DTYPE), list[int]()
    for row, rule in zip(rows, rules, strict=True):
        row["confirm_fixes"], row["confirm_ms"] = rule.confirm_fixes, rule.confirm_ms
        row["shape_version"], row["dwell"] = rule.shape_version, len(thresholds)
        thresholds += rule.dwell_thresholds
        row["past_dwell"] = len(thresholds)
    return rows, np.array(thresholds, np.int64)


def walk(
    device_id: int,
    stops: Sequence[Stop],
    beliefs: Mapping[int, Belief],
    *,
    rules_of: Callable[[int], Rules],
    seen_ms: int,
    initial: frozenset[int] = frozenset(),
) -> tuple[dict[int, Belief], list[Footprint]]:
    """What `clerk.walk` answers, from `walks.walk`."""
    ids = sorted({*beliefs, *(each for stop in stops for each in stop.seen)})
    slots = rows_of(device_id, {each: beliefs.get(each) for each in ids})
    wanted = [rules_of(each) for each in ids]
    rules, thresholds = as_rows(wanted)
    seen = np.array(
        [
            (row, ids.index(each), *stop.seen[each], False)
            for row, stop in enumerate(stops)
            for each in sorted(stop.seen)
        ],
        walks.SEEN_DTYPE,
    )
    told = walks.walk(
        slots,
        rules,
        thresholds,
        np.array([(0, len(ids), 0, len(stops), seen_ms)], walks.WALKER_DTYPE),
        np.array([stop.at_ms for stop in stops], np.int64),
        seen,
        np.array([each in initial for each in ids], bool),
        silence_ms=wanted[0].silence_ms if wanted else 0,
    )
    return beliefs_of(slots), prints_of(told)

"""Which fixes count: late, mocked, hopeless and impossible ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from devices.arrays import NEVER
from devices.fixes import FIX_DTYPE, FixVerdict
from devices.judgement import STATE_DTYPE, judge, repeats
from tests.places import ACROSS_TOWN, AT_THE_DOOR, Place

PARIS = Place(48.8566, 2.3522)


def fixes(*rows: tuple[Place, int], **fields: Any) -> NDArray[np.void]:
    batch = np.zeros(len(rows), dtype=FIX_DTYPE)
    batch["accuracy_m"] = np.nan
    for row, (place, at_s) in zip(batch, rows, strict=True):
        row["lat"], row["lng"], row["recorded_ms"] = *place, at_s * 1000
    for name, value in fields.items():
        batch[name] = value
    return batch


def last(place: Place | None = None, at_s: int = 0, jump: Place | None = None) -> NDArray[np.void]:
    nowhere = Place(np.nan, np.nan)
    states = np.zeros(1, dtype=STATE_DTYPE)
    states["recorded_ms"] = at_s * 1000 if place else NEVER
    states["lat"], states["lng"] = place or nowhere
    states["jump_lat"], states["jump_lng"] = jump or nowhere
    states["accuracy_m"] = np.nan
    return states


def verdicts(batch: NDArray[np.void], known: NDArray[np.void]) -> list[FixVerdict]:
    judged, _ = judge(batch, np.zeros(len(batch), dtype=np.int64), known)
    return [FixVerdict(each) for each in judged]


def test_it_uses_a_first_fix_anywhere() -> None:
    assert verdicts(fixes((PARIS, 10)), last()) == [FixVerdict.USED]


def test_it_calls_a_fix_late_that_is_not_newer_than_the_last() -> None:
    batch = fixes((AT_THE_DOOR, 9), (AT_THE_DOOR, 10), (AT_THE_DOOR, 11))
    assert verdicts(batch, last(AT_THE_DOOR, 10)) == [
        FixVerdict.LATE,
        FixVerdict.LATE,
        FixVerdict.USED,
    ]


def test_it_uses_the_first_of_two_fixes_of_one_instant() -> None:
    batch = fixes((AT_THE_DOOR, 11), (ACROSS_TOWN, 11))
    assert verdicts(batch, last()) == [FixVerdict.USED, FixVerdict.LATE]


def test_it_keeps_mocked_and_hopeless_fixes_as_history_only() -> None:
    assert verdicts(fixes((AT_THE_DOOR, 1), mock=True), last()) == [FixVerdict.MOCKED]
    assert verdicts(fixes((AT_THE_DOOR, 1), accuracy_m=5000), last()) == [FixVerdict.INACCURATE]


def test_it_does_not_believe_a_single_spike() -> None:
    batch = fixes((PARIS, 20), (AT_THE_DOOR, 30))
    assert verdicts(batch, last(AT_THE_DOOR, 10)) == [FixVerdict.TELEPORT, FixVerdict.USED]


def test_it_believes_a_far_place_at_the_second_fix() -> None:
    batch = fixes((PARIS, 20), (PARIS, 30))
    known = last(AT_THE_DOOR, 10)
    assert verdicts(batch, known) == [FixVerdict.TELEPORT, FixVerdict.USED]
    # The same with the two fixes in two batches.
    _, jumps = judge(batch[:1], np.zeros(1, dtype=np.int64), known)
    assert jumps.tolist() == [[PARIS.lat, PARIS.lng]]
    assert verdicts(batch[1:], last(AT_THE_DOOR, 10, jump=PARIS)) == [FixVerdict.USED]


def test_it_believes_a_flight_that_took_its_time() -> None:
    assert verdicts(fixes((PARIS, 3 * 3600)), last(AT_THE_DOOR, 0)) == [FixVerdict.USED]


def test_it_leaves_short_jumps_to_the_hysteresis() -> None:
    nearby = Place(AT_THE_DOOR.lat + 0.015, AT_THE_DOOR.lng)  # 1.7 km in a second
    assert verdicts(fixes((nearby, 11)), last(AT_THE_DOOR, 10)) == [FixVerdict.USED]


@given(
    walk=st.lists(
        st.tuples(st.sampled_from([AT_THE_DOOR, ACROSS_TOWN, PARIS]), st.integers(1, 20_000)),
        min_size=1,
        max_size=8,
    )
)
def test_it_judges_a_walk_alike_in_one_batch_and_fix_by_fix(walk: list[tuple[Place, int]]) -> None:
    at_s, rows = 0, []
    for place, gap_s in walk:
        at_s += gap_s
        rows.append((place, at_s))
    together = verdicts(fixes(*rows), last())
    one_by_one, known = [], last()
    for place, at in rows:
        (judged,), jumps = judge(fixes((place, at)), np.zeros(1, dtype=np.int64), known)
        one_by_one.append(FixVerdict(judged))
        if judged == FixVerdict.USED:
            known = last(place, at)
        else:
            known["jump_lat"], known["jump_lng"] = jumps[0]
    assert together == one_by_one


@given(
    pairs=st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from([0, 1, 1 << 20, 1 << 40, (1 << 63) - 1])),
        max_size=30,
    )
)
def test_it_knows_a_repeat_within_a_batch(pairs: list[tuple[int, int]]) -> None:
    batch = np.zeros(len(pairs), dtype=FIX_DTYPE)
    for row, (device_id, key) in zip(batch, pairs, strict=True):
        row["device_id"], row["key"] = device_id, key
    expected = [pair in pairs[:number] for number, pair in enumerate(pairs)]
    assert repeats(batch).tolist() == expected

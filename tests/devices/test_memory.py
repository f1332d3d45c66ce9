"""Memory against a plain dict that is emptied when it would grow too large."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from devices.judgement import STATE_DTYPE
from devices.memory import UNASKED_BATCHES, Memory
from devices.presence import BELIEF_DTYPE

Here = dict[int, list[tuple[int, int, int]]]


def _beliefs(version: int, anywhere: dict[int, int]) -> Here:
    """So many beliefs of each device, told apart by the version they are of."""
    return {
        device_id: [(device_id, each, version) for each in range(count)]
        for device_id, count in anywhere.items()
    }


def _rows(beliefs: Here) -> NDArray[np.void]:
    """By device."""
    rows = np.zeros(sum(map(len, beliefs.values())), BELIEF_DTYPE)
    found = (each for device_id in sorted(beliefs) for each in beliefs[device_id])
    for row, (device_id, geofence_id, version) in zip(rows, found, strict=True):
        row["device_id"], row["geofence_id"], row["visit_id"] = device_id, geofence_id, version
    return rows


@given(
    batches=st.lists(
        st.dictionaries(st.integers(1, 40), st.integers(0, 3), min_size=1, max_size=12), max_size=20
    ),
    capacity=st.integers(5, 60),
)
def test_it_recalls_what_was_written_last(batches: list[dict[int, int]], capacity: int) -> None:
    memory, oracle, believed = Memory(capacity), dict[int, int](), Here()
    for version, anywhere in enumerate(batches):
        asked = np.array(sorted(anywhere))
        held, beliefs, missing = memory.recall(asked)
        assert dict(zip(held["device_id"].tolist(), held["version"].tolist(), strict=True)) == {
            each: oracle[each] for each in sorted(anywhere) if each in oracle
        }
        kept = {each: believed[each] for each in anywhere if each in oracle}
        assert beliefs.tolist() == _rows(kept).tolist()
        assert missing.tolist() == [each for each in sorted(anywhere) if each not in oracle]
        rows = np.zeros(len(asked), dtype=STATE_DTYPE)
        rows["device_id"], rows["version"] = asked, version
        rows["presences"] = [anywhere[each] for each in asked.tolist()]
        told = _beliefs(version, anywhere)
        memory.remember(rows, _rows(told))
        count = sum(anywhere.values())
        if (
            len(oracle) + len(anywhere) > capacity
            or sum(map(len, believed.values())) + count > capacity
        ):
            oracle.clear()
            believed.clear()
        if max(len(anywhere), count) <= capacity:
            oracle |= dict.fromkeys(anywhere, version)
            believed |= told


def test_it_is_left_unasked_for_longer_where_others_keep_writing_the_same_devices() -> None:
    memory, asked = Memory(500), np.arange(1, 201)
    rows = np.zeros(len(asked), dtype=STATE_DTYPE)
    rows["device_id"] = asked
    memory.remember(rows, np.empty(0, BELIEF_DTYPE))

    memory.found_outdated(2, of=200)
    assert len(memory.recall(asked)[0]) == 200

    def unasked() -> int:
        """For how many batches, after three rows were outdated."""
        memory.found_outdated(3, of=200)
        count = 0
        while not len((recalled := memory.recall(asked))[0]):
            count += 1
            assert len(recalled[1]) == 0
            assert recalled[2].tolist() == asked.tolist()
        return count

    assert [unasked() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 64, UNASKED_BATCHES]
    assert unasked() == UNASKED_BATCHES
    memory.found_outdated(0, of=0)  # nothing was recalled: nothing is known
    assert unasked() == UNASKED_BATCHES
    memory.found_outdated(2, of=200)
    assert unasked() == 1

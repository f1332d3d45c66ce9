"""Memory against a plain dict that is emptied when it would grow too large."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from devices.judgement import STATE_DTYPE
from devices.memory import PROOF, Memory
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


@pytest.mark.parametrize(("count", "batches"), [(100, 10), (400, 4), (PROOF, 4)])
def test_it_is_doubted_until_it_would_have_been_right_about_enough(
    count: int, batches: int
) -> None:
    memory, asked = Memory(2_000), np.arange(1, count + 1)
    rows = np.zeros(count, dtype=STATE_DTYPE)
    rows["device_id"] = asked
    memory.remember(rows, np.empty(0, BELIEF_DTYPE))
    elsewhere = rows.copy()  # as others wrote some of them
    elsewhere["version"][: count // 20] += 1
    unknown = rows.copy()
    unknown["device_id"] += count

    def is_believed() -> bool:
        held, beliefs, missing = memory.recall(asked)
        assert len(beliefs) == 0
        assert len(held) in {0, count}
        assert missing.tolist() == ([] if len(held) else asked.tolist())
        return len(held) > 0

    memory.found_outdated(count // 100, of=count)
    assert is_believed()
    memory.compare(elsewhere)  # nobody asked
    assert is_believed()

    memory.found_outdated(count // 100 + 1, of=count)
    for read, times in ((rows, batches - 1), (elsewhere, 1), (rows, batches)):
        for _ in range(times):
            assert not is_believed()
            memory.compare(unknown)  # says nothing of what it holds
            assert not is_believed()
            memory.compare(read)
    assert is_believed()

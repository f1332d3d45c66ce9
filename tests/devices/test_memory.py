"""Memory against a plain dict that is emptied when it would grow too large."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from devices.judgement import STATE_DTYPE
from devices.memory import UNASKED_BATCHES, Memory


@given(
    batches=st.lists(st.sets(st.integers(1, 40), min_size=1, max_size=12), max_size=20),
    capacity=st.integers(5, 60),
)
def test_it_recalls_what_was_written_last(batches: list[set[int]], capacity: int) -> None:
    memory, oracle = Memory(capacity), dict[int, int]()
    for version, ids in enumerate(batches):
        asked = np.array(sorted(ids))
        held, missing = memory.recall(asked)
        assert dict(zip(held["device_id"].tolist(), held["version"].tolist(), strict=True)) == {
            each: oracle[each] for each in sorted(ids) if each in oracle
        }
        assert missing.tolist() == [each for each in sorted(ids) if each not in oracle]
        rows = np.zeros(len(asked), dtype=STATE_DTYPE)
        rows["device_id"], rows["version"] = asked, version
        memory.remember(rows)
        if len(oracle) + len(ids) > capacity:
            oracle.clear()
        if len(ids) <= capacity:
            oracle |= dict.fromkeys(ids, version)


def test_it_is_left_unasked_for_a_while_where_others_write_the_same_devices() -> None:
    memory, asked = Memory(500), np.arange(1, 201)
    rows = np.zeros(len(asked), dtype=STATE_DTYPE)
    rows["device_id"] = asked
    memory.remember(rows)

    memory.found_outdated(2, of=200)
    assert len(memory.recall(asked)[0]) == 200

    memory.found_outdated(3, of=200)
    for _ in range(UNASKED_BATCHES):
        held, missing = memory.recall(asked)
        assert len(held) == 0
        assert missing.tolist() == asked.tolist()
    assert len(memory.recall(asked)[0]) == 200

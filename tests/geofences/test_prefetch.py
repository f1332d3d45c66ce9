"""Places in memory that are asked for ahead of time."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from geofences.prefetch import ahead


def _sum(values: NDArray[np.float64], places: NDArray[np.int64]) -> float:
    found = 0.0
    for place in places:
        ahead(values, place)
        if 0 <= place < len(values):
            found += values[place]
    return found


_compiled: Any = numba.njit(_sum)  # not kept on disk: what is read from there shows no code


def test_it_asks_the_processor_and_changes_no_answer() -> None:
    values = np.arange(10.0)

    found = _compiled(values, np.array([9, 3]))

    assert found == 12.0
    assert "call void @llvm.prefetch" in next(iter(_compiled.inspect_llvm().values()))


def test_it_may_be_asked_for_places_that_are_not_there() -> None:
    assert _compiled(np.arange(10.0), np.array([-1, 1 << 40, -(1 << 40), 2])) == 2.0


def test_it_does_nothing_where_python_runs_the_loop() -> None:
    assert _sum(np.arange(10.0), np.array([4])) == 4.0

"""Rows of different lengths in one flat array. It knows nothing of what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def spread(first: NDArray[Any], count: NDArray[Any]) -> tuple[Ints, Ints]:
    """For each i, first[i], first[i] + 1, … count[i] times: the i's and the values."""
    owner = np.repeat(np.arange(len(count)), count)
    shift = first - np.cumsum(count, dtype=np.int64) + count
    values = shift.take(owner)
    values += np.arange(len(owner))
    return owner, values


@dataclass(frozen=True, slots=True)
class Spans:
    """Where records lie in one long array of words of 8 bytes."""

    first: Ints
    size: NDArray[np.int32]

    @classmethod
    def in_line(cls, size: NDArray[Any]) -> Spans:
        ends = np.cumsum(size, dtype=np.int64)
        return cls(ends - size, size.astype(np.int32))

    def at(self, positions: Ints) -> Spans:
        return Spans(self.first[positions], self.size[positions])

    def words(self) -> Ints:
        return spread(self.first, self.size.astype(np.int64))[1]

    @property
    def nbytes(self) -> int:
        return self.first.nbytes + self.size.nbytes

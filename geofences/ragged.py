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
    """Where records begin in one array that holds nothing else, one after the other, any order."""

    first: Ints
    total: int  # length of the array

    @classmethod
    def in_line(cls, size: NDArray[Any]) -> Spans:
        ends = np.cumsum(size, dtype=np.int64)
        return cls(ends - size, int(ends[-1]) if len(ends) else 0)

    def sizes(self) -> Ints:
        order = np.argsort(self.first)
        size = np.empty(len(order), np.int64)
        size[order] = np.diff(self.first[order], append=self.total)
        return size

    def permuted(self, order: Ints) -> Spans:
        return Spans(self.first[order], self.total)

"""Rows of different lengths in one flat array. It knows nothing of what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


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


@dataclass(frozen=True, slots=True)
class Pieces:
    """Byte strings of whole words (8 bytes), end to end."""

    words: Words
    size: Ints  # of each, in words

    @classmethod
    def joined(cls, raw: bytes | NDArray[np.uint8], size_bytes: Sequence[int] | Ints) -> Pieces:
        """Of strings that are joined already."""
        return cls(np.frombuffer(raw, "<u8"), np.asarray(size_bytes, np.int64) // 8)

    @classmethod
    def of(cls, many: Sequence[bytes]) -> Pieces:
        return cls.joined(b"".join(many), [len(one) for one in many])

    def __len__(self) -> int:
        return len(self.size)

    def __iter__(self) -> Iterator[bytes]:
        """The strings."""
        raw, end = self.words.tobytes(), 0
        for size in (8 * self.size).tolist():
            end += size
            yield raw[end - size : end]

    @property
    def first(self) -> Ints:
        """Where each begins."""
        return np.cumsum(self.size) - self.size

    def part(self, skipped: Ints, size: Ints) -> Pieces:
        """Of each, `size` words after the first `skipped`."""
        return Pieces(self.words.take(spread(self.first + skipped, size)[1]), size)

    def rows(self, chosen: Ints) -> Pieces:
        size = self.size[chosen]
        return Pieces(self.words.take(spread(self.first[chosen], size)[1]), size)

    def plus(self, other: Pieces) -> Pieces:
        """These, then the other's."""
        return Pieces(
            np.concatenate((self.words, other.words)), np.concatenate((self.size, other.size))
        )


NOTHING = Pieces.of([])

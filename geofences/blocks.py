"""H3 covers folded into tables: from a fix's cell to the geofences it may lie in. It tests no edge.

A *block* is a cell two resolutions coarser than the cells it tells apart, so the cells of one
geofence in one block are the bits of two words: which it touches, and which of those are interior
(bit 8 * a + b for the child with digits a, b). A cover of a hundred cells takes about five entries.
Covers of one resolution share a table. A block's key holds the brand: another brand's geofences are
never even looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofences.ragged import spread

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_BRAND_BITS = 26  # 7 + 3 * 10 bits name a block
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 / golden ratio, odd: multiplying by it scatters keys and maps no two to one (D. Knuth,
The Art of Computer Programming 3, 6.4)."""
_ALL = np.uint64(0x007F7F7F7F7F7F7F)


def level_of(resolution: int) -> int:
    """Of the blocks for a cover's cells; 0 to 10."""
    return max(0, resolution - 2)


def _places(cells: Words, level: int) -> Words:
    """The block of each cell: base cell and digits."""
    return (cells >> np.uint64(45 - 3 * level)) & np.uint64((1 << 7 + 3 * level) - 1)


def _bits(cells: Words, resolution: int, level: int) -> Words:
    """Which children of its block each cell covers; more than one at resolutions 0 and 1."""
    digits = cells >> np.uint64(45 - 3 * resolution)
    if resolution == level + 2:
        return np.uint64(1) << (digits & np.uint64(63))
    if resolution == level + 1:
        return np.uint64(0x7F) << ((digits & np.uint64(7)) * np.uint64(8))
    return np.full(len(cells), _ALL)


@dataclass(frozen=True, slots=True)
class Entries:
    """One row for each geofence and block; any order, each pair once."""

    place: Words
    brand: Ints  # rank among the brands of the index
    geofence: Ints  # position
    touched: Words
    interior: Words

    @staticmethod
    def joined(many: Sequence[Entries]) -> Entries:
        return Entries(
            *(
                np.concatenate([getattr(one, name) for one in many])
                for name in ("place", "brand", "geofence", "touched", "interior")
            )
        )

    @classmethod
    def of(
        cls,
        resolution: int,
        interior: Sequence[bytes],
        boundary: Sequence[bytes],
        brand: Ints,
        geofence: Ints,
    ) -> Entries:
        """From covers of one resolution; the last two name the geofence of each."""
        level = level_of(resolution)
        runs = [_runs(cells, resolution, level) for cells in (interior, boundary)]
        owner = np.concatenate([run[0] for run in runs])
        place = np.concatenate([run[1] for run in runs])
        masks = np.zeros((2, len(owner)), np.uint64)
        masks[0] = np.concatenate([run[2] for run in runs])
        masks[1, : len(runs[0][0])] = runs[0][2]
        # Stable: two sorted halves are merged, not sorted.
        order = np.argsort((owner.astype(np.uint64) << np.uint64(37)) | place, kind="stable")
        owner, place, masks = owner[order], place[order], masks[:, order]
        starts = _starts(owner, place)
        if len(starts):
            masks = np.bitwise_or.reduceat(masks, starts, axis=1)
        owner = owner[starts]
        return cls(place[starts], brand[owner], geofence[owner], masks[0], masks[1])


def _runs(covers: Sequence[bytes], resolution: int, level: int) -> tuple[Ints, Words, Words]:
    """Cover, block and bits; a cover's cells are ascending, so those of a block stand together."""
    cells = np.frombuffer(b"".join(covers), "<u8")
    owner = np.repeat(np.arange(len(covers)), [len(cover) // 8 for cover in covers])
    place = _places(cells, level)
    starts = _starts(owner, place)
    bits = _bits(cells, resolution, level)
    masks = np.bitwise_or.reduceat(bits, starts) if len(starts) else bits
    return owner[starts], place[starts], masks


def _starts(first: NDArray[np.generic], second: NDArray[np.generic]) -> Ints:
    """Where a new pair begins."""
    if not len(first):
        return np.empty(0, np.int64)
    new = np.concatenate(([True], (first[1:] != first[:-1]) | (second[1:] != second[:-1])))
    return np.flatnonzero(new)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of a fix and a geofence that may hold it."""

    fix: Ints
    geofence: Ints
    sure: NDArray[np.bool_]  # the fix's cell is interior


@dataclass(frozen=True, slots=True)
class Table:
    """The blocks of one level: a hash table in arrays, ordered by hash, with a directory."""

    level: int
    shift: np.uint64  # of a hash to its place in the directory
    directory: NDArray[np.int32]  # the first block at or after each place
    key: Words
    first: NDArray[np.int32]  # of the block's entries
    geofence: NDArray[np.int32]
    touched: Words
    interior: Words

    @classmethod
    def of(cls, level: int, entries: Entries) -> Table:
        key = (entries.place << np.uint64(_BRAND_BITS)) | entries.brand.astype(np.uint64)
        order = np.argsort(key * _SPREAD)
        key = key[order]
        starts = _starts(key, key)
        # Twice as many places as blocks: most fixes away from all geofences find an empty one.
        width = max(1, int(len(starts) * 2 - 1).bit_length())
        shift = np.uint64(64 - width)
        place = ((key[starts] * _SPREAD) >> shift).astype(np.int64)
        directory = np.zeros((1 << width) + 1, np.int32)
        np.cumsum(np.bincount(place, minlength=1 << width), out=directory[1:])
        return cls(
            level=level,
            shift=shift,
            directory=directory,
            key=key[starts],
            first=np.append(starts, len(key)).astype(np.int32),
            geofence=entries.geofence[order].astype(np.int32),
            touched=entries.touched[order],
            interior=entries.interior[order],
        )

    @property
    def bytes_in_memory(self) -> int:
        columns = (self.directory, self.key, self.first, self.geofence)
        return sum(column.nbytes for column in (*columns, self.touched, self.interior))

    def entries(self) -> Entries:
        """What the table was made of."""
        key = np.repeat(self.key, np.diff(self.first))
        brand_mask = np.uint64((1 << _BRAND_BITS) - 1)
        return Entries(
            key >> np.uint64(_BRAND_BITS),
            (key & brand_mask).astype(np.int64),
            self.geofence.astype(np.int64),
            self.touched,
            self.interior,
        )

    def candidates(self, cells: Words, brand: Words | np.uint64) -> Candidates:
        """For fixes by their cell at `level + 2` or finer and the rank of their brand."""
        key = (_places(cells, self.level) << np.uint64(_BRAND_BITS)) | brand
        place = ((key * _SPREAD) >> self.shift).astype(np.int64)
        at, end = self.directory[place], self.directory[place + 1]
        fix = np.flatnonzero(at < end)
        fix, block = self._find(fix, at[fix].astype(np.int64), end[fix], key[fix])
        first = self.first[block]
        count = self.first[block + 1] - first
        row, entry = spread(first, count)
        child = (cells[fix] >> np.uint64(45 - 3 * (self.level + 2))) & np.uint64(63)
        bit = (np.uint64(1) << child)[row]
        hit = np.flatnonzero(self.touched[entry] & bit)
        entry = entry[hit]
        sure = (self.interior[entry] & bit[hit]) != 0
        return Candidates(fix[row[hit]], self.geofence[entry].astype(np.int64), sure)

    def _find(self, fix: Ints, at: Ints, end: NDArray[np.int32], key: Words) -> tuple[Ints, Ints]:
        """Those whose key is among the blocks of its place, and that block."""
        found_fix, found_at = [], []
        while len(fix):
            same = self.key[at] == key
            found_fix.append(fix[same])
            found_at.append(at[same])
            more = np.flatnonzero(~same & (at + 1 < end))
            fix, at, end, key = fix[more], at[more] + 1, end[more], key[more]
        if not found_fix:
            return fix, at
        return np.concatenate(found_fix), np.concatenate(found_at)

    def candidates_of_one(self, cell: int, brand: int) -> list[tuple[int, bool]]:
        """`candidates` of one fix, without arrays: positions and whether they are sure."""
        place = cell >> 45 - 3 * self.level & (1 << 7 + 3 * self.level) - 1
        key = place << _BRAND_BITS | brand
        slot = (key * int(_SPREAD) & (1 << 64) - 1) >> int(self.shift)
        for block in range(self.directory.item(slot), self.directory.item(slot + 1)):
            if self.key.item(block) == key:
                break
        else:
            return []
        bit = 1 << (cell >> 39 - 3 * self.level & 63)
        found = []
        for entry in range(self.first.item(block), self.first.item(block + 1)):
            if self.touched.item(entry) & bit:
                sure = bool(self.interior.item(entry) & bit)
                found.append((self.geofence.item(entry), sure))
        return found

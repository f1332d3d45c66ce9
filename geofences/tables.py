"""From a fix's cell to the geofences it may lie in: a hash table of blocks. It tests no edge."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofences.blocks import BRAND_BITS, Entries, places, starts_of
from geofences.ragged import Ints, Words, spread

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 / golden ratio, odd: multiplying by it scatters keys and maps no two to one (D. Knuth,
The Art of Computer Programming 3, 6.4)."""

_CROWD = 8  # entries of a block from which each of its children gets a list of its own
_AT_ONCE = 12_288  # entries whose intermediate arrays stay in the cache (see `outlines`)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of a fix and a geofence that may hold it."""

    fix: Ints
    geofence: Ints
    sure: NDArray[np.bool_]  # the fix's cell is interior


@dataclass(frozen=True, slots=True)
class _Crowds:
    """Blocks of many geofences: which of them touch each child, without asking the others."""

    number: NDArray[np.int32]  # of each block of the table, -1 where it is no crowd
    first: NDArray[np.int32]  # of a child's members, by 64 * number + child
    member: NDArray[np.int32]  # geofence << 1 | interior

    @classmethod
    def of(
        cls, first: Ints, geofence: NDArray[np.int32], touched: Words, interior: Words
    ) -> _Crowds:
        count = np.diff(first)
        crowd = count >= _CROWD
        number = np.where(crowd, np.cumsum(crowd) - 1, -1).astype(np.int32)
        _, entry = spread(first[:-1][crowd], count[crowd])
        block = np.repeat(number[crowd].astype(np.int64), count[crowd])
        bits = np.unpackbits(touched[entry].view(np.uint8), bitorder="little").reshape(-1, 64)
        row, child = np.nonzero(bits)
        slot = block[row] * 64 + child
        order = np.argsort(slot, kind="stable")
        row, child = entry[row[order]], child[order].astype(np.uint64)
        sure = interior[row] >> child & np.uint64(1)
        ends = np.cumsum(np.bincount(slot, minlength=64 * int(crowd.sum())))
        return cls(
            number=number,
            first=np.append(0, ends).astype(np.int32),
            member=(geofence[row] << 1 | sure.astype(np.int32)),
        )


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
    crowds: _Crowds

    @classmethod
    def of(cls, level: int, entries: Entries, brand: Ints) -> Table:
        """`brand` is the rank of each geofence's, by position."""
        rank = brand.take(entries.geofence).astype(np.uint64)
        key = (entries.place << np.uint64(BRAND_BITS)) | rank
        order = np.argsort(key * _SPREAD)
        key = key[order]
        starts = starts_of(key, key)
        # Twice as many places as blocks: most fixes away from all geofences find an empty one.
        width = max(1, int(len(starts) * 2 - 1).bit_length())
        shift = np.uint64(64 - width)
        place = ((key[starts] * _SPREAD) >> shift).astype(np.int64)
        directory = np.zeros((1 << width) + 1, np.int32)
        np.cumsum(np.bincount(place, minlength=1 << width), out=directory[1:])
        first = np.append(starts, len(key))
        geofence = entries.geofence[order].astype(np.int32)
        touched, interior = entries.touched[order], entries.interior[order]
        return cls(
            level=level,
            shift=shift,
            directory=directory,
            key=key[starts],
            first=first.astype(np.int32),
            geofence=geofence,
            touched=touched,
            interior=interior,
            crowds=_Crowds.of(first, geofence, touched, interior),
        )

    @property
    def bytes_in_memory(self) -> int:
        crowds = self.crowds.number, self.crowds.first, self.crowds.member
        columns = self.directory, self.key, self.first, self.geofence, self.touched, self.interior
        return sum(column.nbytes for column in (*columns, *crowds))

    def entries(self) -> Entries:
        """What the table was made of."""
        place = np.repeat(self.key >> np.uint64(BRAND_BITS), np.diff(self.first))
        return Entries(
            place,
            self.geofence.astype(np.int64),
            self.touched,
            self.interior,
        )

    def candidates(self, cells: Words, brand: Words | np.uint64) -> Candidates:
        """For fixes by their cell at `level + 2` or finer and the rank of their brand."""
        key = (places(cells, self.level) << np.uint64(BRAND_BITS)) | brand
        place = ((key * _SPREAD) >> self.shift).astype(np.int64)
        at, end = self.directory.take(place), self.directory.take(place + 1)
        fix = np.flatnonzero(at < end)
        fix, block = self._find(fix, at[fix].astype(np.int64), end[fix], key[fix])
        child = (cells[fix] >> np.uint64(45 - 3 * (self.level + 2))) & np.uint64(63)
        number = self.crowds.number.take(block)
        few, many = np.flatnonzero(number < 0), np.flatnonzero(number >= 0)
        found = self._of_few(fix[few], block[few], np.uint64(1) << child[few])
        if len(many):
            slot = number[many].astype(np.int64) * 64 + child[many].astype(np.int64)
            found += self._of_many(fix[many], slot)
        return Candidates(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _of_few(self, fix: Ints, block: Ints, bit: Words) -> list[Found]:
        """Of fixes in ordinary blocks, the entries whose bit is set."""
        first = self.first.take(block)
        found: list[Found] = []
        for part, row, entry in _parts(first, self.first.take(block + 1) - first):
            bits = bit[part].take(row)
            hit = np.flatnonzero(self.touched.take(entry) & bits)
            held = entry.take(hit)
            sure = (self.interior.take(held) & bits.take(hit)) != 0
            geofence = self.geofence.take(held).astype(np.int64)
            found.append((fix[part].take(row.take(hit)), geofence, sure))
        return found

    def _of_many(self, fix: Ints, slot: Ints) -> list[Found]:
        """Of fixes in crowds, the members of their child."""
        first = self.crowds.first.take(slot)
        found: list[Found] = []
        for part, row, place in _parts(first, self.crowds.first.take(slot + 1) - first):
            member = self.crowds.member.take(place)
            found.append(
                (fix[part].take(row), (member >> 1).astype(np.int64), (member & 1).astype(np.bool_))
            )
        return found

    def _find(self, fix: Ints, at: Ints, end: NDArray[np.int32], key: Words) -> tuple[Ints, Ints]:
        """Those whose key is among the blocks of its place, and that block."""
        found_fix, found_at = [], []
        while len(fix):
            same = self.key.take(at) == key
            found_fix.append(fix.compress(same))
            found_at.append(at.compress(same))
            more = np.flatnonzero(~same & (at + 1 < end))
            fix, at, end, key = fix[more], at[more] + 1, end[more], key[more]
        if not found_fix:
            return fix, at
        return np.concatenate(found_fix), np.concatenate(found_at)

    def candidates_of_one(self, cell: int, brand: int) -> list[tuple[int, bool]]:
        """`candidates` of one fix, without arrays: positions and whether they are sure."""
        place = cell >> 45 - 3 * self.level & (1 << 7 + 3 * self.level) - 1
        key = place << BRAND_BITS | brand
        slot = (key * int(_SPREAD) & (1 << 64) - 1) >> int(self.shift)
        for block in range(self.directory.item(slot), self.directory.item(slot + 1)):
            if self.key.item(block) == key:
                break
        else:
            return []
        child = cell >> 39 - 3 * self.level & 63
        number = self.crowds.number.item(block)
        if number >= 0:
            slot = 64 * number + child
            begin, end = self.crowds.first.item(slot), self.crowds.first.item(slot + 1)
            members = self.crowds.member[begin:end].tolist()
            return [(member >> 1, bool(member & 1)) for member in members]
        bit, found = 1 << child, []
        for entry in range(self.first.item(block), self.first.item(block + 1)):
            if self.touched.item(entry) & bit:
                sure = bool(self.interior.item(entry) & bit)
                found.append((self.geofence.item(entry), sure))
        return found


Found = tuple[Ints, Ints, NDArray[np.bool_]]
"""Candidates' columns."""


def _parts(
    first: NDArray[np.int32], count: NDArray[np.int32]
) -> Iterator[tuple[slice, Ints, Ints]]:
    """`spread` in parts that fit the cache: which rows, and the two arrays for them."""
    ends = np.cumsum(count, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(_AT_ONCE, total, _AT_ONCE)).tolist()
    for start, stop in itertools.pairwise([0, *cuts, len(count)]):
        part = slice(start, stop)
        yield part, *spread(first[part], count[part])

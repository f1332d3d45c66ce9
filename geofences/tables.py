"""From a fix's cell to the geofences it may lie in: a hash table of blocks. It tests no edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofences.blocks import BRAND_BITS, Entries, starts_of
from geofences.candidates import INSIDE, OPEN, Candidates
from geofences.compiled import compiled
from geofences.prefetch import ahead
from geofences.ragged import Ints, Words, spread

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 / golden ratio, odd: multiplying by it scatters keys and maps no two to one (D. Knuth,
The Art of Computer Programming 3, 6.4)."""

_CROWD = 8  # entries of a block from which each of its children gets a list of its own
_TILE = 256  # fixes that are looked up side by side; their names stay in the first-level cache
_ONE, _BRAND_BITS = np.uint64(1), np.uint64(BRAND_BITS)
_MARKS = _ONE << np.arange(7, 7 + 3 * 11, 3, dtype=np.uint64)
"""The 1 before a block's digits, by level: what tells levels apart."""


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
    """The blocks of all levels: a hash table in arrays, ordered by hash, with a directory."""

    levels: Ints  # that have blocks, ascending
    finest: int  # of them; 0 for none
    shift: int  # of a hash to its place in the directory
    directory: NDArray[np.int32]  # the first block at or after each place
    key: Words
    first: NDArray[np.int32]  # of the block's entries
    geofence: NDArray[np.int32]
    touched: Words
    interior: Words
    crowds: _Crowds

    @classmethod
    def of(cls, entries: Entries, brand: Ints) -> Table:
        """`brand` is the rank of each geofence's, by position."""
        key = _keys(entries.level, entries.place, brand.take(entries.geofence))
        order = np.argsort(key * _SPREAD)
        key = key[order]
        starts = starts_of(key, key)
        # Twice as many places as blocks: most fixes away from all geofences find an empty one.
        width = max(1, int(len(starts) * 2 - 1).bit_length())
        place = ((key[starts] * _SPREAD) >> np.uint64(64 - width)).astype(np.int64)
        directory = np.zeros((1 << width) + 1, np.int32)
        np.cumsum(np.bincount(place, minlength=1 << width), out=directory[1:])
        first = np.append(starts, len(key))
        geofence = entries.geofence.astype(np.int32)[order]
        touched, interior = entries.touched[order], entries.interior[order]
        levels = np.flatnonzero(np.bincount(entries.level))
        return cls(
            levels=levels,
            finest=int(levels.max(initial=0)),
            shift=64 - width,
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
        name = np.repeat(self.key >> _BRAND_BITS, np.diff(self.first))
        level = (np.searchsorted(_MARKS, name, "right") - 1).astype(np.uint8)
        geofence = self.geofence.astype(np.int64)
        return Entries(level, name ^ _MARKS[level], geofence, self.touched, self.interior)

    def candidates(self, cells: Words, brand: Ints, brands: Ints) -> Candidates:
        """For fixes by their cell, at the finest level + 2 or finer, and their brand.

        `brand` has one for all or one each; `brands` are those that ranks stand for.
        """
        block, crowds = np.empty(len(cells) * len(self.levels), np.int32), self.crowds
        most = _find(
            *(cells, brand, brands, self.levels, self.shift, self.directory, self.key, self.first),
            block,
        )
        found = Candidates.room(most)
        if not most:
            return found
        count = _list(
            *(cells, self.levels, block, self.first, self.geofence, self.touched, self.interior),
            *(crowds.number, crowds.first, crowds.member),
            *(found.fix, found.geofence, found.verdict),
        )
        return found.first(count)


def _keys(level: NDArray[np.uint8], place: Words, rank: Ints) -> Words:
    """Of blocks, no two the same: a 1, the block's digits, its brand."""
    return (place | _MARKS[level]) << _BRAND_BITS | rank.astype(np.uint64)


@compiled
def _name(cell: np.uint64, level: int, rank: int) -> np.uint64:
    """The key of the block that holds a cell, as `_keys`."""
    digits = np.uint64(7 + 3 * level)
    place = cell >> (np.uint64(52) - digits) & ((_ONE << digits) - _ONE)
    return (place | _ONE << digits) << _BRAND_BITS | np.uint64(rank)


@compiled
def _child(cell: np.uint64, level: int) -> int:
    """Which of its block's children holds a cell: 0 to 63."""
    return int(cell >> np.uint64(39 - 3 * level) & np.uint64(63))


@compiled
def _find(
    cells: Words,
    brand: Ints,
    brands: Ints,
    levels: Ints,
    shift: int,
    directory: NDArray[np.int32],
    key: Words,
    first: NDArray[np.int32],
    block: NDArray[np.int32],
) -> int:
    """Fills in each fix's block of each level, or -1; how many candidates they list at most."""
    most, ones = 0, len(levels)
    names = np.empty(min(_TILE, len(cells)) * ones, np.uint64)
    rank = 0
    # In passes: each asks for the places in memory that the next one reads.
    for start in range(0, len(cells), _TILE):
        stop = min(start + _TILE, len(cells))
        for fix in range(start, stop):
            own = brand[fix if len(brand) > 1 else 0]
            if fix == 0 or len(brand) > 1:
                rank = np.searchsorted(brands, own)
            known = rank < len(brands) and brands[rank] == own
            for number in range(ones):
                name = _name(cells[fix], levels[number], rank)
                names[(fix - start) * ones + number] = name if known else np.uint64(0)
        for place in range(start * ones, stop * ones):
            slot = names[place - start * ones] * _SPREAD >> np.uint64(shift)
            block[place] = directory[slot] if directory[slot] < directory[slot + _ONE] else -1
            ahead(key, block[place])
            ahead(first, block[place])
        for place in range(start * ones, stop * ones):
            at, name = block[place], names[place - start * ones]
            if at >= 0:
                end = directory[(name * _SPREAD >> np.uint64(shift)) + _ONE]
                while at < end and key[at] != name:
                    at += 1
                block[place] = at if at < end else -1
        for fix in range(start, stop):
            for number in range(ones):
                at = block[fix * ones + number]
                if at >= 0:
                    most += first[at + 1] - first[at]
    return most


@compiled
def _meet(
    cells: Words,
    start: int,
    levels: Ints,
    block: NDArray[np.int32],
    first: NDArray[np.int32],
    crowd: NDArray[np.int32],
    owners: Ints,
    blocks: Ints,
    children: Ints,
    slots: Ints,
) -> int:
    """Fills in a tile's blocks, each with its fix, child and, of a crowd, its slot; how many."""
    met, ones = 0, len(levels)
    for fix in range(start, min(start + _TILE, len(cells))):
        for number in range(ones):
            at = block[fix * ones + number]
            if at >= 0:
                owners[met], blocks[met] = fix, at
                children[met] = _child(cells[fix], levels[number])
                met += 1
                ahead(crowd, at)
    for each in range(met):
        at = blocks[each]
        crowded = first[at + 1] - first[at] >= _CROWD
        slots[each] = 64 * crowd[at] + children[each] if crowded else -1
    return met


@compiled
def _list(
    cells: Words,
    levels: Ints,
    block: NDArray[np.int32],
    first: NDArray[np.int32],
    geofence: NDArray[np.int32],
    touched: Words,
    interior: Words,
    crowd: NDArray[np.int32],
    child_first: NDArray[np.int32],
    member: NDArray[np.int32],
    fixes: NDArray[np.int32],
    geofences: NDArray[np.int32],
    verdicts: NDArray[np.int8],
) -> int:
    """Fills in the candidates of the blocks found, by fix; how many there are."""
    count = 0
    room = min(_TILE, len(cells)) * len(levels)
    owners, blocks, children, slots = np.empty((4, room), np.int64)
    # In passes: each asks for the places in memory that the next one reads.
    for start in range(0, len(cells), _TILE):
        found = owners, blocks, children, slots
        met = _meet(cells, start, levels, block, first, crowd, *found)
        for each in range(met):
            entry = first[blocks[each]]
            if slots[each] >= 0:
                ahead(child_first, slots[each])
            else:
                ahead(touched, entry)
                ahead(interior, entry)
                ahead(geofence, entry)
        for each in range(met):
            if slots[each] >= 0:
                ahead(member, child_first[slots[each]])
        for each in range(met):
            at, slot, child = blocks[each], slots[each], np.uint64(children[each])
            if slot >= 0:
                for one in range(child_first[slot], child_first[slot + 1]):
                    fixes[count] = owners[each]
                    geofences[count] = member[one] >> 1
                    verdicts[count] = INSIDE if member[one] & 1 else OPEN
                    count += 1
                continue
            for one in range(first[at], first[at + 1]):
                if touched[one] >> child & _ONE:
                    fixes[count] = owners[each]
                    geofences[count] = geofence[one]
                    verdicts[count] = INSIDE if interior[one] >> child & _ONE else OPEN
                    count += 1
    return count

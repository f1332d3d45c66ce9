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
_CROWDED = -1  # where a block was: of a crowd, so that its child's members are listed
_A_LINE = 2  # entries apart: of so many each lies in a line of memory that was asked for
_ONE, _BRAND_BITS = np.uint64(1), np.uint64(BRAND_BITS)
_MARKS = _ONE << np.arange(7, 7 + 3 * 11, 3, dtype=np.uint64)
"""The 1 before a block's digits, by level: what tells levels apart."""


BLOCK = np.dtype([("key", "<u8"), ("first", "<i4"), ("crowd", "<i4")])
"""A block of the table: its name, its first entry (the next block's ends them), and its number
among the crowds or -1. Read together, so they lie together: memory brings 64 bytes at a time."""

ENTRY = np.dtype([("touched", "<u8"), ("interior", "<u8"), ("geofence", "<i4")], align=True)
"""A geofence in a block, and which of the block's children it touches or holds: `blocks`."""

Blocks = NDArray[np.void]
Listed = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class _Crowds:
    """Blocks of many geofences: which of them touch each child, without asking the others."""

    first: NDArray[np.int32]  # of a child's members, by 64 * number of the crowd + child
    member: NDArray[np.int32]  # geofence << 1 | interior

    @classmethod
    def of(cls, crowd: NDArray[np.int32], first: Ints, listed: Listed) -> _Crowds:
        """`crowd` numbers the blocks that are one; `first` has one more, where the last ends."""
        some = np.flatnonzero(crowd >= 0)
        count = np.diff(first)[some]
        owner, entry = spread(first[some], count)
        touched, interior = listed["touched"][entry], listed["interior"][entry]
        bits = np.unpackbits(touched.view(np.uint8), bitorder="little").reshape(-1, 64)
        row, child = np.nonzero(bits)
        slot = owner[row] * 64 + child
        order = np.argsort(slot, kind="stable")
        row, child = row[order], child[order].astype(np.uint64)
        sure = (interior[row] >> child & _ONE).astype(np.int32)
        ends = np.cumsum(np.bincount(slot, minlength=64 * len(some)))
        return cls(
            first=np.append(0, ends).astype(np.int32),
            member=listed["geofence"][entry[row]] << 1 | sure,
        )


@dataclass(frozen=True, slots=True)
class Table:
    """The blocks of all levels: a hash table in arrays, ordered by hash, with a directory."""

    levels: Ints  # that have blocks, ascending
    finest: int  # of them; 0 for none
    shift: int  # of a hash to its place in the directory
    directory: NDArray[np.int32]  # the first block at or after each place
    blocks: Blocks  # and one more, where the last one's entries end
    listed: Listed  # entries, by block
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
        listed = np.empty(len(key), ENTRY)
        for name in ("touched", "interior", "geofence"):
            listed[name] = getattr(entries, name)[order]
        first = np.append(starts, len(key))
        crowd = np.diff(first) >= _CROWD
        blocks = np.zeros(len(first), BLOCK)
        blocks["key"][:-1] = key[starts]
        blocks["first"] = first
        blocks["crowd"][:-1] = np.where(crowd, np.cumsum(crowd) - 1, -1)
        levels = np.flatnonzero(np.bincount(entries.level))
        return cls(
            levels=levels,
            finest=int(levels.max(initial=0)),
            shift=64 - width,
            directory=directory,
            blocks=blocks,
            listed=listed,
            crowds=_Crowds.of(blocks["crowd"][:-1], first, listed),
        )

    @property
    def bytes_in_memory(self) -> int:
        columns = self.directory, self.blocks, self.listed, self.crowds.first, self.crowds.member
        return sum(column.nbytes for column in columns)

    def entries(self) -> Entries:
        """What the table was made of."""
        blocks, listed = self.blocks, self.listed
        name = np.repeat(blocks["key"][:-1] >> _BRAND_BITS, np.diff(blocks["first"]))
        level = (np.searchsorted(_MARKS, name, "right") - 1).astype(np.uint8)
        geofence = listed["geofence"].astype(np.int64)
        sets = listed["touched"], listed["interior"]
        return Entries(level, name ^ _MARKS[level], geofence, *sets)

    def candidates(self, cells: Words, brand: Ints, brands: Ints) -> Candidates:
        """For fixes by their cell, at the finest level + 2 or finer, and their brand.

        `brand` has one for all or one each; `brands` are those that ranks stand for.
        """
        block = np.empty(len(cells) * len(self.levels), np.int32)
        table = self.directory, self.blocks
        most = _find(cells, brand, brands, self.levels, self.shift, *table, block)
        found = Candidates.room(most)
        if not most:
            return found
        crowds = self.crowds.first, self.crowds.member
        met = cells, self.levels, block, self.blocks, self.listed
        count = _list(*met, *crowds, found.fix, found.geofence, found.verdict)
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
    blocks: Blocks,
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
                ahead(directory, name * _SPREAD >> np.uint64(shift))
        for place in range(start * ones, stop * ones):
            slot = names[place - start * ones] * _SPREAD >> np.uint64(shift)
            block[place] = directory[slot] if directory[slot] < directory[slot + _ONE] else -1
            ahead(blocks, block[place])
        for place in range(start * ones, stop * ones):
            at, name = block[place], names[place - start * ones]
            if at >= 0:
                end = directory[(name * _SPREAD >> np.uint64(shift)) + _ONE]
                while at < end and blocks[at]["key"] != name:
                    at += 1
                block[place] = at if at < end else -1
                if at < end:
                    most += blocks[at + 1]["first"] - blocks[at]["first"]
    return most


@compiled
def _meet(
    cells: Words,
    start: int,
    levels: Ints,
    block: NDArray[np.int32],
    blocks: Blocks,
    owners: Ints,
    places: Ints,
    children: Ints,
) -> int:
    """Fills in a tile's blocks, each with its fix and child; how many there are."""
    met, ones = 0, len(levels)
    for fix in range(start, min(start + _TILE, len(cells))):
        for number in range(ones):
            at = block[fix * ones + number]
            if at >= 0:
                owners[met], places[met] = fix, at
                children[met] = _child(cells[fix], levels[number])
                met += 1
                ahead(blocks, at)
    return met


@compiled
def _list(
    cells: Words,
    levels: Ints,
    block: NDArray[np.int32],
    blocks: Blocks,
    listed: Listed,
    child_first: NDArray[np.int32],
    member: NDArray[np.int32],
    fixes: NDArray[np.int32],
    geofences: NDArray[np.int32],
    verdicts: NDArray[np.int8],
) -> int:
    """Fills in the candidates of the blocks found, by fix; how many there are."""
    count = 0
    room = min(_TILE, len(cells)) * len(levels)
    owners, places, children, firsts, ends = np.empty((5, room), np.int64)
    # In passes: each asks for the places in memory that the next one reads.
    for start in range(0, len(cells), _TILE):
        met = _meet(cells, start, levels, block, blocks, owners, places, children)
        for each in range(met):
            at = places[each]
            if blocks[at]["crowd"] >= 0:
                places[each] = _CROWDED
                firsts[each] = 64 * blocks[at]["crowd"] + children[each]
                ahead(child_first, firsts[each])
            else:
                firsts[each], ends[each] = blocks[at]["first"], blocks[at + 1]["first"]
                for one in range(firsts[each], ends[each], _A_LINE):
                    ahead(listed, one)
        for each in range(met):
            if places[each] == _CROWDED:
                slot = firsts[each]
                firsts[each], ends[each] = child_first[slot], child_first[slot + 1]
                ahead(member, firsts[each])
        for each in range(met):
            if places[each] == _CROWDED:
                for one in range(firsts[each], ends[each]):
                    fixes[count] = owners[each]
                    geofences[count] = member[one] >> 1
                    verdicts[count] = INSIDE if member[one] & 1 else OPEN
                    count += 1
                continue
            child = np.uint64(children[each])
            # Without a branch, which would be guessed wrong every other time: what is not
            # touched is written too, and over again by the next one.
            for one in range(firsts[each], ends[each]):
                fixes[count] = owners[each]
                geofences[count] = listed[one]["geofence"]
                verdicts[count] = INSIDE if listed[one]["interior"] >> child & _ONE else OPEN
                count += 1 if listed[one]["touched"] >> child & _ONE else 0
    return count

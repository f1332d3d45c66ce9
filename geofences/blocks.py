"""H3 covers folded into blocks, as they are stored. It looks nothing up.

A *block* is a cell two resolutions coarser than the cells it tells apart, so the cells of one
geofence in one block are the bits of two words: which it touches, and which of those are interior
(bit 8 * a + b for the child with digits a, b). A cover of a hundred cells takes about five entries
of three words: the block's place (its base cell and digits), touched, interior; places ascend.
A block's key holds the brand: another brand's geofences are never even looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geofences.cells import Cover
from geofences.ragged import Ints, Pieces, Words

BRAND_BITS = 26  # 7 + 3 * 10 bits name a block
WORDS = 3  # of an entry
_ALL = np.uint64(0x007F7F7F7F7F7F7F)


def level_of(resolution: int) -> int:
    """Of the blocks for a cover's cells; 0 to 10."""
    return max(0, resolution - 2)


def places(cells: Words, level: int) -> Words:
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

    level: NDArray[np.uint8]
    place: Words
    geofence: Ints  # position
    touched: Words
    interior: Words

    @staticmethod
    def joined(many: Sequence[Entries]) -> Entries:
        return Entries(
            *(
                np.concatenate([getattr(one, name) for one in many])
                for name in ("level", "place", "geofence", "touched", "interior")
            )
        )

    @classmethod
    def of(cls, stored: Pieces, resolution: NDArray[np.uint8], geofence: Ints) -> Entries:
        """From folded covers, whose resolutions and geofences are named beside them."""
        # Copied: the words may be a small part of what a cold start received.
        place, touched, interior = stored.words.reshape(-1, WORDS).T.copy()
        count, level = stored.size // WORDS, np.maximum(resolution, 2) - np.uint8(2)
        return cls(level.repeat(count), place, geofence.repeat(count), touched, interior)

    def renumbered(self, position: Ints) -> Entries:
        """The same under other positions; without those whose new one is negative."""
        geofence = position[self.geofence]
        if geofence.min(initial=0) >= 0:
            return replace(self, geofence=geofence)
        stays = np.flatnonzero(geofence >= 0)
        return Entries(
            self.level[stays],
            self.place[stays],
            geofence[stays],
            self.touched[stays],
            self.interior[stays],
        )


def of_covers(covers: Sequence[Cover]) -> Pieces:
    """What is stored of each."""
    return folded(
        np.array([cover.resolution for cover in covers], np.uint8),
        Pieces.of([cover.interior.tobytes() for cover in covers]),
        Pieces.of([cover.boundary.tobytes() for cover in covers]),
    )


def folded(resolution: NDArray[np.integer], interior: Pieces, boundary: Pieces) -> Pieces:
    """What is stored of covers: `Cover.interior` and `Cover.boundary`, their cells ascending."""
    owner, entry = [np.empty(0, np.int64)], [np.empty((0, WORDS), np.uint64)]
    for one in np.unique(resolution).tolist():
        rows = np.flatnonzero(resolution == one)
        number, words = _folded(one, interior.rows(rows), boundary.rows(rows))
        owner.append(rows[number])
        entry.append(words)
    owners = np.concatenate(owner)
    order = np.argsort(owners, kind="stable")
    size = WORDS * np.bincount(owners, minlength=len(resolution))
    return Pieces(np.concatenate(entry)[order].ravel(), size)


def _folded(resolution: int, interior: Pieces, boundary: Pieces) -> tuple[Ints, Words]:
    """Of one resolution: for each entry, by cover and place, which cover, and its words."""
    runs = [_runs(cells, resolution) for cells in (interior, boundary)]
    owner = np.concatenate([run[0] for run in runs])
    place = np.concatenate([run[1] for run in runs])
    masks = np.zeros((2, len(owner)), np.uint64)
    masks[0] = np.concatenate([run[2] for run in runs])
    masks[1, : len(runs[0][0])] = runs[0][2]
    # Stable: two sorted halves are merged, not sorted.
    order = np.argsort((owner.astype(np.uint64) << np.uint64(37)) | place, kind="stable")
    owner, place, masks = owner[order], place[order], masks[:, order]
    starts = starts_of(owner, place)
    if len(starts):
        masks = np.bitwise_or.reduceat(masks, starts, axis=1)
    return owner[starts], np.column_stack((place[starts], *masks))


def _runs(covers: Pieces, resolution: int) -> tuple[Ints, Words, Words]:
    """Cover, block and bits; a cover's cells are ascending, so those of a block stand together."""
    level = level_of(resolution)
    cells, owner = covers.words, np.repeat(np.arange(len(covers)), covers.size)
    place = places(cells, level)
    starts = starts_of(owner, place)
    bits = _bits(cells, resolution, level)
    masks = np.bitwise_or.reduceat(bits, starts) if len(starts) else bits
    return owner[starts], place[starts], masks


def unfolded(resolution: int, stored: bytes) -> tuple[Words, Words]:
    """The cells of one stored cover: interior and boundary, ascending."""
    place, touched, interior = np.frombuffer(stored, "<u8").reshape(-1, WORDS).T
    depth = resolution - level_of(resolution)
    child = np.arange(8**depth, dtype=np.uint64)
    bit = child * np.uint64(8 ** (2 - depth))  # the first of those that stand for a child
    above = place << np.uint64(45 - 3 * level_of(resolution))
    below = child << np.uint64(45 - 3 * resolution)
    cells = above[:, None] | below | np.uint64(_cell_without_digits(resolution))
    sure = interior[:, None] >> bit & np.uint64(1) != 0
    open_ = (touched & ~interior)[:, None] >> bit & np.uint64(1) != 0
    return cells[sure], cells[open_]


def _cell_without_digits(resolution: int) -> int:
    """Mode and resolution, and ones where finer digits would be (H3's index bit layout)."""
    return 1 << 59 | resolution << 52 | (1 << 45 - 3 * resolution) - 1


def starts_of(first: NDArray[np.generic], second: NDArray[np.generic]) -> Ints:
    """Where a new pair begins."""
    if not len(first):
        return np.empty(0, np.int64)
    new = np.concatenate(([True], (first[1:] != first[:-1]) | (second[1:] != second[:-1])))
    return np.flatnonzero(new)

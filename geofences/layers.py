"""Geofences that are looked up together, a layer of a matching index. It knows no updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofences.blocks import Entries
from geofences.candidates import Candidates
from geofences.outlines import NO_SHAPES, Outlines, Packed
from geofences.ragged import NOTHING, Pieces
from geofences.surroundings import Surroundings
from geofences.tables import Table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Armed geofences column by column, any order, one id once; row i of each belongs together."""

    geofence_id: NDArray[np.int64]
    brand_id: NDArray[np.int64]
    version: NDArray[np.int64]
    resolution: NDArray[np.uint8]  # of the cover
    cover: Pieces  # blocks.folded
    shape: Packed
    settings: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # any dtype, opaque here

    @classmethod
    def none(cls, settings: Mapping[str, NDArray[Any]]) -> Columns:
        """No row, with columns of settings such as these."""
        ids = np.empty(0, np.int64)
        return cls(
            geofence_id=ids,
            brand_id=ids,
            version=ids,
            resolution=np.empty(0, np.uint8),
            cover=NOTHING,
            shape=NO_SHAPES,
            settings={name: column[:0] for name, column in settings.items()},
        )

    def __len__(self) -> int:
        return len(self.geofence_id)

    def entries(self, number: Ints) -> Entries:
        """What the covers are made of; `number` stands for each row."""
        return Entries.of(self.cover, self.resolution, number)

    def rows(self, chosen: Ints) -> Columns:
        """Some rows, in the order given."""
        return Columns(
            geofence_id=self.geofence_id[chosen],
            brand_id=self.brand_id[chosen],
            version=self.version[chosen],
            resolution=self.resolution[chosen],
            cover=self.cover.rows(chosen),
            shape=self.shape.rows(chosen),
            settings={name: column[chosen] for name, column in self.settings.items()},
        )

    def plus(self, other: Columns) -> Columns:
        """These rows, then the other's."""
        return Columns(
            geofence_id=np.concatenate((self.geofence_id, other.geofence_id)),
            brand_id=np.concatenate((self.brand_id, other.brand_id)),
            version=np.concatenate((self.version, other.version)),
            resolution=np.concatenate((self.resolution, other.resolution)),
            cover=self.cover.plus(other.cover),
            shape=self.shape.plus(other.shape),
            settings={
                name: np.concatenate((column, other.settings[name]))
                for name, column in self.settings.items()
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Geofences by ascending id, and where they are. Positions count from 0 in each layer."""

    geofence_id: Ints
    brand_id: Ints
    version: Ints
    settings: Mapping[str, NDArray[Any]]
    brands: Ints  # ascending; an entry's brand is a position here
    table: Table
    outlines: Outlines
    surroundings: Surroundings

    @classmethod
    def build(cls, portions: Iterable[Columns]) -> Layer:
        """Of all rows, at least one portion of them, which may be empty.

        A portion's shapes are put away before the next one is asked for: those of 300,000 at once
        would take a gigabyte.
        """
        seen: list[Columns] = []
        entries: list[Entries] = []
        start = 0

        def shapes() -> Iterator[Packed]:
            nonlocal start
            for portion in portions:
                number = np.arange(start, start + len(portion))
                start += len(portion)
                entries.append(portion.entries(number))
                seen.append(replace(portion, cover=NOTHING, shape=NO_SHAPES))
                yield portion.shape

        outlines = Outlines.of(shapes())
        return cls._assembled(
            np.concatenate([portion.geofence_id for portion in seen]),
            np.concatenate([portion.brand_id for portion in seen]),
            np.concatenate([portion.version for portion in seen]),
            {
                name: np.concatenate([portion.settings[name] for portion in seen])
                for name in seen[0].settings
            },
            Entries.joined(entries),
            outlines,
        )

    @classmethod
    def _assembled(
        cls,
        geofence_id: Ints,
        brand_id: Ints,
        version: Ints,
        settings: Mapping[str, NDArray[Any]],
        entries: Entries,
        outlines: Outlines,
    ) -> Layer:
        """From rows in any order, which entries and outlines name by their number."""
        order = np.argsort(geofence_id, kind="stable")
        position = np.empty(len(order), np.int64)
        position[order] = np.arange(len(order))
        brand_id, outlines = brand_id[order], outlines.permuted(order)
        brands, rank = np.unique(brand_id, return_inverse=True)
        return cls(
            geofence_id=geofence_id[order],
            brand_id=brand_id,
            version=version[order],
            settings={name: column[order] for name, column in settings.items()},
            brands=brands,
            table=Table.of(entries.renumbered(position), rank),
            outlines=outlines,
            surroundings=Surroundings.of(rank, *outlines.bounds()),
        )

    @classmethod
    def merged(cls, chosen: Sequence[tuple[Layer, Ints]]) -> Layer:
        """One layer of some positions of several; no id twice."""

        def column(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(layer, name)[rows] for layer, rows in chosen])

        entries: list[Entries] = []
        start = 0
        for layer, rows in chosen:
            number = np.full(len(layer.geofence_id), -1)
            number[rows] = np.arange(start, start + len(rows))
            start += len(rows)
            entries.append(layer.table.entries().renumbered(number))
        settings = {
            name: np.concatenate([layer.settings[name][rows] for layer, rows in chosen])
            for name in chosen[0][0].settings
        }
        outlines = Outlines.joined([(layer.outlines, rows) for layer, rows in chosen])
        return cls._assembled(
            column("geofence_id"),
            column("brand_id"),
            column("version"),
            settings,
            Entries.joined(entries),
            outlines,
        )

    def positions(self, ids: Ints) -> Ints:
        """Of these geofences; -1 where they are not here."""
        at = np.searchsorted(self.geofence_id, ids)
        at[at == len(self.geofence_id)] = 0
        known = self.geofence_id[at] == ids if len(self.geofence_id) else np.zeros(len(ids), bool)
        return np.where(known, at, -1)

    def match(
        self, cells: NDArray[np.uint64], lat: Floats, lng: Floats, brands: Ints | None
    ) -> Candidates:
        """Settled pairs, by fix where `brands` is one for all or one each; None asks for all."""
        asked = (
            [brands]
            if brands is not None
            else [self.brands[at : at + 1] for at in range(len(self.brands))]
        )
        found = Candidates.joined(
            [self.table.candidates(cells, some, self.brands) for some in asked]
        )
        self.outlines.judge(found, lat, lng)
        return found

    @property
    def finest(self) -> int:
        """The resolution of the cells to ask for."""
        return self.table.finest + 2

    def nearest(
        self, lat: float, lng: float, brand: int, count: int, alive: NDArray[np.bool_]
    ) -> tuple[Ints, Floats]:
        """The `count` of a brand that are nearest, or all it has: positions, signed metres."""
        rank = self.rank(brand)
        if rank is None:
            return np.empty(0, np.int64), np.empty(0)
        positions, distance_m = np.empty(0, np.int64), np.empty(0)
        for around, least_m, whole_m in self.surroundings.looks(lat, lng, rank):
            order = np.argsort(least_m)
            order = order[alive[around[order]]]
            positions, distance_m, looked = np.empty(0, np.int64), np.empty(0), 0
            while looked < len(order):
                some = around[order[looked : looked + 2 * count]]
                looked += len(some)
                here = np.full(len(some), lat), np.full(len(some), lng)
                positions = np.concatenate((positions, some))
                distance_m = np.concatenate((distance_m, self.outlines.distance_m(some, *here)))
                best = np.argsort(-distance_m)[:count]
                positions, distance_m = positions[best], distance_m[best]
                rest_m = least_m[order[looked]] if looked < len(order) else np.inf
                if len(best) == count and -distance_m[-1] <= rest_m:
                    break
            if len(positions) == count and -distance_m[-1] <= whole_m:
                break
        return positions, distance_m

    def rank(self, brand: int) -> int | None:
        """Where a brand stands among this layer's."""
        rank = int(np.searchsorted(self.brands, brand))
        known = rank < len(self.brands) and self.brands.item(rank) == brand
        return rank if known else None

    @property
    def bytes_in_memory(self) -> int:
        """Without the columns, which an index may share."""
        return (
            self.table.bytes_in_memory
            + self.outlines.bytes_in_memory
            + self.surroundings.bytes_in_memory
        )

"""Which geofences hold which fixes: an immutable index in memory. It reads no row and no clock.

    columns = Columns(geofence_id=…, brand_id=…, …, interior=[bytes, …], shape=[bytes, …])
    index = Index.build(columns)                       # cold start
    index = index.updated(removed=ids, added=columns)  # a publish; swap the reference
    seen = index.match(lat=lat, lng=lng, brand=brand)  # seen.fix[i] is inside seen.ordinal[i]
    index.geofence_id[seen.ordinal], index.settings["exit_buffer_m"][seen.ordinal]

A fix is turned into its H3 cell once (`lattice`), its block is looked up in a hash table of the
stored covers (`blocks`), interior cells answer at once, boundary cells ask the exact geometry
(`outlines`). None of it depends on how many geofences there are. An update leaves the large *base*
as it is, marks what is gone and builds a small *overlay* anew, so it takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

from geofences import blocks, lattice
from geofences.geometry import wrapped
from geofences.outlines import Outlines
from geofences.surroundings import Surroundings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK = 8192  # fixes whose intermediate arrays stay in the processor's cache
_FARTHEST_REFRESH_M = 50_000.0  # a phone asks again after this far, whatever lies around
_COLUMNS = ("geofence_id", "brand_id", "version", "resolution")
_BYTES = ("interior", "boundary", "shape")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Armed geofences column by column, any order, one id once; row i of each belongs together."""

    geofence_id: NDArray[np.int64]
    brand_id: NDArray[np.int64]
    version: NDArray[np.int64]
    resolution: NDArray[np.uint8]  # of the cover
    interior: Sequence[bytes]  # Cover.interior.tobytes()
    boundary: Sequence[bytes]  # Cover.boundary.tobytes()
    shape: Sequence[bytes]  # outlines.pack(shape)
    settings: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # any dtype, opaque here

    def __len__(self) -> int:
        return len(self.geofence_id)

    def rows(self, chosen: Ints) -> Columns:
        """Some rows, in the order given."""
        return Columns(
            **{name: getattr(self, name)[chosen] for name in _COLUMNS},
            **{name: [getattr(self, name)[row] for row in chosen.tolist()] for name in _BYTES},
            settings={name: column[chosen] for name, column in self.settings.items()},
        )

    def plus(self, other: Columns) -> Columns:
        """These rows, then the other's."""
        return Columns(
            **{
                name: np.concatenate((getattr(self, name), getattr(other, name)))
                for name in _COLUMNS
            },
            **{name: [*getattr(self, name), *getattr(other, name)] for name in _BYTES},
            settings={
                name: np.concatenate((column, other.settings[name]))
                for name, column in self.settings.items()
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sightings:
    """Pairs of a fix and a geofence that holds it, by fix, then geofence id."""

    fix: NDArray[np.int32]  # position in the batch
    ordinal: NDArray[np.int32]  # position in the index's columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearby:
    """Geofences around a place, best first: by how deep inside, then by how far outside."""

    ordinal: NDArray[np.int32]
    distance_m: Floats  # from the edge: positive inside, negative outside
    refresh_radius_m: float  # no geofence beyond the answer begins within this distance


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """Geofences by ascending id, and where they are. Positions count from 0 in each layer."""

    geofence_id: Ints
    brand_id: Ints
    version: Ints
    settings: Mapping[str, NDArray[Any]]
    brands: Ints  # ascending; an entry's brand is a position here
    tables: tuple[blocks.Table, ...]
    outlines: Outlines
    surroundings: Surroundings

    @classmethod
    def build(cls, columns: Columns) -> _Layer:
        columns_in_order = np.argsort(columns.geofence_id, kind="stable")
        position = np.empty(len(columns), np.int64)
        position[columns_in_order] = np.arange(len(columns))
        brands, rank = np.unique(columns.brand_id, return_inverse=True)
        levels: dict[int, list[blocks.Entries]] = {}
        for resolution in np.unique(columns.resolution).tolist():
            rows = np.flatnonzero(columns.resolution == resolution)
            entries = blocks.Entries.of(
                resolution,
                [columns.interior[row] for row in rows.tolist()],
                [columns.boundary[row] for row in rows.tolist()],
                rank[rows],
                position[rows],
            )
            levels.setdefault(blocks.level_of(resolution), []).append(entries)
        shapes = [columns.shape[row] for row in columns_in_order.tolist()]
        return cls._assembled(
            *(getattr(columns, name)[columns_in_order] for name in _COLUMNS[:3]),
            {name: column[columns_in_order] for name, column in columns.settings.items()},
            brands,
            levels,
            Outlines.of(shapes),
        )

    @classmethod
    def _assembled(
        cls,
        geofence_id: Ints,
        brand_id: Ints,
        version: Ints,
        settings: Mapping[str, NDArray[Any]],
        brands: Ints,
        levels: Mapping[int, list[blocks.Entries]],
        outlines: Outlines,
    ) -> _Layer:
        return cls(
            geofence_id=geofence_id,
            brand_id=brand_id,
            version=version,
            settings=settings,
            brands=brands,
            tables=tuple(
                blocks.Table.of(level, blocks.Entries.joined(entries))
                for level, entries in sorted(levels.items())
            ),
            outlines=outlines,
            surroundings=Surroundings.of(np.searchsorted(brands, brand_id), *outlines.bounds()),
        )

    @classmethod
    def merged(cls, chosen: Sequence[tuple[_Layer, Ints]]) -> _Layer:
        """One layer of some positions of several; no id twice."""

        def column(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(layer, name)[rows] for layer, rows in chosen])

        ids = column("geofence_id")
        order = np.argsort(ids, kind="stable")
        position = np.empty(len(ids), np.int64)
        position[order] = np.arange(len(ids))
        brand_id = column("brand_id")
        brands, rank = np.unique(brand_id, return_inverse=True)
        levels: dict[int, list[blocks.Entries]] = {}
        start = 0
        for layer, rows in chosen:
            moved = np.full(len(layer.geofence_id), -1)
            moved[rows] = np.arange(start, start + len(rows))
            for table in layer.tables:
                entries = table.entries()
                to = moved[entries.geofence]
                stays = np.flatnonzero(to >= 0)
                levels.setdefault(table.level, []).append(
                    blocks.Entries(
                        entries.place[stays],
                        rank[to[stays]],
                        position[to[stays]],
                        entries.interior[stays],
                        entries.boundary[stays],
                    )
                )
            start += len(rows)
        settings = {
            name: np.concatenate([layer.settings[name][rows] for layer, rows in chosen])[order]
            for name in chosen[0][0].settings
        }
        outlines = Outlines.joined([(layer.outlines, rows) for layer, rows in chosen])
        return cls._assembled(
            ids[order],
            brand_id[order],
            column("version")[order],
            settings,
            brands,
            levels,
            outlines.permuted(order),
        )

    def positions(self, ids: Ints) -> Ints:
        """Of these geofences; -1 where they are not here."""
        at = np.searchsorted(self.geofence_id, ids)
        at[at == len(self.geofence_id)] = 0
        known = self.geofence_id[at] == ids if len(self.geofence_id) else np.zeros(len(ids), bool)
        return np.where(known, at, -1)

    def match(self, cells: NDArray[np.uint64], lat: Floats, lng: Floats, brand: Ints) -> _Pairs:
        """`brand` as ranks in this layer, or -1 where it has none; one for all, or one each."""
        if len(brand) == 1 and brand[0] < 0:
            return _NO_PAIRS
        ranks = brand.astype(np.uint64)  # -1 becomes a rank that no block has
        found = [table.candidates(cells, ranks) for table in self.tables]
        if not found:
            return _NO_PAIRS
        fix = np.concatenate([each.fix for each in found])
        geofence = np.concatenate([each.geofence for each in found])
        inside = np.concatenate([each.sure for each in found])
        open_ = np.flatnonzero(~inside)
        at = fix[open_]
        inside[open_] = self.outlines.inside(geofence[open_], lat[at], lng[at])
        return fix[inside], geofence[inside]

    def match_one(self, cell: int, lat: float, lng: float, brand: int) -> list[int]:
        rank = self.rank(brand)
        if rank is None:
            return []
        return [
            position
            for table in self.tables
            for position, sure in table.candidates_of_one(cell, rank)
            if sure or self.outlines.holds(position, lat, lng)
        ]

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
        columns = (self.geofence_id, self.brand_id, self.version, *self.settings.values())
        return (
            sum(column.nbytes for column in columns)
            + sum(table.bytes_in_memory for table in self.tables)
            + self.outlines.bytes_in_memory
            + self.surroundings.bytes_in_memory
        )


_Pairs = tuple[Ints, Ints]
_NO_PAIRS: _Pairs = (np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Immutable: an update answers a new index that shares the old one's arrays.

    An ordinal is valid for the index that answered it, not for its successors: keep ids.
    """

    geofence_id: Ints
    brand_id: Ints
    version: Ints
    settings: Mapping[str, NDArray[Any]]
    _base: _Layer
    _overlay: _Layer
    _alive: NDArray[np.bool_]  # by ordinal
    _gone: int  # how many are not
    _added: Columns  # what the overlay was built from

    @classmethod
    def build(cls, columns: Columns) -> Self:
        """A cold start: everything that is armed."""
        nothing = columns.rows(np.empty(0, np.int64))
        return cls._over(_Layer.build(columns), np.ones(len(columns), np.bool_), nothing)

    @classmethod
    def _over(cls, base: _Layer, alive: NDArray[np.bool_], added: Columns) -> Self:
        overlay = _Layer.build(added)
        return cls(
            geofence_id=np.concatenate((base.geofence_id, overlay.geofence_id)),
            brand_id=np.concatenate((base.brand_id, overlay.brand_id)),
            version=np.concatenate((base.version, overlay.version)),
            settings={
                name: np.concatenate((column, overlay.settings[name]))
                for name, column in base.settings.items()
            },
            _base=base,
            _overlay=overlay,
            _alive=np.concatenate((alive, np.ones(len(added), np.bool_))),
            _gone=int(np.count_nonzero(~alive)),
            _added=added,
        )

    def __len__(self) -> int:
        """How many geofences are armed."""
        return len(self.geofence_id) - self._gone

    @property
    def overlay(self) -> int:
        """Changes since the last `build` or `compacted`; compact beyond some thousands."""
        return len(self._added) + self._gone

    @property
    def bytes_in_memory(self) -> int:
        """Of the arrays; exact coordinates beyond 64 MB lie in a mapped file and do not count."""
        return self._base.bytes_in_memory + self._overlay.bytes_in_memory + self._alive.nbytes

    def updated(self, *, removed: Iterable[int], added: Columns) -> Self:
        """Without `removed` ids, with `added`; an id that is there already is replaced."""
        leaving = np.union1d(np.fromiter(removed, np.int64), added.geofence_id)
        alive = self._alive[: len(self._base.geofence_id)].copy()
        gone = self._base.positions(leaving)
        alive[gone[gone >= 0]] = False
        stays = np.flatnonzero(~np.isin(self._added.geofence_id, leaving))
        return self._over(self._base, alive, self._added.rows(stays).plus(added))

    def compacted(self) -> Self:
        """The same answers without an overlay; takes seconds, meant for a background thread."""
        base = np.flatnonzero(self._alive[: len(self._base.geofence_id)])
        overlay = np.arange(len(self._added))
        whole = _Layer.merged([(self._base, base), (self._overlay, overlay)])
        nothing = self._added.rows(np.empty(0, np.int64))
        return self._over(whole, np.ones(len(whole.geofence_id), np.bool_), nothing)

    def match(
        self, *, lat: Floats, lng: Floats, brand: NDArray[np.int64] | int | None
    ) -> Sightings:
        """Every geofence of the fix's brand that holds it; `brand=None` asks for all brands.

        lat in [-90, 90], any finite lng. A point on an edge or corner is inside; a circle holds
        what is at most its radius away. The antimeridian is one line: 180 and -180 are the same.
        """
        lng = wrapped(lng)
        fix, ordinal = _joined(
            _pairs_at(start, self._match(lat[part], lng[part], _brands_of(brand, part)))
            for start in range(0, len(lat), _CHUNK)
            for part in (slice(start, start + _CHUNK),)
        )
        seam = np.flatnonzero(np.abs(lng) == 180)
        if len(seam):
            other = self._match(lat[seam], -lng[seam], _brands_of(brand, seam))
            both = np.unique(
                np.stack(_joined([(fix, ordinal), (seam[other[0]], other[1])])), axis=1
            )
            fix, ordinal = both
            fix, ordinal = self._sorted(fix, ordinal)
        return Sightings(fix=fix.astype(np.int32), ordinal=ordinal.astype(np.int32))

    def _match(self, lat: Floats, lng: Floats, brand: Ints | None) -> _Pairs:
        """One chunk, sorted; `brand` None, one for all, or one each."""
        points = lattice.unit_vectors(lat, lng)
        levels = [table.level for layer in self._layers for table in layer.tables]
        if not levels:
            return _NO_PAIRS
        cells = lattice.cells_of(lat, lng, points, max(levels) + 2)
        shift = len(self._base.geofence_id)
        base = self._base_pairs(_all_brands(self._base, cells, lat, lng, brand))
        if not len(self._added):
            return self._sorted(*base)
        fix, ordinal = _all_brands(self._overlay, cells, lat, lng, brand)
        return self._sorted(*_joined([base, (fix, ordinal + shift)]))

    @property
    def _layers(self) -> tuple[_Layer, _Layer]:
        return self._base, self._overlay

    def _base_pairs(self, pairs: _Pairs) -> _Pairs:
        if not self._gone:
            return pairs
        alive = self._alive[pairs[1]]
        return pairs[0][alive], pairs[1][alive]

    def _sorted(self, fix: Ints, ordinal: Ints) -> _Pairs:
        """By fix, then geofence id. Within a layer ordinals ascend with ids."""
        if len(self._added):
            order = np.lexsort((self.geofence_id[ordinal], fix))
            return fix[order], ordinal[order]
        both = np.sort(fix << 32 | ordinal)
        return both >> 32, both & 0xFFFFFFFF

    def match_one(self, *, lat: float, lng: float, brand: int) -> list[int]:
        """`match` for one fix without the batch's fixed cost: ordinals by geofence id."""
        if abs(lng) >= 180:
            seen = self.match(lat=np.array([lat]), lng=np.array([lng]), brand=brand)
            return seen.ordinal.tolist()
        cell = h3.latlng_to_cell(lat, lng, blocks.LEVELS[-1] + 2)
        found = self._base.match_one(cell, lat, lng, brand)
        if self._gone:
            found = [position for position in found if self._alive.item(position)]
        if len(self._added):
            shift = len(self._base.geofence_id)
            found += [shift + at for at in self._overlay.match_one(cell, lat, lng, brand)]
        if len(found) > 1:
            found.sort(key=self.geofence_id.item)
        return found

    def ordinals(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Where these geofences stand in the columns; -1 where they are not armed."""
        ids = np.asarray(ids, np.int64)
        base, overlay = (layer.positions(ids) for layer in self._layers)
        held = base >= 0
        held[held] = self._alive[base[held]]
        base = np.where(held, base, -1)
        shift = len(self._base.geofence_id)
        return np.where(overlay >= 0, overlay + shift, base).astype(np.int32)

    def distance_m(self, *, ordinal: NDArray[np.int32], lat: Floats, lng: Floats) -> Floats:
        """Metres to the edge, pair by pair: positive inside, negative outside.

        `Outlines.distance_m` says how exact it is.
        """
        distance, lng, shift = np.empty(len(ordinal)), wrapped(lng), len(self._base.geofence_id)
        for layer, rows, start in (
            (self._base, np.flatnonzero(ordinal < shift), 0),
            (self._overlay, np.flatnonzero(ordinal >= shift), shift),
        ):
            position = ordinal[rows].astype(np.int64) - start
            distance[rows] = layer.outlines.distance_m(position, lat[rows], lng[rows])
        return distance

    def nearby(self, *, lat: float, lng: float, brand: int, limit: int) -> Nearby:
        """The `limit` geofences of a brand nearest to a place."""
        shift, lng = len(self._base.geofence_id), float(wrapped(np.float64(lng)))
        found = [
            self._base.nearest(lat, lng, brand, limit + 1, self._alive),
            self._overlay.nearest(lat, lng, brand, limit + 1, self._alive[shift:]),
        ]
        ordinal = np.concatenate((found[0][0], found[1][0] + shift))
        distance_m = np.concatenate((found[0][1], found[1][1]))
        best = np.lexsort((self.geofence_id[ordinal], -distance_m))
        refresh_m = _FARTHEST_REFRESH_M
        if len(best) > limit:
            refresh_m = min(refresh_m, max(0.0, -float(distance_m[best[limit]])))
        best = best[:limit]
        return Nearby(
            ordinal=ordinal[best].astype(np.int32),
            distance_m=distance_m[best],
            refresh_radius_m=refresh_m,
        )


def _brands_of(brand: Ints | int | None, part: slice | Ints) -> Ints | None:
    if brand is None:
        return None
    return brand[part] if isinstance(brand, np.ndarray) else np.array([brand])


def _all_brands(
    layer: _Layer, cells: NDArray[np.uint64], lat: Floats, lng: Floats, brand: Ints | None
) -> _Pairs:
    if brand is None:
        return _joined(
            layer.match(cells, lat, lng, np.array([rank])) for rank in range(len(layer.brands))
        )
    if not len(layer.brands):
        return _NO_PAIRS
    rank = np.minimum(np.searchsorted(layer.brands, brand), len(layer.brands) - 1)
    return layer.match(cells, lat, lng, np.where(layer.brands[rank] == brand, rank, -1))


def _pairs_at(start: int, pairs: _Pairs) -> _Pairs:
    return pairs[0] + start, pairs[1]


def _joined(many: Iterable[_Pairs]) -> _Pairs:
    pairs = [_NO_PAIRS, *many]
    return np.concatenate([fix for fix, _ in pairs]), np.concatenate([at for _, at in pairs])

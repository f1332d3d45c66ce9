"""Which geofences hold which fixes: an immutable index in memory. It reads no row and no clock.

    columns = Columns(geofence_id=…, brand_id=…, …, cover=Pieces.of([bytes, …]), …)
    index = Index.build([columns])                     # cold start, by the portion
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
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geofences import lattice
from geofences.candidates import OUTSIDE, Candidates, Shorts
from geofences.geometry import wrapped
from geofences.layers import Columns, Layer
from geofences.outlines import Packed
from geofences.ragged import Pieces

__all__ = ["Columns", "Index", "Nearby", "Packed", "Pieces", "Sightings"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MANY = 512  # fixes from which sorting them by place pays: what one needs, the next finds cached
_FARTHEST_REFRESH_M = 50_000.0  # a phone asks again after this far, whatever lies around


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
class Index:
    """Immutable: an update answers a new index that shares the old one's arrays.

    An ordinal is valid for the index that answered it, not for its successors: keep ids.
    """

    geofence_id: Ints
    brand_id: Ints
    version: Ints
    settings: Mapping[str, NDArray[Any]]
    _base: Layer
    _overlay: Layer
    _alive: NDArray[np.bool_]  # by ordinal
    _gone: int  # how many are not
    _added: Columns  # what the overlay was built from

    @classmethod
    def build(cls, portions: Iterable[Columns]) -> Self:
        """A cold start: everything that is armed, in at least one portion."""
        base = Layer.build(portions)
        nothing = Columns.none(base.settings)
        return cls._over(base, np.ones(len(base.geofence_id), np.bool_), nothing)

    @classmethod
    def _over(cls, base: Layer, alive: NDArray[np.bool_], added: Columns) -> Self:
        overlay = Layer.build([added])
        layers = [base, overlay] if len(added) else [base]
        return cls(
            geofence_id=_column([layer.geofence_id for layer in layers]),
            brand_id=_column([layer.brand_id for layer in layers]),
            version=_column([layer.version for layer in layers]),
            settings={
                name: _column([layer.settings[name] for layer in layers]) for name in base.settings
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
        columns = [
            column
            for each in (self, self._base, self._overlay)
            for column in (each.geofence_id, each.brand_id, each.version, *each.settings.values())
        ]
        distinct = {id(column): column.nbytes for column in (*columns, self._alive)}
        return sum(distinct.values()) + sum(
            layer.bytes_in_memory for layer in (self._base, self._overlay)
        )

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
        whole = Layer.merged([(self._base, base), (self._overlay, overlay)])
        nothing = self._added.rows(np.empty(0, np.int64))
        return self._over(whole, np.ones(len(whole.geofence_id), np.bool_), nothing)

    def match(
        self, *, lat: Floats, lng: Floats, brand: NDArray[np.int64] | int | None
    ) -> Sightings:
        """Every geofence of the fix's brand that holds it; `brand=None` asks for all brands.

        lat in [-90, 90], any finite lng. A point on an edge or corner is inside; a circle holds
        what is at most its radius away. The antimeridian is one line: 180 and -180 are the same.
        """
        lat, lng = np.ascontiguousarray(lat, np.float64), np.ascontiguousarray(lng, np.float64)
        brands = None if brand is None else np.ascontiguousarray(brand, np.int64)
        if lattice.meets_antimeridian(lng):
            fix, ordinal = self._held_on_both_sides(lat, wrapped(lng), brands)
        else:
            fix, ordinal = self._held(lat, lng, brands)
        return Sightings(fix=fix, ordinal=ordinal)

    def _held(self, lat: Floats, lng: Floats, brands: Ints | None) -> tuple[Shorts, Shorts]:
        """By fix, then geofence id; `brands` None, one for all, or one each."""
        cells = lattice.cells_at(lat, lng, max(self._base.finest, self._overlay.finest))
        if len(lat) < _MANY:
            return self._found(cells, lat, lng, brands).held(len(lat), self.geofence_id)
        order = np.argsort(cells)
        own = brands if brands is None or len(brands) == 1 else brands[order]
        found = self._found(cells[order], lat[order], lng[order], own)
        return found.of(order).held(len(lat), self.geofence_id)

    def _held_on_both_sides(
        self, lat: Floats, lng: Floats, brands: Ints | None
    ) -> tuple[Shorts, Shorts]:
        """The same where some may lie on the antimeridian, which has two longitudes."""
        seam = np.flatnonzero(np.abs(lng) == 180)
        own = brands if brands is None or len(brands) == 1 else brands[seam]
        other, there = self._held(lat[seam], -lng[seam], own)
        mirrored = seam[other].astype(np.int32), there
        return _either(self._held(lat, lng, brands), mirrored, self.geofence_id)

    def _found(
        self, cells: NDArray[np.uint64], lat: Floats, lng: Floats, brands: Ints | None
    ) -> Candidates:
        found = self._base.match(cells, lat, lng, brands)
        if self._gone:
            found.verdict[~self._alive[found.geofence]] = OUTSIDE
        if not len(self._added):
            return found
        added = self._overlay.match(cells, lat, lng, brands)
        added.geofence[:] += len(self._base.geofence_id)
        return Candidates.joined([found, added])

    def ordinals(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Where these geofences stand in the columns; -1 where they are not armed."""
        ids = np.asarray(ids, np.int64)
        base = self._base.positions(ids)
        if self._gone:
            held = base >= 0
            held[held] = self._alive[base[held]]
            base = np.where(held, base, -1)
        if len(self._added):
            overlay = self._overlay.positions(ids)
            base = np.where(overlay >= 0, overlay + len(self._base.geofence_id), base)
        return base.astype(np.int32)

    def distance_m(self, *, ordinal: NDArray[np.int32], lat: Floats, lng: Floats) -> Floats:
        """Metres to the edge, pair by pair: positive inside, negative outside.

        `Outlines.distance_m` says how exact it is.
        """
        distance, lng, shift = np.empty(len(ordinal)), wrapped(lng), len(self._base.geofence_id)
        for layer, rows, start in (
            (self._base, np.flatnonzero(ordinal < shift), 0),
            (self._overlay, np.flatnonzero(ordinal >= shift), shift),
        ):
            if len(rows):
                position = ordinal[rows].astype(np.int64) - start
                distance[rows] = layer.outlines.distance_m(position, lat[rows], lng[rows])
        return distance

    def nearby(self, *, lat: float, lng: float, brand: int, limit: int) -> Nearby:
        """The `limit` geofences of a brand nearest to a place."""
        shift, lng = len(self._base.geofence_id), float(wrapped(np.array(lng)))
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


def _either(
    some: tuple[Shorts, Shorts], others: tuple[Shorts, Shorts], geofence_id: Ints
) -> tuple[Shorts, Shorts]:
    """Both, each pair once, in the order of sightings."""
    fix, ordinal = np.unique(np.concatenate((some, others), axis=1), axis=1)
    order = np.lexsort((geofence_id[ordinal], fix))
    return fix[order], ordinal[order]


def _column(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

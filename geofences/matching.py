"""Which geofences hold which fixes: an immutable index in memory. It reads no row and no clock.

    columns = Columns(geofence_id=…, brand_id=…, …, interior=[bytes, …], shape=[bytes, …])
    index = Index.build(columns)                       # cold start
    index = index.updated(removed=ids, added=columns)  # a publish; swap the reference
    seen = index.match(lat=lat, lng=lng, brand=brand)  # seen.fix[i] is inside seen.ordinal[i]
    index.geofence_id[seen.ordinal], index.settings["exit_buffer_m"][seen.ordinal]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sightings:
    """Pairs of a fix and a geofence that holds it, by fix, then geofence id."""

    fix: NDArray[np.int32]  # position in the batch
    ordinal: NDArray[np.int32]  # position in the index's columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearby:
    """Geofences around a place, best first (inside ones before others, then by distance)."""

    ordinal: NDArray[np.int32]
    distance_m: NDArray[np.float64]  # from the edge: positive inside, negative outside
    refresh_radius_m: float  # how far one may move before the answer may miss something


class Index:
    """Immutable: an update answers a new index that shares the old one's arrays.

    An ordinal is valid for the index that answered it, not for its successors: keep ids.
    """

    geofence_id: NDArray[np.int64]
    brand_id: NDArray[np.int64]
    version: NDArray[np.int64]
    settings: Mapping[str, NDArray[Any]]

    @classmethod
    def build(cls, columns: Columns) -> Index:
        """A cold start: everything that is armed."""
        raise NotImplementedError

    def __len__(self) -> int:
        """How many geofences are armed."""
        raise NotImplementedError

    @property
    def overlay(self) -> int:
        """Changes since the last `build` or `compacted`; compact beyond some thousands."""
        raise NotImplementedError

    def updated(self, *, removed: Sequence[int], added: Columns) -> Index:
        """Without `removed` ids, with `added`; an id that is there already is replaced."""
        raise NotImplementedError

    def compacted(self) -> Index:
        """The same answers without an overlay; takes seconds, meant for a background thread."""
        raise NotImplementedError

    def match(
        self,
        *,
        lat: NDArray[np.float64],
        lng: NDArray[np.float64],
        brand: NDArray[np.int64] | int | None,
    ) -> Sightings:
        """Every geofence of the fix's brand that holds it; `brand=None` asks for all brands.

        lat in [-90, 90], any finite lng. A point on an edge or corner is inside; a circle holds
        what is at most its radius away.
        """
        raise NotImplementedError

    def match_one(self, *, lat: float, lng: float, brand: int) -> list[int]:
        """`match` for one fix without the batch's fixed cost: ordinals by geofence id."""
        raise NotImplementedError

    def ordinals(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Where these geofences stand in the columns; -1 where they are not armed."""
        raise NotImplementedError

    def distance_m(
        self, *, ordinal: NDArray[np.int32], lat: NDArray[np.float64], lng: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Metres to the edge, pair by pair: positive inside, negative outside."""
        raise NotImplementedError

    def nearby(self, *, lat: float, lng: float, brand: int, limit: int) -> Nearby:
        """The `limit` geofences of a brand nearest to a place."""
        raise NotImplementedError

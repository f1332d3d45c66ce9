"""What lies around a place, brand by brand: candidates by rough distance. It knows no edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofences.geometry import EARTH_RADIUS_M, great_circle_m

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_WIDE_M = 20_000.0  # geofences that reach farther are looked at on every question
_FIRST_LOOK_M = 5_000.0
_METRES_A_DEGREE = np.radians(1) * EARTH_RADIUS_M


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Middles of geofences, those of a brand side by side from south to north, wide ones last."""

    order: NDArray[np.int32]  # positions
    lat: NDArray[np.float32]
    lng: NDArray[np.float32]
    reach_m: NDArray[np.float32]  # from there, rounding included
    first: Ints  # by brand: where its rows begin; one more for the end
    wide: Ints  # by brand: where its wide ones begin

    @classmethod
    def of(cls, brand: Ints, lat: Floats, lng: Floats, reach_m: Floats) -> Surroundings:
        wide = reach_m > _WIDE_M
        order = np.lexsort((lat, wide, brand))
        brands = int(brand.max()) + 1 if len(brand) else 0
        first = np.searchsorted(brand[order], np.arange(brands + 1))
        narrow = np.bincount(brand[~wide], minlength=brands) if brands else np.empty(0, np.int64)
        return cls(
            order=order.astype(np.int32),
            lat=lat[order].astype(np.float32),
            lng=lng[order].astype(np.float32),
            # A float32 of a longitude is off by 8e-6 degrees at most: 0.9 m.
            reach_m=(reach_m[order] * 1.001 + 2).astype(np.float32),
            first=first,
            wide=first[:-1] + narrow,
        )

    @property
    def bytes_in_memory(self) -> int:
        return self.order.nbytes + self.lat.nbytes + self.lng.nbytes + self.reach_m.nbytes

    def looks(self, lat: float, lng: float, brand: int) -> Iterator[tuple[Ints, Floats, float]]:
        """Ever wider: positions, the least distance each may be away, and how far that is all.

        The last one has every geofence of the brand and an infinite distance.
        """
        begin, end, wide = int(self.first[brand]), int(self.first[brand + 1]), int(self.wide[brand])
        middles = self.lat[begin:wide]
        look_m = _FIRST_LOOK_M
        while True:
            half = (look_m + _WIDE_M * 1.002) / _METRES_A_DEGREE
            south, north = np.searchsorted(middles, [lat - half, lat + half])
            rows = np.concatenate((np.arange(begin + south, begin + north), np.arange(wide, end)))
            middle_lat, middle_lng = self.lat[rows].astype(np.float64), self.lng[rows].astype(float)
            away_m = great_circle_m(middle_lat, middle_lng, np.array(lat), np.array(lng))
            least_m = away_m - self.reach_m[rows]
            complete = north - south == wide - begin
            yield self.order[rows].astype(np.int64), least_m, np.inf if complete else look_m
            if complete:
                return
            look_m *= 3

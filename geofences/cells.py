"""From a geometry to the H3 cells that cover it. It stores nothing and answers no fix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofences.geometry import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """The cells of one geofence, ascending, little-endian uint64 (`.tobytes()` is what is stored).

    A point whose cell is in `interior` is inside; one in `boundary` needs the exact test; one in
    neither is outside.
    """

    resolution: int
    interior: NDArray[np.uint64]
    boundary: NDArray[np.uint64]


def cover(shape: Shape) -> Cover:
    """Cover a normalised shape with about 20 to 300 cells."""
    raise NotImplementedError


def cells_at(
    lat: NDArray[np.float64], lng: NDArray[np.float64], resolution: int
) -> NDArray[np.uint64]:
    """`h3.latlng_to_cell` for arrays."""
    raise NotImplementedError

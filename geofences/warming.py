"""Has matching's compiled code at hand before a fix waits for it. It reads no row.

python -m geofences.warming    # once after an installation: some seconds
"""

from __future__ import annotations

from functools import cache

import numpy as np
import shapely

from geofences import blocks, cells, copied, outlines
from geofences.geometry import Circle, normalise
from geofences.matching import Columns, Index, Packed, Pieces

__all__ = ["warm"]


@cache
def warm() -> None:
    """Read it from disk, or make it: one question of each kind, to one geofence of each kind."""
    square = normalise(shapely.box(24.0, 60.0, 24.01, 60.01))
    disc = Circle(lat=60.0, lng=24.0, radius_m=500.0)
    covers = cells.covers([square, disc])
    ids = np.arange(2)
    index = Index.build(
        [
            Columns(
                geofence_id=ids,
                brand_id=np.ones(2, np.int64),
                version=ids,
                resolution=np.array([cover.resolution for cover in covers], np.uint8),
                cover=blocks.of_covers(covers),
                shape=Packed.of(Pieces.of([outlines.pack(square), outlines.pack(disc)])),
            )
        ]
    )
    lat, lng = np.array([60.0, 60.001]), np.array([24.0, 24.001])
    index.match(lat=lat, lng=lng, brand=1)
    index.distance_m(ordinal=np.array([0, 1], np.int32), lat=lat, lng=lng)
    copied.taken_apart([])


if __name__ == "__main__":
    warm()

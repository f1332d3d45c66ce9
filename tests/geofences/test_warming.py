"""Once warm, no fix waits for a compiler."""

from __future__ import annotations

import numpy as np

from geofences import candidates, copied, icosahedron, lattice, outlines, tables
from geofences.geometry import circle
from geofences.matching import Index
from geofences.warming import warm
from tests.geofences.shapes import columns_of
from tests.geofences.test_copied import Row, message
from tests.geofences.test_matching import SQUARE


def compiled() -> dict[str, int]:
    """For how many kinds of arguments each compiled function has been made."""
    return {
        f"{module.__name__}.{name}": len(each.signatures)
        for module in (candidates, copied, icosahedron, lattice, outlines, tables)
        for name, each in vars(module).items()
        if hasattr(each, "signatures") and each.__module__ == module.__name__
    }


def test_it_compiles_nothing_more_once_it_is_warm() -> None:
    warm()
    before = compiled()
    shapes = [SQUARE, circle(lat=60.17, lng=24.94, radius_m=100)]
    index = Index.build([columns_of(shapes)]).updated(
        removed=[], added=columns_of(shapes, ids=[7, 8])
    )
    fixes = np.zeros(600, [("lat", "<f8"), ("lng", "<f8"), ("more", "<i4")])
    fixes["lat"], fixes["lng"] = 60.165, np.linspace(24.92, 24.96, 600)
    brand = np.broadcast_to(np.int64(1), 600)

    seen = index.match(lat=fixes["lat"], lng=fixes["lng"], brand=brand)
    index.match(lat=np.array([60.165]), lng=np.array([180.0]), brand=None)
    index.distance_m(ordinal=seen.ordinal[:5], lat=fixes["lat"][:5], lng=fixes["lng"][:5])

    copied.taken_apart([message(Row())])

    assert sum(before.values()) > 5
    assert len(seen.fix) > 100
    assert compiled() == before

"""The benchmarks' world: geofences and places, made of dice with fixed seeds, nobody's data."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

Boxes = dict[str, tuple[float, float, float, float]]
HOMES: Boxes = {
    # south, west, north, east
    "country": (43.0, -1.0, 49.0, 7.0),  # about the size of France
    "city": (48.72, 2.15, 48.99, 2.56),  # 30 km by 30 km
    # A thousandth of the country: a thousand geofences here are as dense as a million there.
    "district": (45.9051, 2.8735, 46.0949, 3.1265),
}
METRES_A_DEGREE = 111_195.0


def places(count: int, *, home: str, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes and longitudes, evenly over the home."""
    dice = np.random.default_rng(seed)
    south, west, north, east = HOMES[home]
    return dice.uniform(south, north, count), dice.uniform(west, east, count)


def polygons(
    count: int,
    *,
    home: str,
    seed: int,
    vertices: tuple[int, int] = (6, 200),
    radius_m: tuple[float, float] = (50.0, 800.0),
) -> NDArray[Any]:
    """Star-shaped polygons of `vertices` corners, 50 to 800 m from their middles."""
    dice = np.random.default_rng(seed)
    lat, lng = places(count, home=home, seed=seed)
    corners = dice.integers(vertices[0], vertices[1] + 1, count)
    ends = np.cumsum(corners)
    owner = np.repeat(np.arange(count), corners)
    turn = np.arange(int(ends[-1])) - np.repeat(ends - corners, corners)
    angle = 2 * np.pi * turn / corners[owner]
    reach_m = dice.uniform(*radius_m, count)[owner] * dice.uniform(0.7, 1.0, len(owner))
    y = lat[owner] + reach_m * np.sin(angle) / METRES_A_DEGREE
    x = lng[owner] + reach_m * np.cos(angle) / (METRES_A_DEGREE * np.cos(np.radians(lat[owner])))
    rings = shapely.linearrings(np.column_stack((x, y)), indices=owner)
    return np.asarray(shapely.polygons(rings))

"""Named places of the tests: one shop in Helsinki and points around it (WGS84 degrees)."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    lat: float
    lng: float


SHOP = Place(60.1699, 24.9384)
SHOP_RADIUS_M = 100.0
AT_THE_DOOR = Place(60.1702, 24.9386)  # some 35 m from SHOP: inside
AT_THE_EDGE = Place(60.17075, 24.9384)  # some 95 m: inside, but not surely
ACROSS_THE_STREET = Place(60.1710, 24.9384)  # some 122 m: just outside
DOWN_THE_ROAD = Place(60.1750, 24.9384)  # some 570 m: outside
ACROSS_TOWN = Place(60.2100, 24.9700)  # some 5 km

"""How likely a place notices who goes through: against walks that are walked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Point, box

from geofences.noticing import DOUBT_M, chance, radius_of


def walked(radius_m: float, between_m: float) -> float:
    """The share of 40,000 walks across that report inside: offset and first report at random."""
    random = np.random.default_rng(1)
    offset = random.uniform(0, radius_m, 40_000)
    half = np.sqrt(radius_m**2 - offset**2)
    first = random.uniform(0, between_m, 40_000)  # from where the way through begins
    return float(np.mean(first <= 2 * half))


@given(radius_m=st.floats(10, 5_000), speed_mps=st.floats(0.5, 40), every_s=st.integers(5, 900))
def test_it_is_the_share_of_walks_that_report_inside(
    radius_m: float, speed_mps: float, every_s: int
) -> None:
    told = chance(radius_m, speed_mps=speed_mps, every_s=every_s)
    assert told == pytest.approx(walked(radius_m - DOUBT_M, speed_mps * every_s), abs=0.02)


def test_a_place_smaller_than_the_doubt_notices_nobody() -> None:
    assert chance(DOUBT_M, speed_mps=1, every_s=1) == 0


@given(radius_m=st.floats(1, 10_000))
def test_a_disc_is_as_large_as_itself(radius_m: float) -> None:
    disc = Point(0, 0).buffer(radius_m, quad_segs=256)
    assert radius_of(disc.area, disc.length) == pytest.approx(radius_m, rel=1e-3)


def test_a_long_place_is_as_large_as_it_is_wide_on_the_way() -> None:
    street = box(0, 0, 1_000, 20)
    assert radius_of(street.area, street.length) == pytest.approx(19.6, abs=0.1)
    assert radius_of(0, 0) == 0

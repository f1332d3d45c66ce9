"""Covers folded and unfolded again are the same covers, at every resolution."""

from __future__ import annotations

import importlib

import h3.api.basic_int as h3
import numpy as np
import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geofences import blocks
from geofences.matching import Pieces

migration = importlib.import_module("geofences.migrations.0008_fold_covers")

Cells = NDArray[np.uint64]


@st.composite
def some_covers(draw: st.DrawFn) -> tuple[int, Cells, Cells]:
    """Cells around a place, pentagons among them: each interior, boundary or neither."""
    resolution = draw(st.integers(0, 12))
    pentagons = [h3.get_pentagons(resolution)[number] for number in (0, 7)]
    lat, lng = draw(st.floats(-90, 90)), draw(st.floats(-180, 180))
    middle = draw(st.sampled_from([h3.latlng_to_cell(lat, lng, resolution), *pentagons]))
    around = sorted(h3.grid_disk(middle, draw(st.integers(0, 5))))
    kind = draw(st.lists(st.integers(0, 2), min_size=len(around), max_size=len(around)))
    interior, boundary = (
        np.array([cell for cell, one in zip(around, kind, strict=True) if one == wanted], "<u8")
        for wanted in (1, 2)
    )
    return resolution, interior, boundary


@given(st.lists(some_covers(), max_size=5))
def test_it_unfolds_what_it_folded(covers: list[tuple[int, Cells, Cells]]) -> None:
    resolutions = np.array([resolution for resolution, _, _ in covers], np.uint8)
    interior = Pieces.of([cells.tobytes() for _, cells, _ in covers])
    boundary = Pieces.of([cells.tobytes() for _, _, cells in covers])

    stored = list(blocks.folded(resolutions, interior, boundary))

    for (resolution, sure, open_), one in zip(covers, stored, strict=True):
        again = blocks.unfolded(resolution, one)
        assert again[0].tolist() == sure.tolist()
        assert again[1].tolist() == open_.tolist()


@given(some_covers())
def test_it_folds_as_the_rows_of_earlier_versions_were(cover: tuple[int, Cells, Cells]) -> None:
    resolution, *cells = cover
    interior, boundary = (Pieces.of([one.tobytes()]) for one in cells)

    (stored,) = blocks.folded(np.array([resolution]), interior, boundary)

    assert migration.folded(resolution, *(one.tobytes() for one in cells)) == stored


@pytest.mark.django_db
def test_it_stores_a_cover_within_its_row() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reloptions, (SELECT array_agg(attstorage) FROM pg_attribute"
            " WHERE attrelid = pg_class.oid AND attname IN ('blocks', 'shape'))"
            " FROM pg_class WHERE relname = 'geofences_geofencecover'"
        )
        assert cursor.fetchone() == (["toast_tuple_target=8160"], ["e", "e"])

"""What is armed is what the index holds, however far apart the rows' numbers lie."""

from __future__ import annotations

import numpy as np
import pytest
from django.db import connection

from geofences import armed
from tests.factories import make_brand, make_circle
from tests.places import SHOP

pytestmark = pytest.mark.django_db


def skip_ids(count: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT setval(seq, nextval(seq) + %s)"
            " FROM pg_get_serial_sequence('geofences_geofence', 'id') seq",
            [count],
        )


def test_it_loads_nothing_where_nothing_is_armed() -> None:
    make_circle(make_brand(), track_visits=False)

    assert len(armed.load().index) == 0


def test_it_loads_geofences_of_several_portions() -> None:
    brand = make_brand()
    near = make_circle(brand, exit_buffer_m=31)
    skip_ids(3 * armed.PORTION)
    far = make_circle(brand, exit_buffer_m=32, dwell_s=60)

    snapshot = armed.load()

    index = snapshot.index
    at_the_shop = np.array([SHOP.lat]), np.array([SHOP.lng])
    here = index.match(lat=at_the_shop[0], lng=at_the_shop[1], brand=brand.pk).ordinal
    assert index.geofence_id[here].tolist() == [near.pk, far.pk]
    assert index.settings["exit_buffer_m"][here].tolist() == [31, 32]
    assert snapshot.dwells == {far.pk: (60,)}


def test_it_indexes_chosen_geofences_armed_or_not() -> None:
    brand = make_brand()
    chosen, _ = make_circle(brand, track_visits=False), make_circle(brand)

    assert armed.index_of([chosen.pk]).geofence_id.tolist() == [chosen.pk]

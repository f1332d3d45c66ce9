"""Rows and covers are written together, by one writer."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from django.contrib.gis.geos import GEOSGeometry, Point
from django.db import IntegrityError, connection

from geofences import writing
from geofences.geometry import GeometryError, GeometryReason
from geofences.models import Geofence, GeofenceCover
from tests.factories import make_brand, make_circle, make_polygon
from tests.places import SHOP, SHOP_RADIUS_M

pytestmark = pytest.mark.django_db

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
SQUARE = """{"type": "Polygon", "coordinates":
    [[[24.93, 60.16], [24.95, 60.16], [24.95, 60.17], [24.93, 60.17], [24.93, 60.16]]]}"""
BOW_TIE = """{"type": "Polygon", "coordinates":
    [[[24.93, 60.16], [24.95, 60.17], [24.95, 60.16], [24.93, 60.17], [24.93, 60.16]]]}"""


def cells_of(geofence: Geofence) -> np.ndarray:
    cover = GeofenceCover.objects.get(geofence=geofence)
    return np.concatenate(cover.cells())


def test_it_stores_a_circle_with_its_cover() -> None:
    shop = make_circle(make_brand())

    assert shop.pk is not None
    assert len(cells_of(shop)) > 0


def test_it_stores_a_polygon_with_its_cover() -> None:
    square = make_polygon(make_brand(), SQUARE)

    assert Geofence.objects.get(pk=square.pk).geometry.geom_type == "Polygon"
    assert len(cells_of(square)) > 0


def test_it_changes_the_cover_when_the_shape_changes() -> None:
    shop = make_circle(make_brand())
    before = cells_of(shop)
    shop.geometry = Point(25.1, 60.3, srid=4326)

    writing.save([shop])

    assert not np.intersect1d(before, cells_of(shop)).size
    shop.refresh_from_db()
    assert shop.shape_version == 2


def test_it_keeps_the_shape_version_when_only_the_name_changes() -> None:
    shop = make_circle(make_brand())
    shop.name = "The corner shop"

    writing.save([shop])

    shop.refresh_from_db()
    assert (shop.name, shop.shape_version) == ("The corner shop", 1)


def test_it_writes_new_and_known_rows_in_a_few_statements(
    django_assert_max_num_queries: pytest.FixtureRequest,
) -> None:
    brand = make_brand()
    known = [make_circle(brand) for _ in range(3)]
    new = [
        Geofence(
            brand=brand,
            name=f"New {number}",
            geometry=Point(SHOP.lng, SHOP.lat, srid=4326),
            radius_m=SHOP_RADIUS_M,
        )
        for number in range(200)
    ]

    with django_assert_max_num_queries(8):  # type: ignore[operator]
        writing.save([*known, *new])

    assert GeofenceCover.objects.count() == 203


def test_it_writes_nothing_when_one_shape_cannot_be() -> None:
    brand = make_brand()
    good = Geofence(
        brand=brand, name="a", geometry=Point(SHOP.lng, SHOP.lat, srid=4326), radius_m=50
    )
    bad = Geofence(brand=brand, name="b", geometry=GEOSGeometry(BOW_TIE, srid=4326))

    with pytest.raises(GeometryError) as refused:
        writing.save([good, bad])

    assert refused.value.reason is GeometryReason.SELF_CROSSING
    assert not Geofence.objects.filter(brand=brand).exists()


@pytest.mark.parametrize(
    ("place", "radius_m"),
    [
        (Point(SHOP.lng, SHOP.lat, srid=4326), None),
        (GEOSGeometry(SQUARE, srid=4326), 100.0),
        (Point(srid=4326), 100.0),
        (Point(SHOP.lng, SHOP.lat, srid=4326), -1.0),
    ],
)
def test_it_refuses_a_radius_that_does_not_fit_the_geometry(
    place: GEOSGeometry, radius_m: float | None
) -> None:
    with pytest.raises(GeometryError):
        writing.save([Geofence(brand=make_brand(), name="a", geometry=place, radius_m=radius_m)])


def test_it_refuses_an_external_id_that_is_taken() -> None:
    brand = make_brand()
    make_circle(brand, external_id="7")

    with pytest.raises(IntegrityError):
        make_circle(brand, external_id="7")


def test_it_retires_and_revives_a_geofence() -> None:
    shop = make_circle(make_brand(), external_id="7")

    assert writing.retire([shop.pk], now=NOW) == 1
    assert writing.retire([shop.pk], now=NOW) == 0
    shop.refresh_from_db()
    assert shop.retired_at == NOW

    assert writing.revive([shop.pk], now=NOW) == 1
    assert writing.revive([shop.pk], now=NOW) == 0
    assert Geofence.objects.present().get() == shop


def test_it_leaves_a_geofence_retired_that_was_read_before() -> None:
    shop = make_circle(make_brand())
    writing.retire([shop.pk], now=NOW)
    shop.name = "The corner shop"

    writing.save([shop])

    shop.refresh_from_db()
    assert (shop.name, shop.retired_at) == ("The corner shop", NOW)


def test_it_marks_each_row_with_the_transaction_that_wrote_it() -> None:
    shop = make_circle(make_brand())

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        (xid,) = cursor.fetchone()

    shop.refresh_from_db()
    assert shop.changed_xid == xid

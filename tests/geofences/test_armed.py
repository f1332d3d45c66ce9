"""What is armed is what the index holds."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import shapely
from django.db import connection

from geofences import armed
from geofences.models import Geofence, GeofenceCover
from tests.factories import make_brand, make_circle, make_polygon
from tests.geofences.shapes import holds
from tests.places import SHOP

pytestmark = pytest.mark.django_db


def test_it_loads_nothing_where_nothing_is_armed() -> None:
    make_circle(make_brand(), track_visits=False)

    assert len(armed.load().index) == 0


@pytest.mark.parametrize("portion", [1, 2, 3])  # the end comes with a portion or alone
def test_it_loads_geofences_of_several_portions(
    monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    monkeypatch.setattr(armed, "PORTION", portion)
    brand = make_brand()
    near = make_circle(brand, exit_buffer_m=31)
    far = make_circle(brand, exit_buffer_m=32, dwell_s=60)

    snapshot = armed.load()

    index = snapshot.index
    at_the_shop = np.array([SHOP.lat]), np.array([SHOP.lng])
    here = index.match(lat=at_the_shop[0], lng=at_the_shop[1], brand=brand.pk).ordinal
    assert index.geofence_id[here].tolist() == [near.pk, far.pk]
    assert index.settings["exit_buffer_m"][here].tolist() == [31, 32]
    assert snapshot.dwells == {far.pk: (60,)}


def test_it_loads_a_shape_of_thousands_of_corners() -> None:
    brand = make_brand()
    angle = np.linspace(0, 2 * np.pi, 5_000, endpoint=False)
    away = 0.01 * (2 + np.cos(40 * angle)) / 3
    ring = np.column_stack((SHOP.lng + away * np.cos(angle), SHOP.lat + away * np.sin(angle)))
    star = make_polygon(brand, shapely.to_geojson(shapely.Polygon(ring)))
    lat, lng = SHOP.lat + np.linspace(-0.01, 0.01, 99), np.full(99, SHOP.lng + 0.004)

    seen = armed.load().index.match(lat=lat, lng=lng, brand=brand.pk)

    assert len(GeofenceCover.objects.get(pk=star.pk).shape) > 80_000
    assert seen.fix.tolist() == np.flatnonzero(holds(shapely.Polygon(ring), lat, lng)).tolist()


def test_it_indexes_chosen_geofences_armed_or_not() -> None:
    brand = make_brand()
    chosen, _ = make_circle(brand, track_visits=False), make_circle(brand)

    assert armed.index_of([chosen.pk]).geofence_id.tolist() == [chosen.pk]


def test_it_looks_past_marks_of_the_cluster_that_a_backup_is_of() -> None:
    brand = make_brand()
    old, new = make_circle(brand), make_circle(brand)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE geofences_geofence DISABLE TRIGGER geofences_mark_change")
        cursor.execute("UPDATE geofences_geofence SET changed_xid = changed_xid + 1000000000")
        cursor.execute("ALTER TABLE geofences_geofence ENABLE TRIGGER geofences_mark_change")
    restored = armed.load()
    assert sorted(restored.index.geofence_id.tolist()) == [old.pk, new.pk]

    assert armed.refreshed(restored).index is restored.index

    Geofence.objects.filter(pk=new.pk).update(track_visits=False)
    index = armed.refreshed(restored).index
    assert index.ordinals(np.array([old.pk, new.pk])).tolist() == [0, -1]


def test_it_hears_what_was_told_while_it_read(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, looks = threading.Event(), []

    def look(_: armed.Armed) -> None:
        looks.append(1)
        if len(looks) > 1:
            stop.set()
        with connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {armed.CHANNEL}")  # it comes with this statement's answer

    monkeypatch.setattr(armed, "SAFETY_LOOK_S", 15.0)
    follower = armed.Follower()
    thread = threading.Thread(target=follower.follow, args=(stop,), kwargs={"changed": look})
    thread.start()
    thread.join(10)
    stop.set()
    heard = len(looks)
    thread.join(20)
    assert heard == 2

"""What the live page is told: everything once, though ids appear out of order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from brands.models import Brand
from config import tail
from config.tail import SeenIds, Tail
from devices.models import Device, DeviceState
from tests.campaigns.rows import make_transition
from tests.factories import make_brand, make_circle, make_device
from tests.places import SHOP

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@given(st.permutations(range(1, 13)), st.integers(1, 4))
def test_it_hands_out_every_id_once_whatever_the_order_of_commits(
    order: list[int], at_once: int
) -> None:
    """Ids become visible in any order, each within the time that settles."""
    seen, told = SeenIds(0), []
    for step in range(0, len(order), at_once):
        visible = sorted(order[: step + at_once])
        rows = [(each,) for each in visible if each > seen.floor]
        told += seen.fresh(rows, NOW + timedelta(seconds=step * 0.1))

    assert sorted(told) == [(each,) for each in range(1, 13)]


def test_it_does_not_look_back_for_ever() -> None:
    seen = SeenIds(0)
    seen.fresh([(1,), (2,)], NOW)
    seen.fresh([(1,), (2,), (4,)], NOW + timedelta(seconds=tail.SETTLED_S + 1))

    assert seen.floor == 2
    assert list(seen.at) == [4]


def test_it_skips_ahead_where_too_much_happens() -> None:
    seen = SeenIds(0)
    seen.fresh([(each,) for each in range(1, tail.MOST_ROWS + 1)], NOW)

    assert seen.floor == tail.MOST_ROWS


def make_fix(device: Device, received_at: datetime) -> None:
    DeviceState.objects.filter(pk=device.pk).update(
        lat=SHOP.lat, lng=SHOP.lng, received_at=received_at
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO devices_fix (device_id, key, received_at, recorded_at, lat, lng, verdict)"
            " VALUES (%s, 1, %s, %s, %s, %s, 0)",
            (device.pk, received_at, received_at, SHOP.lat, SHOP.lng),
        )


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.mark.django_db
def test_it_tells_moves_and_happenings_by_brand_and_once(brand: Brand) -> None:
    mine, other = make_device(brand), make_device(make_brand())
    shop = make_circle(brand, name="Shop")
    found = Tail(NOW)
    make_transition(mine, shop)
    make_fix(mine, NOW)
    make_fix(other, NOW)

    look = found.look(NOW + timedelta(seconds=1))
    again = found.look(NOW + timedelta(seconds=2))

    assert look.moved[brand.pk] == [(mine.pk, SHOP.lat, SHOP.lng)]
    assert look.fixes == {brand.pk: 1, other.brand_id: 1}
    [told] = look.happened[brand.pk]
    assert (told["kind"], told["place"], told["device"]) == ("entered", "Shop", mine.pk)
    assert list(look.happened) == [brand.pk]
    assert not again.moved
    assert not again.happened


@pytest.mark.django_db
def test_it_waits_for_fixes_that_are_still_being_committed(brand: Brand) -> None:
    device = make_device(brand)
    found = Tail(NOW)
    make_fix(device, NOW + timedelta(seconds=0.9))

    early = found.look(NOW + timedelta(seconds=1))
    later = found.look(NOW + timedelta(seconds=2))

    assert not early.moved
    assert later.moved[brand.pk]


@pytest.mark.django_db
def test_it_tells_who_was_away_what_happened_since_in_its_own_brand(brand: Brand) -> None:
    device, shop = make_device(brand), make_circle(brand)
    stranger = make_device(make_brand())
    first = make_transition(device, shop, occurred_at=NOW)
    make_transition(stranger, make_circle(stranger.brand))
    second = make_transition(device, shop, kind="exited")

    everything = tail.happened_since(brand.pk, {}, limit=10)
    missed = tail.happened_since(brand.pk, {"transition": first.pk}, limit=10)

    assert [each["id"] for each in everything] == [first.pk, second.pk]
    assert [each["id"] for each in missed] == [second.pk]


@pytest.mark.django_db
def test_it_shows_the_brands_places_and_phones_within_the_view(brand: Brand) -> None:
    shop = make_circle(brand)
    make_circle(make_brand())
    device = make_device(brand)
    make_fix(device, NOW)
    here = (SHOP.lng - 0.1, SHOP.lat - 0.1, SHOP.lng + 0.1, SHOP.lat + 0.1)
    elsewhere = (0.0, 0.0, 1.0, 1.0)

    [place] = tail.places_within(brand.pk, here, limit=10)
    devices = tail.devices_within(brand.pk, here, since=NOW - timedelta(minutes=1), limit=10)

    assert (place["id"], place["geometry"]["type"]) == (shop.pk, "Point")
    assert place["properties"]["armed"] is True
    assert devices == [(device.pk, SHOP.lat, SHOP.lng)]
    assert tail.places_within(brand.pk, elsewhere, limit=10) == []

"""Homes and usual areas: against a slow count of nights and days; then rows, retention, erasure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import h3.api.basic_int as h3
import numpy as np
import pytest
from django.conf import settings as django_settings
from django.utils.timezone import now
from hypothesis import given, settings
from hypothesis import strategies as st

from brands.models import Brand
from devices import homes
from devices.areas import MIN_DAYS, MIN_NIGHTS, Area, AreaKind, areas
from devices.models import Area as AreaRow
from devices.models import AreaScan, Device, DeviceState, Fix
from tests.factories import make_brand, make_device
from tests.places import ACROSS_TOWN, SHOP, Place

HELSINKI = ZoneInfo("Europe/Helsinki")
FAR_AWAY = Place(61.5, 23.8)


def found(fixes: Sequence[tuple[datetime, Place]], tz: ZoneInfo = HELSINKI) -> list[Area]:
    return areas(
        np.array([round(at.timestamp() * 1000) for at, _ in fixes], dtype=np.int64),
        np.array([place.lat for _, place in fixes], dtype=np.float64),
        np.array([place.lng for _, place in fixes], dtype=np.float64),
        tz,
    )


def cell_of(place: Place) -> int:
    cell: int = h3.latlng_to_cell(place.lat, place.lng, 7)
    return cell


def on(day: int, hour: int) -> datetime:
    return datetime(2026, 3, 1, tzinfo=HELSINKI) + timedelta(days=day, hours=hour)


def test_it_finds_where_the_nights_are_spent_and_where_the_days() -> None:
    nights = [(on(day, 23), ACROSS_TOWN) for day in range(5)]
    days = [(on(day, 11), SHOP) for day in range(5)]
    once = [(on(2, 15), FAR_AWAY)]
    assert [(area.kind, area.cell, area.days) for area in found(nights + days + once)] == [
        (AreaKind.HOME, cell_of(ACROSS_TOWN), 5),
        (AreaKind.USUAL, cell_of(SHOP), 5),
    ]


def test_a_night_is_one_though_midnight_lies_in_it() -> None:
    halves = [(on(day, hour), SHOP) for day in range(MIN_NIGHTS - 1) for hour in (23, 26, 29)]
    assert found(halves) == []


def test_it_knows_no_home_of_who_sleeps_everywhere() -> None:
    places = [Place(60.0 + number / 10, 24.0) for number in range(10)]
    roaming = [(on(day, 23), places[day // 3 % 10]) for day in range(21)]
    assert not [area for area in found(roaming) if area.kind is AreaKind.HOME]


def test_it_knows_nothing_of_nobody() -> None:
    assert found([]) == []


spots = [SHOP, ACROSS_TOWN, FAR_AWAY]


@settings(max_examples=80)
@given(
    fixes=st.lists(st.tuples(st.integers(0, 14 * 96), st.sampled_from(spots)), max_size=80),
    tz=st.sampled_from(["Europe/Helsinki", "America/New_York", "Asia/Kathmandu"]),
)
def test_it_agrees_with_counting_one_by_one(fixes: list[tuple[int, Place]], tz: str) -> None:
    place = ZoneInfo(tz)
    start = datetime(2026, 3, 1, tzinfo=UTC)  # New York's clock jumps a week later
    timed = [(start + timedelta(minutes=15 * quarter), spot) for quarter, spot in fixes]
    nights, days = defaultdict(set), defaultdict(set)
    for at, spot in timed:
        wall = at.astimezone(place).replace(tzinfo=None)
        days[cell_of(spot)].add(wall.date())
        if wall.hour >= 22 or wall.hour < 6:
            nights[cell_of(spot)].add((wall + timedelta(hours=2)).date())
    seen = found(timed, place)
    home = [area for area in seen if area.kind is AreaKind.HOME]
    most = max(map(len, nights.values()), default=0)
    of_all = len(set().union(*nights.values())) if nights else 0
    assert bool(home) is (most >= MIN_NIGHTS and most * 2 >= of_all)
    for area in home:
        assert area.days == len(nights[area.cell]) == most
    usual = {area.cell: area.days for area in seen if area.kind is AreaKind.USUAL}
    homes_of = {area.cell for area in home}
    assert usual == {
        cell: len(dates)
        for cell, dates in days.items()
        if len(dates) >= MIN_DAYS and cell not in homes_of
    }


def remember(device: Device, place: Place, *, nights: int = 4, ago_days: int = 6) -> None:
    """Fixes of some nights, as ingest writes them."""
    for night in range(nights):
        local = datetime.now(HELSINKI).replace(hour=23, minute=0) - timedelta(days=ago_days - night)
        Fix.objects.create(
            device_id=device.pk,
            key=night,
            received_at=local,
            recorded_at=local,
            lat=place.lat,
            lng=place.lng,
            accuracy_m=20,
            verdict=0,
        )
    DeviceState.objects.filter(device_id=device.pk).update(received_at=now())


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.mark.django_db
def test_it_keeps_a_cell_and_no_address(brand: Brand) -> None:
    device = make_device(brand, timezone="Europe/Helsinki")
    remember(device, SHOP)
    assert homes.derive(now=now()) == 1
    area = AreaRow.objects.get()
    assert (area.device_id, area.kind, area.cell) == (device.pk, "home", cell_of(SHOP))
    assert (area.lat, area.lng) == pytest.approx(h3.cell_to_latlng(area.cell))
    assert (area.lat, area.lng) != (SHOP.lat, SHOP.lng)
    assert homes.derive(now=now()) == 0  # nothing new
    DeviceState.objects.update(received_at=now() + timedelta(hours=21))
    assert homes.derive(now=now() + timedelta(hours=22)) == 1
    assert AreaRow.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("switch", ["brand", "consent"])
def test_it_learns_nothing_where_it_may_not_and_deletes_what_it_knew(
    brand: Brand, switch: str
) -> None:
    device = make_device(brand)
    remember(device, SHOP)
    homes.derive(now=now())
    assert AreaRow.objects.exists()
    if switch == "brand":
        Brand.objects.update(derive_areas=False)
    else:
        Device.objects.update(consent_location=False)
    assert homes.forget(now=now()) == 1
    AreaScan.objects.all().delete()
    assert homes.derive(now=now()) == 0
    assert not AreaRow.objects.exists()


@pytest.mark.django_db
def test_it_forgets_an_area_with_its_fixes(brand: Brand) -> None:
    device = make_device(brand)
    remember(device, SHOP)
    homes.derive(now=now())
    later = now() + timedelta(days=django_settings.FIX_RETENTION_DAYS - 4)
    assert homes.forget(now=later - timedelta(days=4)) == 0
    assert homes.forget(now=later + timedelta(days=4)) == 1


@pytest.mark.django_db
def test_it_takes_devices_in_batches(brand: Brand) -> None:
    for _ in range(7):
        remember(make_device(brand), SHOP)
    assert homes.derive(now=now(), limit=5) == 5
    assert homes.derive(now=now(), limit=5) == 2
    assert AreaRow.objects.count() == 7

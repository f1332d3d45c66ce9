"""Ingest while places change: an index that was updated counts on past its armed geofences."""

from __future__ import annotations

import pytest

from devices.fixes import assemble
from devices.ingest import ingest
from devices.models import Transition
from geofences import armed, writing
from tests.devices.test_ingest import NOW_MS, fix
from tests.factories import make_brand, make_circle, make_device
from tests.places import AT_THE_DOOR, DOWN_THE_ROAD

pytestmark = pytest.mark.django_db


def test_it_tells_the_right_devices_and_places_after_all_places_were_written_again() -> None:
    brand = make_brand()
    places = [make_circle(brand) for _ in range(4)]
    devices = [make_device(brand) for _ in range(3)]
    before = armed.load()
    writing.save(places)
    after = armed.refreshed(before)

    rows = [
        fix(device, place, NOW_MS + at_ms)
        for device in devices[1:]
        for at_ms, place in ((0, AT_THE_DOOR), (60_000, DOWN_THE_ROAD))
    ]
    ingest(assemble(rows), now_ms=NOW_MS + 60_000, armed=after)

    told = Transition.objects.values_list("device_id", "geofence_id", "kind")
    assert after.index.overlay
    assert sorted(told) == sorted(
        (device.pk, place.pk, kind)
        for device in devices[1:]
        for place in places
        for kind in ("entered", "exited")
    )

"""Once warm, no fix waits for a compiler."""

from __future__ import annotations

import pytest

from devices import fixes, judgement, sightings
from devices.fixes import assemble
from devices.ingest import ACCEPTED, ingest
from devices.memory import Memory
from devices.warming import warm
from geofences import armed
from tests.devices.test_ingest import MINUTE, NOW_MS, fix
from tests.factories import make_brand, make_circle, make_device
from tests.places import AT_THE_DOOR, DOWN_THE_ROAD

pytestmark = pytest.mark.django_db


def compiled() -> dict[str, int]:
    """For how many kinds of arguments each compiled function has been made."""
    return {
        f"{module.__name__}.{name}": len(each.signatures)
        for module in (fixes, judgement, sightings)
        for name, each in vars(module).items()
        if hasattr(each, "signatures") and each.__module__ == module.__name__
    }


def test_it_compiles_nothing_more_once_it_is_warm() -> None:
    warm()
    before = compiled()
    brand = make_brand()
    make_circle(brand)
    devices, memory, snapshot = [make_device(brand) for _ in range(3)], Memory(10), armed.load()
    for turn, place in enumerate((AT_THE_DOOR, DOWN_THE_ROAD)):
        rows = [fix(each, place, NOW_MS + turn * MINUTE, serial=turn + 1) for each in devices[1:]]
        batch = assemble([fix(devices[0], place, NOW_MS + turn * MINUTE), *rows])
        verdicts = ingest(batch, now_ms=NOW_MS + MINUTE, armed=snapshot, memory=memory)
        assert verdicts[0] == ACCEPTED
    assert len(before) > 5
    assert compiled() == before

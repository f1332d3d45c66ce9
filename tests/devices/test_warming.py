"""Once warm, no fix waits for a compiler."""

from __future__ import annotations

import pytest

from devices import fixes, judgement, sightings, walks
from devices.clock import end_unarmed, run_due
from devices.fixes import assemble
from devices.ingest import ACCEPTED, ingest, leave_all
from devices.memory import Memory
from devices.models import Presence, Transition
from devices.presence import TransitionReason
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
        for module in (fixes, judgement, sightings, walks)
        for name, each in vars(module).items()
        if hasattr(each, "signatures") and each.__module__ == module.__name__
    }


def test_it_compiles_nothing_more_once_it_is_warm() -> None:
    warm()
    before = compiled()
    brand = make_brand()
    places = [make_circle(brand, dwell_s=300), make_circle(brand)]
    devices, memory, snapshot = [make_device(brand) for _ in range(3)], Memory(10), armed.load()
    for turn, place in enumerate((AT_THE_DOOR, DOWN_THE_ROAD, AT_THE_DOOR)):
        rows = [fix(each, place, NOW_MS + turn * MINUTE, serial=turn + 1) for each in devices[1:]]
        batch = assemble([fix(devices[0], place, NOW_MS + turn * MINUTE), *rows])
        verdicts = ingest(batch, now_ms=NOW_MS + MINUTE, armed=snapshot, memory=memory)
        assert verdicts[0] == ACCEPTED
    run_due(now=NOW_MS + 10 * MINUTE, armed=snapshot)
    places[0].delete()
    end_unarmed(now=NOW_MS + 11 * MINUTE, armed=snapshot)
    for each in devices:
        leave_all(each.pk, reason=TransitionReason.CONSENT_WITHDRAWN, armed=snapshot, now_ms=NOW_MS)
    told = set(Transition.objects.values_list("kind", "reason"))
    assert {("dwelled", ""), ("exited", "geofence_ended"), ("exited", "consent_withdrawn")} < told
    assert not Presence.objects.exists()
    assert len(before) > 20
    assert compiled() == before

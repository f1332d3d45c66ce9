"""Ingest on real rows: what is kept, changed and refused, and in how many queries."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from brands.models import Brand
from devices import clock, writing
from devices.clock import end_unarmed, run_due
from devices.fixes import FixVerdict, RejectCode, assemble
from devices.gathering import Gatherer
from devices.ingest import ACCEPTED, ingest, leave_all
from devices.memory import Memory
from devices.models import Device, DeviceState, Fix, Presence, Transition
from devices.presence import TransitionReason
from devices.reading import open_cursor, read, read_locked
from geofences import armed
from geofences.models import Arming, Geofence
from geofences.writing import retire, save
from tests.factories import make_brand, make_circle, make_device
from tests.places import (
    ACROSS_THE_STREET,
    ACROSS_TOWN,
    AT_THE_DOOR,
    AT_THE_EDGE,
    DOWN_THE_ROAD,
    Place,
)

pytestmark = pytest.mark.django_db

# Ahead of the clock that arms the geofences: what is armed was armed before these fixes came.
NOW_MS = time.time_ns() // 1_000_000 + 3_600_000
MINUTE = 60_000
NAN = float("nan")


def fix(device: Device, place: Place, at_ms: int, **fields: Any) -> tuple[Any, ...]:
    """A row of FIX_DTYPE."""
    row = {
        "device_id": device.pk,
        "brand_id": device.brand_id,
        "serial": 1,
        "recorded_ms": at_ms,
        "key": 0,
        "named": False,
        "lat": place.lat,
        "lng": place.lng,
        "accuracy_m": NAN,
        "speed_mps": NAN,
        "heading_deg": NAN,
        "altitude_m": NAN,
        "battery": NAN,
        "mock": False,
    }
    return tuple((row | fields).values())


def take(*rows: tuple[Any, ...], now_ms: int = NOW_MS + 10 * MINUTE) -> list[str]:
    """Ingest against the rows as they are; answers reject codes, empty for accepted."""
    verdicts = ingest(assemble(list(rows)), now_ms=now_ms, armed=armed.load())
    codes = list(RejectCode)
    return ["" if each == ACCEPTED else codes[each].value for each in verdicts]


def told(device: Device) -> list[tuple[str, str]]:
    rows = Transition.objects.filter(device_id=device.pk).order_by("id")
    return [(each.kind, each.reason) for each in rows]


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def device(brand: Brand) -> Device:
    return make_device(brand)


def test_it_keeps_every_accepted_fix_and_the_last_place(device: Device) -> None:
    assert take(
        fix(device, DOWN_THE_ROAD, NOW_MS, accuracy_m=12.5, battery=0.5),
        fix(device, AT_THE_DOOR, NOW_MS + MINUTE, speed_mps=1.5),
    ) == ["", ""]
    first, second = Fix.objects.filter(device_id=device.pk).order_by("recorded_at")
    assert (first.accuracy_m, first.battery, first.speed_mps) == (12.5, 0.5, None)
    assert (second.lat, second.lng, second.speed_mps) == (*AT_THE_DOOR, 1.5)
    state = DeviceState.objects.get(device=device)
    assert (state.lat, state.lng) == AT_THE_DOOR
    assert state.recorded_at is not None
    assert state.recorded_at.timestamp() * 1000 == NOW_MS + MINUTE


def test_it_tells_a_visit_from_entry_to_exit(brand: Brand, device: Device) -> None:
    shop = make_circle(brand)
    take(fix(device, DOWN_THE_ROAD, NOW_MS))
    take(fix(device, AT_THE_DOOR, NOW_MS + MINUTE))
    assert Presence.objects.get(device_id=device.pk).geofence_id == shop.pk
    assert DeviceState.objects.get(device=device).presences == 1
    take(fix(device, DOWN_THE_ROAD, NOW_MS + 2 * MINUTE))
    assert told(device) == [("entered", ""), ("exited", "")]
    assert not Presence.objects.exists()
    assert DeviceState.objects.get(device=device).presences == 0
    entered, exited = Transition.objects.order_by("id")
    assert entered.visit_id == exited.visit_id
    assert (entered.lat, entered.lng) == AT_THE_DOOR


def test_it_tells_the_same_whether_fixes_come_one_by_one_or_together(brand: Brand) -> None:
    make_circle(brand, dwell_s=90)
    places = [
        DOWN_THE_ROAD,
        AT_THE_DOOR,
        AT_THE_DOOR,
        ACROSS_THE_STREET,
        DOWN_THE_ROAD,
        AT_THE_DOOR,
    ]
    one, many = make_device(brand), make_device(brand)
    for number, place in enumerate(places):
        take(fix(one, place, NOW_MS + number * MINUTE))
    shuffled = [fix(many, place, NOW_MS + number * MINUTE) for number, place in enumerate(places)][
        ::-1
    ]
    take(*shuffled)
    expected = [("entered", ""), ("dwelled", ""), ("exited", ""), ("entered", "")]
    assert told(one) == told(many) == expected
    times = [
        list(
            Transition.objects.filter(device_id=each.pk)
            .order_by("id")
            .values_list("kind", "occurred_at", "entered_at", "dwell_s")
        )
        for each in (one, many)
    ]
    assert times[0] == times[1]


def test_it_does_not_let_an_unsure_fix_change_anything(brand: Brand, device: Device) -> None:
    make_circle(brand)
    take(fix(device, AT_THE_EDGE, NOW_MS, accuracy_m=50))  # inside by 5 m, unsure by 22 m
    assert told(device) == []
    take(fix(device, AT_THE_DOOR, NOW_MS + MINUTE, accuracy_m=50))
    take(fix(device, ACROSS_THE_STREET, NOW_MS + 2 * MINUTE, accuracy_m=50))
    assert told(device) == [("entered", "")]


def test_it_changes_nothing_on_a_replay(brand: Brand, device: Device) -> None:
    make_circle(brand)
    rows = [
        fix(device, DOWN_THE_ROAD, NOW_MS),
        fix(device, AT_THE_DOOR, NOW_MS + MINUTE),
        fix(device, DOWN_THE_ROAD, NOW_MS + 2 * MINUTE),
    ]
    take(*rows)
    before = list(Transition.objects.values())
    assert take(*rows, *rows) == [""] * 6
    assert list(Transition.objects.values()) == before
    assert Fix.objects.count() == 3


def test_it_knows_a_repeat_by_its_id_whatever_its_time(device: Device) -> None:
    take(fix(device, DOWN_THE_ROAD, NOW_MS, key=77, named=True))
    assert take(fix(device, AT_THE_DOOR, NOW_MS + MINUTE, key=77, named=True)) == [""]
    assert Fix.objects.count() == 1
    assert DeviceState.objects.get(device=device).lat == DOWN_THE_ROAD.lat


def test_it_keeps_a_late_fix_as_history_only(brand: Brand, device: Device) -> None:
    make_circle(brand)
    take(fix(device, DOWN_THE_ROAD, NOW_MS + MINUTE))
    assert take(fix(device, AT_THE_DOOR, NOW_MS)) == [""]
    assert told(device) == []
    late = Fix.objects.get(lat=AT_THE_DOOR.lat)
    assert late.verdict == FixVerdict.LATE


def test_it_records_what_it_cannot_believe(brand: Brand, device: Device) -> None:
    make_circle(brand)
    take(fix(device, DOWN_THE_ROAD, NOW_MS))
    far = Place(10.0, 10.0)
    take(fix(device, AT_THE_DOOR, NOW_MS + 1000, mock=True))
    take(fix(device, AT_THE_DOOR, NOW_MS + 2000, accuracy_m=9000))
    take(fix(device, far, NOW_MS + 3000))
    assert told(device) == []
    assert sorted(Fix.objects.values_list("verdict", flat=True)) == [
        FixVerdict.USED,
        FixVerdict.MOCKED,
        FixVerdict.TELEPORT,
        FixVerdict.INACCURATE,
    ]
    state = DeviceState.objects.get(device=device)
    assert (state.lat, state.jump_lat) == (DOWN_THE_ROAD.lat, far.lat)
    take(fix(device, far, NOW_MS + 4000))
    state.refresh_from_db()
    assert (state.lat, state.jump_lat) == (far.lat, None)


def test_it_refuses_strangers_revoked_tokens_and_the_unwilling(
    brand: Brand, device: Device
) -> None:
    unwilling = make_device(brand, consent_location=False)
    stranger = Device(pk=10**12, brand=brand)
    other_brand = make_brand()
    assert take(
        fix(device, AT_THE_DOOR, NOW_MS),
        fix(device, AT_THE_DOOR, NOW_MS + 1, serial=2),
        fix(device, AT_THE_DOOR, NOW_MS + 2, brand_id=other_brand.pk),
        fix(unwilling, AT_THE_DOOR, NOW_MS),
        fix(stranger, AT_THE_DOOR, NOW_MS),
    ) == ["", "unknown_device", "unknown_device", "consent_withdrawn", "unknown_device"]
    assert Fix.objects.count() == 1


def test_it_matches_only_the_brands_own_geofences(brand: Brand, device: Device) -> None:
    make_circle(make_brand())
    take(fix(device, AT_THE_DOOR, NOW_MS))
    assert told(device) == []


def test_it_marks_an_entry_that_the_arming_caused(brand: Brand, device: Device) -> None:
    take(fix(device, AT_THE_DOOR, NOW_MS), now_ms=NOW_MS - 120 * MINUTE)
    make_circle(brand)
    take(fix(device, AT_THE_DOOR, NOW_MS + MINUTE))
    assert told(device) == [("entered", "initial")]


def test_it_enters_plainly_on_a_first_fix(brand: Brand, device: Device) -> None:
    make_circle(brand)
    take(fix(device, AT_THE_DOOR, NOW_MS))
    assert told(device) == [("entered", "")]


def test_it_leaves_for_evaluation_only_what_a_campaign_waits_for(
    brand: Brand, device: Device
) -> None:
    make_circle(brand)
    wanted = make_circle(brand, track_visits=False)
    Arming.objects.create(brand=brand, campaign_id=1, geofence=wanted)
    Geofence.objects.filter(pk=wanted.pk).update(name="armed")  # any write runs the trigger
    take(fix(device, AT_THE_DOOR, NOW_MS))
    open_ones = Transition.objects.filter(processed_at__isnull=True)
    assert [each.geofence_id for each in open_ones] == [wanted.pk]
    assert Transition.objects.count() == 2


def test_the_clock_fires_a_dwell_though_the_phone_is_silent(brand: Brand, device: Device) -> None:
    make_circle(brand, dwell_s=300)
    take(fix(device, AT_THE_DOOR, NOW_MS), now_ms=NOW_MS)
    assert run_due(now=NOW_MS + 5 * MINUTE - 1, armed=armed.load()) == (0, 0)
    for _ in range(2):  # the second look finds nothing more
        run_due(now=NOW_MS + 5 * MINUTE, armed=armed.load())
    assert told(device) == [("entered", ""), ("dwelled", "")]
    take(fix(device, AT_THE_DOOR, NOW_MS + 6 * MINUTE))
    assert told(device) == [("entered", ""), ("dwelled", "")]


def test_the_clock_gives_a_silent_device_up(brand: Brand, device: Device, settings: Any) -> None:
    settings.SILENCE_S = 600
    make_circle(brand)
    take(fix(device, AT_THE_DOOR, NOW_MS), now_ms=NOW_MS)
    run_due(now=NOW_MS + 11 * MINUTE, armed=armed.load())
    assert told(device) == [("entered", ""), ("exited", "silence")]
    assert DeviceState.objects.get(device=device).presences == 0


def test_the_clock_looks_once_at_a_phone_that_keeps_reporting(
    brand: Brand, device: Device, settings: Any
) -> None:
    settings.SILENCE_S = 600
    make_circle(brand)
    for minute in (0, 9):
        take(fix(device, AT_THE_DOOR, NOW_MS + minute * MINUTE), now_ms=NOW_MS + minute * MINUTE)
    looked = [run_due(now=NOW_MS + 11 * MINUTE, armed=armed.load()) for _ in range(2)]
    assert looked == [(1, 0), (0, 0)]
    assert told(device) == [("entered", "")]


def test_the_clock_gets_past_visits_that_nobody_waits_for_any_more(
    brand: Brand, device: Device, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SILENCE_S = 600
    monkeypatch.setattr(clock, "BATCH", 2)
    monkeypatch.setattr(clock, "now_ms", lambda: NOW_MS + 12 * MINUTE)
    shop = make_circle(brand)
    for _ in range(3):
        take(fix(make_device(brand), AT_THE_DOOR, NOW_MS), now_ms=NOW_MS)
    Geofence.objects.filter(pk=shop.pk).update(track_visits=False)
    make_circle(brand)
    late = NOW_MS + MINUTE
    take(fix(device, AT_THE_DOOR, late), now_ms=late)

    clock.catch_up(threading.Event(), armed.load())

    assert told(device) == [("entered", ""), ("exited", "silence")]
    assert not Presence.objects.exists()


def test_the_clock_ends_with_visits_that_it_cannot_end_yet(
    brand: Brand, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SILENCE_S = 600
    monkeypatch.setattr(clock, "BATCH", 2)
    monkeypatch.setattr(clock, "now_ms", lambda: NOW_MS + 12 * MINUTE)
    before = armed.load()  # a process that has not heard of the geofence yet
    make_circle(brand)
    for _ in range(3):
        take(fix(make_device(brand), AT_THE_DOOR, NOW_MS), now_ms=NOW_MS)

    clock.catch_up(threading.Event(), before)

    assert Presence.objects.count() == 3


def test_the_clock_looks_for_visits_to_end_when_an_index_has_changed_not_when_anything_has(
    brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, changed = armed.load(), armed.load()
    looks = iter([first, replace(first, horizon=first.horizon + 1), changed])
    stop, swept_at = threading.Event(), []

    def end_unarmed(*, armed: armed.Armed, **_: Any) -> int:
        swept_at.append(armed)
        if armed is changed:
            stop.set()
        return 0

    monkeypatch.setattr(armed.follower, "refresh", lambda: next(looks))
    monkeypatch.setattr(clock, "LOOK_S", 0)
    monkeypatch.setattr(clock, "SWEEP_S", 3600)
    monkeypatch.setattr(clock, "end_unarmed", end_unarmed)
    clock.run(stop)
    assert swept_at == [first, changed]


def test_the_clock_is_patient_with_a_phone_that_sends_its_past(
    brand: Brand, device: Device, settings: Any
) -> None:
    settings.SILENCE_S = 600
    make_circle(brand)
    hours_later = NOW_MS + 300 * MINUTE
    take(fix(device, AT_THE_DOOR, NOW_MS), now_ms=hours_later)
    run_due(now=hours_later + MINUTE, armed=armed.load())
    assert told(device) == [("entered", "")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("retire", TransitionReason.GEOFENCE_ENDED),
        ("disarm", TransitionReason.DISARMED),
        ("move", TransitionReason.GEOFENCE_MOVED),
    ],
)
def test_the_clock_ends_visits_of_geofences_that_are_no_more_what_they_were(
    brand: Brand, device: Device, change: str, reason: TransitionReason
) -> None:
    shop = make_circle(brand)
    take(fix(device, AT_THE_DOOR, NOW_MS))
    if change == "retire":
        retire([shop.pk], now=datetime.now(UTC))
    elif change == "disarm":
        shop.track_visits = False
        save([shop])
    else:
        shop.radius_m = 500.0
        save([shop])
    assert end_unarmed(now=NOW_MS + 20 * MINUTE, armed=armed.load()) == 1
    assert told(device) == [("entered", ""), ("exited", reason.value)]
    assert DeviceState.objects.get(device=device).presences == 0


def test_it_ends_all_visits_when_consent_is_withdrawn(brand: Brand, device: Device) -> None:
    make_circle(brand)
    take(fix(device, AT_THE_DOOR, NOW_MS))
    for _ in range(2):
        leave_all(
            device.pk,
            reason=TransitionReason.CONSENT_WITHDRAWN,
            armed=armed.load(),
            now_ms=NOW_MS + MINUTE,
        )
    assert told(device) == [("entered", ""), ("exited", "consent_withdrawn")]


def test_it_takes_as_many_queries_for_a_thousand_devices_as_for_one(brand: Brand) -> None:
    make_circle(brand)
    devices = [make_device(brand) for _ in range(30)]
    snapshot = armed.load()
    counts = []
    # The first, as a connection is told once how to plan.
    for batch in (devices[:1], devices[1:2], devices[2:]):
        rows = assemble([fix(each, AT_THE_DOOR, NOW_MS + len(batch)) for each in batch])
        with (
            CaptureQueriesContext(
                connection,
            ),
            _counting() as statements,
        ):
            ingest(rows, now_ms=NOW_MS + MINUTE, armed=snapshot)
        counts.append(len(statements))
    assert counts[1] == counts[2] <= 7


@pytest.mark.django_db(transaction=True)  # in a transaction a connection is made ready each time
@pytest.mark.parametrize(("devices", "statements"), [(1, 1), (129, 2)])
def test_it_reads_once_and_then_only_writes_what_it_remembers(
    devices: int, statements: int
) -> None:
    brand = make_brand()
    make_circle(brand)
    with open_cursor():
        pass  # the connection is ready
    crowd = [make_device(brand) for _ in range(devices)]
    memory, snapshot = Memory(1000), armed.load()
    counts = []
    for turn, place in enumerate((DOWN_THE_ROAD, AT_THE_DOOR, DOWN_THE_ROAD)):
        batch = assemble([fix(each, place, NOW_MS + turn * MINUTE) for each in crowd])
        with _counting() as seen:
            ingest(batch, now_ms=NOW_MS + MINUTE, armed=snapshot, memory=memory)
        counts.append(len(seen))
    assert told(crowd[0]) == [("entered", ""), ("exited", "")]
    assert counts == [1 + statements, statements, statements]


@pytest.mark.django_db(transaction=True)
def test_it_wakes_evaluation_for_what_a_campaign_waits_for_and_for_nothing_else() -> None:
    brand = make_brand()
    device, other = make_device(brand), make_device(brand)
    wanted = make_circle(brand, track_visits=False)
    Arming.objects.create(brand=brand, campaign_id=1, geofence=wanted)
    Geofence.objects.filter(pk=wanted.pk).update(name="armed")  # any write runs the trigger
    listener = connection.copy()
    listener.connect()
    listener.connection.execute("LISTEN nearcast_transitions")

    def woken() -> int:
        """How often, up to a word of our own: whoever listens hears in the order of commits."""
        with connection.cursor() as cursor:
            cursor.execute("NOTIFY nearcast_transitions, 'so far'")
        heard = (one.payload for one in listener.connection.notifies(timeout=60))
        return len(list(takewhile(lambda payload: payload != "so far", heard)))

    take(fix(other, DOWN_THE_ROAD, NOW_MS))
    quiet = woken()
    take(fix(device, AT_THE_DOOR, NOW_MS))
    loud = woken()
    listener.close()
    assert (quiet, loud) == (0, 1)


class _counting:  # noqa: N801 - reads as a with-statement
    """Statements that went past Django's logger, on the raw connection."""

    def __enter__(self) -> list[str]:
        import psycopg

        self.seen: list[str] = []
        self._execute, self._copy = psycopg.Cursor.execute, psycopg.Cursor.copy

        def execute(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen.append(str(query))
            return self._execute(cursor, query, *args, **kwargs)

        def copy(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen.append(str(query))
            return self._copy(cursor, query, *args, **kwargs)

        psycopg.Cursor.execute, psycopg.Cursor.copy = execute, copy  # type: ignore[method-assign, assignment]
        return self.seen

    def __exit__(self, *_: object) -> None:
        import psycopg

        psycopg.Cursor.execute, psycopg.Cursor.copy = self._execute, self._copy  # type: ignore[method-assign]


@pytest.fixture
def two_racers() -> Iterator[list[threading.Thread]]:
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join()


@pytest.mark.django_db(transaction=True)
def test_two_batches_that_share_devices_in_opposite_order_both_finish(
    two_racers: list[threading.Thread],
) -> None:
    brand = make_brand()
    make_circle(brand)
    devices = [make_device(brand) for _ in range(40)]
    snapshot, answers = armed.load(), []

    def race(order: list[Device], offset: int) -> None:
        try:
            for turn in range(5):
                place = AT_THE_DOOR if turn % 2 else ACROSS_TOWN
                rows = [fix(each, place, NOW_MS + turn * MINUTE + offset) for each in order]
                answers.append(
                    (
                        ingest(assemble(rows), now_ms=NOW_MS + 20 * MINUTE, armed=snapshot)
                        == ACCEPTED
                    ).all()
                )
        finally:
            connection.close()

    for order, offset in ((devices, 0), (devices[::-1], 1)):
        two_racers.append(threading.Thread(target=race, args=(order, offset)))
        two_racers[-1].start()
    for thread in two_racers:
        thread.join()
    assert answers == [True] * 10
    stories = {tuple(told(each)) for each in devices}
    assert () not in stories
    assert all(
        [kind for kind, _ in story] == (["entered", "exited"] * 9)[: len(story)]
        for story in stories
    )
    assert Presence.objects.count() == sum(len(story) % 2 for story in map(told, devices))
    assert np.sum(list(DeviceState.objects.values_list("presences", flat=True))) == (
        Presence.objects.count()
    )


@pytest.mark.parametrize("more", [0, 130])  # a batch in one statement, and one that is copied
def test_it_trusts_its_memory_only_as_far_as_the_database_agrees(
    however_written: None, brand: Brand, more: int
) -> None:
    make_circle(brand)
    device, bystander = make_device(brand), make_device(brand)
    crowd = [make_device(brand) for _ in range(more)]
    memory, snapshot = Memory(1000), armed.load()

    def remembering(*rows: tuple[Any, ...]) -> list[int]:
        batch = assemble(list(rows))
        verdicts = ingest(batch, now_ms=NOW_MS, armed=snapshot, memory=memory)
        return [int(each) for each in verdicts]

    assert (
        remembering(fix(device, DOWN_THE_ROAD, NOW_MS), fix(bystander, DOWN_THE_ROAD, NOW_MS))
        == [ACCEPTED] * 2
    )
    # Another process takes a fix, the person withdraws consent: memory knows of neither.
    take(fix(device, AT_THE_DOOR, NOW_MS + MINUTE))
    assert remembering(
        fix(device, AT_THE_DOOR, NOW_MS + 2 * MINUTE),
        fix(bystander, AT_THE_DOOR, NOW_MS + 2 * MINUTE),
        *(fix(each, AT_THE_DOOR, NOW_MS + 2 * MINUTE) for each in crowd),
    ) == [ACCEPTED] * (2 + more)
    assert told(device) == told(bystander) == [("entered", "")]
    assert Fix.objects.count() == 5 + more
    assert Presence.objects.count() == 2 + more
    register_consent(device, location=False)
    codes = list(RejectCode)
    refused = remembering(fix(device, AT_THE_DOOR, NOW_MS + 3 * MINUTE))
    assert [codes[each] for each in refused] == [RejectCode.CONSENT_WITHDRAWN]
    register_consent(device, location=True)
    assert remembering(fix(device, AT_THE_DOOR, NOW_MS + 4 * MINUTE)) == [ACCEPTED]


def test_it_believes_its_memory_again_once_that_would_have_been_right(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.memory.PROOF", 1)
    memory, snapshot, times = Memory(1000), armed.load(), itertools.count(NOW_MS)

    def is_believed_after_one_more() -> bool:
        batch = assemble([fix(device, AT_THE_DOOR, next(times))])
        ingest(batch, now_ms=NOW_MS, armed=snapshot, memory=memory)
        return len(memory.recall(np.array([device.pk]))[0]) == 1

    assert is_believed_after_one_more()
    take(fix(device, AT_THE_DOOR, next(times)))  # by another process
    assert not is_believed_after_one_more()
    assert is_believed_after_one_more()


@pytest.fixture(params=["by id", "by place"])
def however_written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By place, hot rows are written where they lie, as in large batches, however few they are."""
    if request.param == "by place":
        monkeypatch.setattr(writing, "_MANY", 1)


def _looked_up() -> int:
    """Hot rows found by an index in this transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'devices_devicestate'"
        )
        return int(cursor.fetchone()[0])


def test_it_writes_rows_that_lie_apart_without_looking_them_up(
    brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_MANY", 2)
    crowd = [make_device(brand) for _ in range(150)]  # more than a page has room for
    near, beside, *_, far = crowd
    with connection.cursor() as cursor:  # planned as among many, whoever counted before
        cursor.execute("SET LOCAL random_page_cost = 0; SET LOCAL enable_seqscan = off")
        cursor.execute("ANALYZE devices_devicestate")  # and keeps autovacuum from counting anew
    memory, snapshot, times = Memory(1000), armed.load(), itertools.count(NOW_MS)

    def lookups(*devices: Device) -> int:
        at_ms = next(times)
        batch = assemble([fix(each, AT_THE_DOOR, at_ms) for each in devices])
        before = _looked_up()
        verdicts = ingest(batch, now_ms=NOW_MS, armed=snapshot, memory=memory)
        assert verdicts.tolist() == [ACCEPTED] * len(devices)
        return _looked_up() - before

    # Read and written the first time; then, every so often, PostgreSQL is led past the pages.
    rest = [0] * (writing._ROOM - 1)
    assert [lookups(near, far) for _ in range(2 * writing._ROOM)] == [4, *rest, 2, *rest]
    written = DeviceState.objects.filter(version=2 * writing._ROOM)
    assert {each.device_id for each in written} == {near.pk, far.pk}

    assert lookups(near, far) == 2
    assert lookups(near, beside) == 3  # one is read; and on one page the way by the index is short
    assert lookups(near, beside) == 2


def test_it_takes_a_row_for_no_other_wherever_it_lies(
    brand: Brand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_MANY", 1)
    device, other = make_device(brand), make_device(brand)
    memory, snapshot, times = Memory(1000), armed.load(), itertools.count(NOW_MS)

    def ingested(*devices: Device, memory: Memory = memory) -> None:
        at_ms = next(times)
        batch = assemble([fix(each, AT_THE_DOOR, at_ms) for each in devices])
        verdicts = ingest(batch, now_ms=NOW_MS, armed=snapshot, memory=memory)
        assert verdicts.tolist() == [ACCEPTED] * len(devices)

    def versions() -> list[int]:
        return list(DeviceState.objects.order_by("pk").values_list("version", flat=True))

    ingested(device, other)
    with connection.cursor() as cursor:  # as VACUUM FULL moves rows
        cursor.execute(
            "WITH lifted AS (DELETE FROM devices_devicestate RETURNING *)"
            " INSERT INTO devices_devicestate SELECT * FROM lifted"
        )
    ingested(device)
    ingested(other)
    assert versions() == [2, 2]
    with open_cursor() as raw:
        rows, beliefs = read(raw, np.array([device.pk]))
        (there,), _ = read(raw, np.array([other.pk]))
    rows["tid"] = there["tid"]
    mistaken = Memory(1000)
    mistaken.remember(rows, beliefs)
    ingested(device, memory=mistaken)
    assert versions() == [3, 2]
    assert Fix.objects.count() == 5


def test_it_relies_on_no_place_under_a_lock(device: Device) -> None:
    asked = np.array([device.pk])
    with transaction.atomic(), open_cursor() as cursor:
        assert read(cursor, asked)[0]["tid"] > 0
        assert read_locked(cursor, asked)[0]["tid"] == 0


def test_its_memory_holds_on_to_a_visit_that_is_not_armed_for_a_while(brand: Brand) -> None:
    unarmed = armed.load()
    make_circle(brand)
    device, memory, snapshot = make_device(brand), Memory(1000), armed.load()
    for turn, known in enumerate((snapshot, unarmed, unarmed, snapshot)):
        batch = assemble([fix(device, AT_THE_DOOR, NOW_MS + turn * MINUTE)])
        ingest(batch, now_ms=NOW_MS, armed=known, memory=memory)
    assert told(device) == [("entered", "")]
    assert Presence.objects.count() == 1


def register_consent(device: Device, *, location: bool) -> None:
    DeviceState.objects.filter(device=device).update(
        consent_location=location, version=F("version") + 1
    )


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([AT_THE_DOOR, DOWN_THE_ROAD])),
        min_size=1,
        max_size=12,
    )
)
@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_processes_with_memories_tell_what_one_with_locks_tells(
    however_written: None, brand: Brand, steps: list[tuple[int, Place]]
) -> None:
    if not Geofence.objects.filter(brand=brand).exists():
        make_circle(brand)
        make_circle(brand, confirm_fixes=2)  # beliefs that move on without a presence more or less
    snapshot, memories = armed.load(), [Memory(1000), Memory(1000)]
    alone, shared = make_device(brand), make_device(brand)
    for number, (chosen, place) in enumerate(steps):
        at_ms = NOW_MS + number * MINUTE
        if chosen == 4:  # a third writer, behind both
            for device in (alone, shared):
                reason = TransitionReason.CONSENT_WITHDRAWN
                leave_all(device.pk, reason=reason, armed=snapshot, now_ms=at_ms - 1)
        take(fix(alone, place, at_ms))
        memory = memories[chosen % 2]
        ingest(assemble([fix(shared, place, at_ms)]), now_ms=at_ms, armed=snapshot, memory=memory)
    assert told(shared) == told(alone)
    kept = [Fix.objects.filter(device_id=each.pk).count() for each in (alone, shared)]
    assert kept == [len(steps)] * 2


@pytest.mark.django_db(transaction=True)
def test_it_takes_up_again_after_the_database_hung_up() -> None:
    device = make_device(make_brand())
    at_ms = time.time_ns() // 1_000_000
    gatherer = Gatherer(armed.load)

    def submit(rows: list[Any]) -> list[int]:
        return [int(each) for each in gatherer._attempt_twice(rows)]

    assert submit([fix(device, DOWN_THE_ROAD, at_ms)]) == [ACCEPTED]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (process,) = cursor.fetchone()
    stranger = connection.copy()
    with stranger.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (process,))
    stranger.close()
    assert submit([fix(device, AT_THE_DOOR, at_ms + 1)]) == [ACCEPTED]
    assert Fix.objects.filter(device_id=device.pk).count() == 2

"""Partitions of the history: there before they are needed, gone when they are not."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction

from devices import retention
from devices.models import Event, Fix, Transition
from devices.retention import DAYS_AHEAD, keep, partitions
from tests.campaigns.rows import make_event, make_transition
from tests.factories import make_brand, make_circle, make_device
from tests.waiting import Late

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def fix(received_at: datetime) -> Fix:
    return Fix(
        device_id=1,
        key=int(received_at.timestamp()),
        received_at=received_at,
        recorded_at=received_at,
        lat=1,
        lng=2,
        verdict=0,
    )


def test_it_makes_the_partitions_of_the_next_days_once() -> None:
    keep(now=NOON)
    keep(now=NOON)
    days = {date(2026, 3, 10) + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)}
    assert partitions() >= days


@pytest.mark.parametrize(
    "table", ["devices_fix_default", "devices_fix_20260310", "devices_fix_20260313"]
)
def test_it_spares_what_is_written_all_day_the_usual_upkeep(table: str) -> None:
    keep(now=NOON)
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE oid = %s::regclass", (table,))
        assert set(cursor.fetchone()[0]) == {
            "autovacuum_vacuum_insert_scale_factor=1",
            "autovacuum_analyze_scale_factor=1",
        }


def test_it_takes_over_what_the_default_partition_caught() -> None:
    Fix.objects.bulk_create([fix(NOON), fix(NOON + timedelta(days=20))])
    keep(now=NOON)
    assert Fix.objects.count() == 2
    assert partitions() >= {NOON.date()}


def test_it_takes_over_what_lands_there_meanwhile(
    transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PATIENCE", "60s")
    settings.FIX_RETENTION_DAYS = 10_000  # the partitions that the other tests need stay
    day = datetime(2031, 3, 10, 12, tzinfo=UTC)
    with transaction.atomic():
        Fix.objects.bulk_create([fix(day)])
        late = Late(lambda: keep(now=day))
    late.answer()

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM devices_fix_20310310")
        assert cursor.fetchone() == (1,)
        for made in partitions():
            if made >= day.date():
                cursor.execute(f'DROP TABLE "devices_fix_{made:%Y%m%d}"')


def test_it_drops_what_the_retention_no_longer_covers(settings: Any) -> None:
    settings.FIX_RETENTION_DAYS = 5
    keep(now=NOON)
    Fix.objects.bulk_create(
        [fix(NOON), fix(NOON - timedelta(days=3)), fix(NOON - timedelta(days=9))]
    )
    keep(now=NOON)
    assert Fix.objects.count() == 2
    keep(now=NOON + timedelta(days=6))
    assert Fix.objects.count() == 0
    assert NOON.date() not in partitions()


def test_it_gives_up_for_now_where_somebody_reads_the_history(
    transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PATIENCE", "100ms")
    settings.FIX_RETENTION_DAYS = 10_000
    today = datetime(2033, 3, 10, 12, tzinfo=UTC)
    old = date(1999, 1, 1)
    with transaction.atomic():
        retention._make(old)
    refused: list[str] = []

    def keep_beside_a_reader() -> None:
        try:
            keep(now=today)
        except OperationalError as error:
            refused.append(str(error))
        finally:
            connections.close_all()

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM devices_fix")
        keeper = threading.Thread(target=keep_beside_a_reader)
        keeper.start()
        keeper.join()
        cursor.execute("SELECT count(*) FROM devices_fix")
        assert cursor.fetchone() == (0,)
    assert "lock timeout" in refused[0]
    assert old in partitions()

    keep(now=today)

    assert partitions() >= {today.date(), today.date() + timedelta(days=DAYS_AHEAD)}
    assert old not in partitions()
    with connection.cursor() as cursor:
        for made in partitions():
            if made >= today.date():
                cursor.execute(f'DROP TABLE "devices_fix_{made:%Y%m%d}"')


def test_it_forgets_transitions_and_events_that_nobody_can_ask_for(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ACTIVITY_RETENTION_DAYS = 30
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    brand = make_brand()
    shop = make_circle(brand)
    now = datetime.now(UTC)
    for days_ago, is_settled in ((40, True), (35, False), (33, True), (31, True), (29, True)):
        at, device = now - timedelta(days=days_ago), make_device(brand)
        settled = {"processed_at": at if is_settled else None}
        make_transition(device, shop)
        Transition.objects.filter(device_id=device.pk).update(recorded_at=at, **settled)
        make_event(device, brand, "purchase")
        Event.objects.filter(device_id=device.pk).update(received_at=at, **settled)

    looks = [retention.forget(now=now) for _ in range(3)]

    assert looks == [2, 2, 2]
    left = [now - timedelta(days=35), now - timedelta(days=29)]
    assert list(Transition.objects.order_by("id").values_list("recorded_at", flat=True)) == left
    assert list(Event.objects.order_by("id").values_list("received_at", flat=True)) == left

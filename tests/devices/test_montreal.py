"""Two real outings of one phone against the events that its own operating system raised.

docs/replays.md explains every difference that is pinned here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.contrib.gis.geos import Point

from brands.models import Brand
from devices.clock import run_due
from devices.fixes import FixIn, assemble, row_of, to_epoch_ms
from devices.ingest import ingest
from devices.models import Device, Transition
from geofences import armed, writing
from geofences.models import Geofence
from tests.factories import make_brand, make_device

KINDS = {"ENTER": "entered", "DWELL": "dwelled", "EXIT": "exited"}
LOITERING_S = 60  # what the phone's own dwells followed their entries by
pytestmark = [pytest.mark.shared_data, pytest.mark.django_db]

END = datetime(2020, 10, 27, 23, tzinfo=UTC)


class Moment(NamedTuple):
    """Something that happened at a circle; by name, as people speak of them."""

    at: str  # day and time
    kind: str
    circle: str


def moment(at: datetime, kind: str, circle: str) -> Moment:
    return Moment(f"{at:%d %H:%M:%S}", kind, circle.removeprefix("[RN] "))


def rows(path: Path) -> Iterable[dict[str, str]]:
    with path.open() as file:
        yield from csv.DictReader(file)


@pytest.fixture
def brand(shared_data: Path) -> Brand:
    """The phone's eight circles, with the dwell it was told to report."""
    brand = make_brand()
    circles = json.loads((shared_data / "montreal" / "geofences_circles.geojson").read_text())
    writing.save(
        [
            Geofence(
                brand=brand,
                name=each["properties"]["identifier"],
                geometry=Point(each["geometry"]["coordinates"], srid=4326),
                radius_m=each["properties"]["radius_m"],
                track_visits=True,
                dwell_s=LOITERING_S,
            )
            for each in circles["features"]
        ]
    )
    return brand


def walk(device: Device, path: Path) -> list[Moment]:
    """The outings as they were lived: every fix at its own time, the clock in between."""
    snapshot = armed.load()
    last_ms = 0
    for each in rows(path):
        item = FixIn(
            lat=float(each["lat"]),
            lng=float(each["lng"]),
            recorded_at=datetime.fromisoformat(each["ts"]),
            accuracy_m=float(each["accuracy_m"]),
            speed_mps=float(each["speed_mps"]),
            id=each["uuid"],
        )
        at_ms = to_epoch_ms(item.recorded_at)
        assert at_ms >= last_ms, "the file is in order"
        last_ms = at_ms
        run_due(now=at_ms - 1, armed=snapshot)
        row = row_of(item, device_id=device.pk, brand_id=device.brand_id, serial=1)
        ingest(assemble([row]), now_ms=at_ms, armed=snapshot)
    run_due(now=to_epoch_ms(END), armed=snapshot)
    names = dict(Geofence.objects.values_list("pk", "name"))
    return [
        moment(each.occurred_at, each.kind, names[each.geofence_id])
        for each in Transition.objects.filter(device_id=device.pk).order_by("occurred_at", "id")
    ]


def heard(path: Path) -> list[Moment]:
    """What the phone's operating system raised."""
    return [
        moment(datetime.fromisoformat(each["ts"]), KINDS[each["action"]], each["identifier"])
        for each in rows(path)
    ]


def of_kind(moments: list[Moment], kind: str) -> list[tuple[str, str]]:
    return [(each.circle, each.at) for each in moments if each.kind == kind]


def seconds(at: str) -> float:
    return datetime.strptime(at, "%d %H:%M:%S").replace(tzinfo=UTC).timestamp()


def delays(theirs: list[Moment], ours: list[Moment], kind: str) -> list[tuple[str, float]]:
    """How much later ours came, for each of the phone's; both tell of the same circles in order."""
    pairs = zip(of_kind(theirs, kind), of_kind(ours, kind), strict=True)
    told = []
    for (circle, at), (our_circle, our_at) in pairs:
        assert circle == our_circle
        told.append((circle, seconds(our_at) - seconds(at)))
    return told


@pytest.fixture
def folder(shared_data: Path) -> Path:
    return shared_data / "montreal"


def outings(brand: Brand, folder: Path) -> tuple[list[Moment], list[Moment]]:
    ours = walk(make_device(brand), folder / "locations_until_2020-10-31.csv")
    return ours, heard(folder / "geofence_events_until_2020-10-31.csv")


def test_it_enters_when_the_phones_own_system_did(brand: Brand, folder: Path) -> None:
    ours, theirs = outings(brand, folder)

    assert [late_s for _, late_s in delays(theirs, ours, "entered")] == [
        *(0, 0, 0, 0),
        -1,  # Parc Couches Tard: the fix before was inside too, and sure enough for us
        *(0, 0, 0),
        -2,  # Parc & Fairmount, as above
        0,
        -2,  # Home, as above
    ]


def test_it_leaves_later_by_the_exit_buffer_and_after_silence(brand: Brand, folder: Path) -> None:
    ours, theirs = outings(brand, folder)

    assert of_kind(theirs, "exited") == [
        ("Parc & Fairmount", "26 19:43:31"),
        ("Home", "27 17:06:27"),
        ("Laurier & Côtes Saint Catherines", "27 17:07:11"),
        ("Parc Couches Tard", "27 17:09:49"),
        ("Mountain 1", "27 17:12:30"),
        ("Rope Park", "27 17:35:26"),
        ("Parc Couches Tard", "27 17:38:57"),
        ("Parc & Fairmount", "27 17:40:58"),
        ("5 Saison", "27 18:08:13"),
    ]
    assert of_kind(ours, "exited") == [
        ("Parc & Fairmount", "26 19:44:02"),
        ("Home", "26 20:47:23"),  # silent for an hour
        ("Home", "27 15:24:24"),  # again; the phone's own exit comes with its next fix
        ("Laurier & Côtes Saint Catherines", "27 17:07:11"),
        ("Parc Couches Tard", "27 17:10:55"),
        ("Mountain 1", "27 17:12:38"),
        ("Rope Park", "27 17:35:39"),
        ("Parc Couches Tard", "27 17:38:57"),
        ("Parc & Fairmount", "27 17:40:58"),
        ("5 Saison", "27 18:08:27"),
        ("Home", "27 19:12:02"),  # after the recording's end
    ]


def test_it_leaves_as_the_phone_did_without_buffer_and_with_patience(
    brand: Brand, folder: Path, settings: Any
) -> None:
    settings.SILENCE_S = 24 * 3600
    Geofence.objects.filter(brand=brand).update(exit_buffer_m=0)
    ours, theirs = outings(brand, folder)

    assert max(abs(late_s) for _, late_s in delays(theirs, ours, "exited")) <= 5


def test_it_dwells_on_time_where_the_phones_timer_was_late_or_missing(
    brand: Brand, folder: Path
) -> None:
    ours, theirs = outings(brand, folder)

    assert of_kind(theirs, "dwelled") == [
        ("Parc & Fairmount", "26 19:40:21"),
        ("Home", "26 19:43:31"),
        ("Home", "27 14:24:24"),  # 141 s after its entry
        ("Rope Park", "27 17:34:40"),
        ("Parc & Fairmount", "27 17:40:30"),
        ("5 Saison", "27 18:06:34"),  # 7 s after its entry
        ("Home", "27 18:10:12"),
    ]
    assert of_kind(ours, "dwelled") == [
        ("Parc & Fairmount", "26 19:40:19"),
        ("Home", "26 19:43:32"),
        ("Home", "27 14:23:03"),
        ("Parc Couches Tard", "27 17:09:54"),  # on the edge, within the exit buffer
        ("Mountain 1", "27 17:11:55"),  # inside for 95 s by the phone's own events
        ("Rope Park", "27 17:34:33"),
        ("Parc Couches Tard", "27 17:38:25"),  # inside for 92 s by the phone's own events
        ("Parc & Fairmount", "27 17:40:27"),
        ("5 Saison", "27 18:07:27"),
        ("Home", "27 18:10:06"),
    ]

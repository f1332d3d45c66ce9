"""What real apps sent, read without a server; and nothing that can be sent breaks the reading."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.doors.decoding import Refused
from devices.doors.dialects import Dialect, Head, Letter
from devices.doors.owntracks import OwnTracks
from devices.doors.radar import Radar, RadarReplay
from devices.doors.traccar import Traccar
from devices.doors.transistor import Transistor
from devices.fixes import FixIn, assemble, bounds, row_of, to_epoch_ms

NOW_MS = 1_790_000_000_000
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
EVERY: tuple[Dialect, ...] = (OwnTracks(), Traccar(), Transistor(), Radar(), RadarReplay())


def read(dialect: Dialect, body: Any = b"", kind: str = JSON, query: str = "") -> Letter:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return dialect.read(Head("POST", b"", kind, query.encode(), NOW_MS), content)


def lines_of(path: Path, test: str) -> list[tuple[str, list[str]]]:
    """What a peer's own test sends, and what it asserts of it."""
    lines = map(json.loads, path.read_text().splitlines())
    return [(each["assertion"], each["literals"]) for each in lines if each["test"] == test]


def row(fix: FixIn) -> tuple[Any, ...]:
    return row_of(fix, device_id=1, brand_id=1, serial=1)


def test_it_reads_what_traccars_tests_send(shared_data: Path) -> None:
    path = shared_data / "payloads" / "traccar_protocol_payloads.jsonl"
    sent = lines_of(path, "OsmAndProtocolDecoderTest")
    assert len(sent) > 10
    for assertion, literals in sent:
        (said,) = (each for each in literals if each.startswith(("/?", "{")))
        if said.startswith("/?"):
            letter = read(Traccar(), kind="", query=said[2:])
        else:
            letter = read(Traccar(), said.encode())
        assert bool(letter.token) == (assertion != "verifyNull"), said
        assert not letter.fixes.rejected, said
        assert len(letter.fixes.items) == ("lat" in said or "location=" in said), said
        assert all(str(each.lat)[:4] in said for each in letter.fixes.items), said


def test_it_reads_what_owntracks_tests_send(shared_data: Path) -> None:
    path = shared_data / "payloads" / "traccar_protocol_payloads.jsonl"
    sent = lines_of(path, "OwnTracksProtocolDecoderTest")
    assert len(sent) > 4
    for _, literals in sent:
        said = json.loads(literals[-1])
        (fix,) = read(OwnTracks(), said).fixes.items
        assert (fix.lat, fix.lng, fix.recorded_at) == (said["lat"], said["lon"], said["tst"])
        assert fix.speed_mps == pytest.approx(said["vel"] / 3.6 if "vel" in said else None)


def test_it_reads_what_transistors_sdk_sends(shared_data: Path) -> None:
    samples = json.loads((shared_data / "payloads/transistor_location_samples.json").read_text())
    for name in ("location", "location2"):
        said = samples[name]
        (fix,) = read(Transistor(), {"location": said}).fixes.items
        assert (fix.lat, fix.lng) == (said["coords"]["latitude"], said["coords"]["longitude"])
        assert fix.id == said["uuid"]
        assert fix.recorded_at == datetime.fromisoformat(said["timestamp"])


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("1377177267", datetime(2013, 8, 22, 13, 14, 27, tzinfo=UTC)),
        ("1442068686579", datetime(2015, 9, 12, 14, 38, 6, 579000, tzinfo=UTC)),
        ("2016-01-27T18:55:47Z", datetime(2016, 1, 27, 18, 55, 47, tzinfo=UTC)),
        ("2016-01-27T18:55:47+02:00", datetime(2016, 1, 27, 16, 55, 47, tzinfo=UTC)),
        ("2014-06-04 09:10:11", datetime(2014, 6, 4, 9, 10, 11, tzinfo=UTC)),
    ],
)
def test_it_reads_a_time_however_it_is_written(said: str, at: datetime) -> None:
    query = urlencode({"id": "x", "lat": 1, "lon": 2, "timestamp": said})
    (fix,) = read(Traccar(), kind="", query=query).fixes.items
    assert to_epoch_ms(fix.recorded_at) == int(at.timestamp() * 1000)


def test_it_takes_now_for_the_time_of_what_says_none() -> None:
    (fix,) = read(Traccar(), kind="", query="id=x&lat=60.0&lon=30.0").fixes.items
    assert to_epoch_ms(fix.recorded_at) == NOW_MS
    (fix,) = read(Radar(), {"latitude": 1, "longitude": 2}).fixes.items
    assert to_epoch_ms(fix.recorded_at) == NOW_MS


def test_it_takes_no_position_that_the_receiver_did_not_have() -> None:
    letter = read(Traccar(), kind="", query="id=x&lat=60.0&lon=30.0&valid=false")
    assert not letter.fixes.items
    assert [each.message for each in letter.fixes.rejected] == ["valid: The receiver had no fix."]


@pytest.mark.parametrize("said", [{"mock": True}, {"mocked": True}])
def test_it_reads_that_a_position_was_made_up(said: dict[str, bool]) -> None:
    coords = {"latitude": 1, "longitude": 2}
    record = {"timestamp": "2026-01-01T00:00:00Z", "coords": coords}
    letters = (
        (read(Transistor(), record | said), "mock"),
        (read(Traccar(), {"location": record | said}), "mock"),
        (read(Radar(), coords | said), "mocked"),
    )
    for letter, name in letters:
        assert bool(letter.fixes.items[0].mock) == (name in said)


PLACE = {"latitude": 60.1, "longitude": 24.9}
RECORD = {"timestamp": "2026-01-01T00:00:00Z", "coords": PLACE}


@pytest.mark.parametrize(
    ("dialect", "said"),
    [
        *((Transistor(), said) for said in ({}, None, 7, "x", [7], {"location": None})),
        (Transistor(), {"data": [RECORD]}),
        (Transistor(), {"locations": [RECORD]}),
        (Transistor(), {"location": {"lat": 60.1, "lng": 24.9, "timestamp": 1}}),
        (Transistor(), {"location": [None, {"lat": 60.1}]}),
        *((Traccar(), {"id": "x"} | said) for said in ({"lat": 60.1, "lon": 24.9}, RECORD)),
        *((Traccar(), {"id": "x", "location": said}) for said in (None, 7, "60.1,24.9", PLACE)),
        (Traccar(), {"id": "x", "locations": [RECORD]}),
    ],
)
def test_it_has_the_phone_keep_a_body_in_which_it_finds_no_record(
    dialect: Dialect, said: Any
) -> None:
    with pytest.raises(Refused) as refused:
        read(dialect, said)
    assert refused.value.status == 422
    assert list(refused.value.fields) == ["location"]


@pytest.mark.parametrize(
    ("dialect", "said", "found"),
    [
        (Transistor(), [], (0, [])),
        (Transistor(), {"location": {"event": "heartbeat"}}, (0, [])),
        (Transistor(), [{"lat": 60.1}, RECORD], (1, ["coords: Required."])),
        (Traccar(), {"id": "x"}, (0, [])),
        (Traccar(), {"id": "x", "location": [RECORD, RECORD]}, (2, [])),
    ],
)
def test_it_takes_what_it_can_of_records(
    dialect: Dialect, said: Any, found: tuple[int, list[str]]
) -> None:
    items, _, rejected = read(dialect, said).fixes
    assert (len(items), [one.message for one in rejected]) == found


NAMES = (
    *("_type", "lat", "lon", "tst", "acc", "vel", "cog", "alt", "batt", "id", "deviceid"),
    *("device_id", "location", "timestamp", "coords", "latitude", "longitude", "accuracy", "speed"),
    *("heading", "bearing", "battery", "level", "uuid", "mock", "valid", "replays", "updatedAt"),
    *("locationMs", "updatedAtMsDiff", "notificationToken", "pushNotificationToken"),
)
WORDS = st.sampled_from(
    [
        *("location", "transition", "encrypted", "nan", "inf", "-1", "1e999", "true", "", "\0"),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01", "60.0,30.0"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
    ),
    max_leaves=20,
)


def read_or_refused(dialect: Dialect, body: Any, kind: str, query: str) -> list[FixIn]:
    with suppress(Refused):
        return read(dialect, body, kind, query).fixes.items
    return []


@given(said=VALUES)
def test_it_reads_or_refuses_whatever_is_sent(said: Any) -> None:
    fields = {name: str(part) for name, part in said.items()} if isinstance(said, dict) else {}
    form = urlencode(fields, errors="replace")
    for dialect in EVERY:
        for body, kind, query in ((said, JSON, ""), (form.encode(), FORM, ""), (b"", "", form)):
            rows = [row(each) for each in read_or_refused(dialect, body, kind, query)]
            if rows:
                assert len(bounds(assemble(rows), now_ms=NOW_MS)) == len(rows)

"""Recorded movements read from the tables people have them in."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from devices.traces import TraceError, columns_of, read

ROWS = (
    "device_id,ts,lat,lng,accuracy_m\n"
    "a,2026-01-05T09:00:00Z,60.1,24.9,5\n"
    "b,2026-01-05T09:00:01Z,60.2,24.8,\n"
    "a,2026-01-05T08:59:00Z,60.3,24.7,7\n"
)


def test_it_keeps_each_devices_fixes_in_the_files_order(tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    path.write_text(ROWS)

    trace = read(path)

    assert [track.name for track in trace.tracks] == ["a", "b"]
    assert trace.tracks[0].lat.tolist() == [60.1, 60.3]
    assert np.diff(trace.tracks[0].at_ms).tolist() == [-60_000]
    assert np.isnan(trace.tracks[1].measures["accuracy_m"]).all()


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_it_reads_the_same_from_every_format(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"walk.{kind}"
    plain = tmp_path / "plain.csv"
    plain.write_text(ROWS)
    if kind == "parquet":
        pd.read_csv(plain).to_parquet(path)
    else:
        path.write_bytes(gzip.compress(ROWS.encode()) if kind.endswith("gz") else ROWS.encode())

    trace = read(path)

    assert len(trace) == 3
    assert (trace.begin_ms, trace.end_ms) == (1_767_603_540_000, 1_767_603_601_000)


@pytest.mark.parametrize(
    ("time", "expected_ms"),
    [
        ("2026-01-05T09:00:00Z", 1_767_603_600_000),
        ("2026-01-05 10:00:00+01:00", 1_767_603_600_000),
        ("2026-01-05T09:00:00.250", 1_767_603_600_250),
        ("1767603600", 1_767_603_600_000),
        ("1767603600250", 1_767_603_600_250),
        ("1767603600.25", 1_767_603_600_250),
    ],
)
def test_it_reads_times_as_people_write_them(tmp_path: Path, time: str, expected_ms: int) -> None:
    path = tmp_path / "walk.csv"
    path.write_text(f"Timestamp,Latitude,Longitude\n{time},60.1,24.9\n")

    trace = read(path)

    assert trace.begin_ms == expected_ms
    assert trace.tracks[0].name == "walk"


def test_it_counts_rows_that_have_no_time_or_place(tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    path.write_text(
        "ts,lat,lng\n2026-01-05T09:00:00Z,60,24\nsoon,60,24\n2026-01-05T09:00:00Z,,24\n"
    )

    trace = read(path)

    assert (len(trace), trace.unreadable) == (1, 2)


def test_it_takes_columns_that_are_named(tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    path.write_text("who,when,lat,lng,speed\nx,2026-01-05T09:00:00Z,60,24,2.5\n")

    trace = read(path, {"device": "who", "time": "when", "speed_mps": "speed"})

    assert trace.tracks[0].name == "x"
    assert trace.tracks[0].measures["speed_mps"].tolist() == [2.5]


def test_it_does_not_guess_the_unit_of_a_speed() -> None:
    assert "speed_mps" not in columns_of(["ts", "lat", "lng", "speed"])


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["lat", "lng"], {}, "no column looks like time"),
        (["ts", "lat", "lng"], {"time": "when"}, "no such column: when"),
        (["ts", "lat", "lng"], {"when": "ts"}, "no such part: when"),
    ],
)
def test_it_says_what_is_missing(names: list[str], given: dict[str, str], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        columns_of(names, given)


def test_it_refuses_a_file_that_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "walk.parquet"
    path.write_bytes(b"not a table")

    with pytest.raises(TraceError):
        read(path)


def test_it_does_not_guess_the_order_of_day_and_month(tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    path.write_text("ts,lat,lng\n05/01/2026 09:00,60,24\n")

    with pytest.raises(TraceError, match="ISO 8601"):
        read(path)


def test_it_gives_the_fixes_in_the_order_of_events(tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    path.write_text(ROWS)

    trace = read(path).in_time()

    assert trace.tracks[0].lat.tolist() == [60.3, 60.1]
    assert trace.tracks[0].measures["accuracy_m"].tolist() == [7, 5]


def test_it_moves_tracks_so_that_all_end_together(tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    path.write_text(ROWS)

    trace = read(path).together()

    assert {int(track.at_ms.max()) for track in trace.tracks} == {trace.end_ms}
    assert np.diff(trace.tracks[0].at_ms).tolist() == [-60_000]

"""Reads recorded movements from any table (CSV, Parquet, gzip) into arrays; it sends nothing.

Columns are found by their usual names; what has no unit in its name (`speed`) is not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

KNOWN_AS: Mapping[str, tuple[str, ...]] = {
    "device": ("device_id", "device", "vehicle_id", "vehicle", "phone", "user_id", "uid", "imei"),
    "time": ("recorded_at", "ts", "timestamp", "time", "datetime", "date_time"),
    "lat": ("lat", "latitude", "y"),
    "lng": ("lng", "lon", "long", "longitude", "x"),
    "accuracy_m": ("accuracy_m", "accuracy", "horizontal_accuracy", "hacc"),
    "speed_mps": ("speed_mps", "speed_m_s"),
    "heading_deg": ("heading_deg", "heading", "bearing", "course"),
    "altitude_m": ("altitude_m", "altitude", "elevation"),
}
NEEDED = ("time", "lat", "lng")
MEASURES = ("accuracy_m", "speed_mps", "heading_deg", "altitude_m")
EPOCH_MS_FROM = 100_000_000_000  # smaller numbers are seconds (year 5138)


class TraceError(Exception):
    """The file is not a trace; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One device's fixes in the order of the file; unknown is NaN."""

    name: str
    at_ms: NDArray[np.int64]
    lat: NDArray[np.float64]
    lng: NDArray[np.float64]
    measures: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.at_ms)

    def in_time(self) -> Track:
        """The same fixes in the order of their times."""
        order = np.argsort(self.at_ms, kind="stable")
        measures = {part: values[order] for part, values in self.measures.items()}
        return Track(
            name=self.name,
            at_ms=self.at_ms[order],
            lat=self.lat[order],
            lng=self.lng[order],
            measures=measures,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """All tracks of a file, and how many rows had no time or no place to send at all."""

    tracks: list[Track]
    unreadable: int

    @property
    def begin_ms(self) -> int:
        return min(int(track.at_ms.min()) for track in self.tracks)

    @property
    def end_ms(self) -> int:
        return max(int(track.at_ms.max()) for track in self.tracks)

    def __len__(self) -> int:
        return sum(len(track) for track in self.tracks)

    def in_time(self) -> Trace:
        """The same tracks, each in the order of its times: as the phone lived them.

        Exports are often grouped by trip or written by several hands.
        """
        return Trace(tracks=[track.in_time() for track in self.tracks], unreadable=self.unreadable)

    def together(self) -> Trace:
        """The same tracks, moved in time so that all end at the same moment.

        For recordings spread over months: a server takes no fix that is weeks old.
        """
        end_ms = self.end_ms
        tracks = [
            replace(track, at_ms=track.at_ms + (end_ms - int(track.at_ms.max())))
            for track in self.tracks
        ]
        return Trace(tracks=tracks, unreadable=self.unreadable)


def columns_of(names: list[str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Which column plays which part; `given` overrides what the names suggest."""
    given = given or {}
    unknown = [part for part in given if part not in KNOWN_AS]
    absent = [name for name in given.values() if name not in names]
    if unknown:
        raise TraceError(f"no such part: {', '.join(unknown)}; there are {', '.join(KNOWN_AS)}")
    if absent:
        raise TraceError(f"no such column: {', '.join(absent)}; there are {', '.join(names)}")
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    found = dict(given)
    for part, usual in KNOWN_AS.items():
        match = next((by_lower[name] for name in usual if name in by_lower), None)
        if part not in found and match is not None:
            found[part] = match
    missing = [part for part in NEEDED if part not in found]
    if missing:
        raise TraceError(
            f"no column looks like {' or '.join(missing)} among {', '.join(names)}; "
            f"say which it is, as in --columns {missing[0]}={names[0]}"
        )
    return found


def instants(column: Any) -> NDArray[np.int64]:
    """Epoch milliseconds of ISO 8601 texts or epoch numbers; unreadable ones are the minimum."""
    if pd.api.types.is_numeric_dtype(column):
        numbers = pd.to_numeric(column).to_numpy(dtype=float)
        return _whole(np.where(np.abs(numbers) >= EPOCH_MS_FROM, numbers, numbers * 1000))
    # ISO 8601 only: whether 05/01 is in May is not for us to guess.
    times = pd.to_datetime(column, utc=True, errors="coerce", format="ISO8601")
    at = times.dt.as_unit("ms").astype("int64").to_numpy()
    return np.where(times.isna().to_numpy(), np.iinfo(np.int64).min, at)


def _whole(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    missing = ~np.isfinite(numbers)
    whole = np.where(missing, 0, numbers).astype(np.int64)
    return np.where(missing, np.iinfo(np.int64).min, whole)


def read(path: Path, given: Mapping[str, str] | None = None) -> Trace:
    """The trace in a file; without a device column all rows are one device's.

    Rows keep the file's order within a device; `in_time` gives the order of events.
    """
    try:
        table = (
            pd.read_parquet(path)
            if path.suffix.lower() in {".parquet", ".pq"}
            else pd.read_csv(path, low_memory=False)
        )
    except (ValueError, UnicodeDecodeError) as failure:  # pandas' parse errors are ValueErrors
        raise TraceError(f"{path} is neither CSV nor Parquet: {failure}") from failure
    columns = columns_of([str(name) for name in table.columns], given)
    at_ms = instants(table[columns["time"]])
    numbers = {
        part: pd.to_numeric(table[columns[part]], errors="coerce").to_numpy(dtype=float)
        for part in ("lat", "lng", *MEASURES)
        if part in columns
    }
    readable = (
        (at_ms > np.iinfo(np.int64).min) & np.isfinite(numbers["lat"]) & np.isfinite(numbers["lng"])
    )
    if not readable.any():
        raise TraceError(
            f"{path} has no row with a time (ISO 8601 or epoch), a latitude and a longitude"
        )
    names = (
        table[columns["device"]].astype(str).to_numpy()
        if "device" in columns
        else np.full(len(table), path.name.partition(".")[0], dtype=object)
    )
    codes, unique = pd.factorize(names[readable])
    order = np.argsort(codes, kind="stable")
    kept = np.flatnonzero(readable)[order]
    bounds = np.searchsorted(codes[order], np.arange(len(unique) + 1))
    tracks = [
        Track(
            name=str(name),
            at_ms=at_ms[rows],
            lat=numbers["lat"][rows],
            lng=numbers["lng"][rows],
            measures={part: numbers[part][rows] for part in MEASURES if part in numbers},
        )
        for name, rows in (
            (name, kept[bounds[number] : bounds[number + 1]]) for number, name in enumerate(unique)
        )
    ]
    return Trace(tracks=tracks, unreadable=int((~readable).sum()))

"""Reads files of people as rows of columns, some thousand at a time. It judges no row.

Tables as `geofences.files` reads them (CSV, Excel, Parquet), and NDJSON: a line is an object of
columns, or `{"external_id", "attributes"}` as the gateway takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from brands.filejobs import FileError
from devices.columns import ProfilePlan, guess
from geofences import files

ENDINGS = (".csv", ".tsv", ".txt", ".xlsx", ".ods", ".parquet", ".pq", ".ndjson", ".jsonl")
LINES = frozenset({".ndjson", ".jsonl"})
CHUNK_ROWS = 1_000
SAMPLE_ROWS = 1_000
MAX_LINE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a file looks like before it is imported."""

    columns: tuple[str, ...]
    rows: int | None  # of a text: about
    guess: ProfilePlan
    sample: tuple[dict[str, Any], ...] = field(default=(), repr=False)


Row = tuple[dict[str, Any], str]
"""The values by column, or none and why."""


def look(path: Path) -> Layout:
    """Describe a file and guess its columns. Raises FileError where there is nothing to read."""
    head = list(islice(_rows(path), SAMPLE_ROWS))
    if not head:
        raise FileError(files.NO_ROWS)
    sample = [values for values, why in head if not why]
    if path.suffix.lower() in LINES:
        names: tuple[str, ...] = tuple(dict.fromkeys(name for row in sample for name in row))
        rows: int | None = files.lines(path)
    else:
        names, rows = files.describe(path)
    if not names:
        raise FileError("The file has no columns.")
    return Layout(columns=names, rows=rows, guess=guess(names, sample), sample=tuple(sample))


def read(path: Path) -> Iterator[list[Row]]:
    """Yield the rows of a file, a chunk at a time. Raises FileError."""
    rows = _rows(path)
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix.lower() in LINES:
        yield from _lines(path)
    else:
        for values in files.values(path):
            for row in values:
                yield row, ""


def _lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES:
                raise FileError(f"A line is longer than {MAX_LINE_BYTES:,} bytes.")
            if line.strip():
                yield _line(line)


def _line(line: bytes) -> Row:
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return {}, f"not JSON: {error}"
    if not isinstance(row, dict):
        return {}, "not a JSON object"
    inner = row.pop("attributes", None)
    return row | inner if isinstance(inner, dict) else row, ""

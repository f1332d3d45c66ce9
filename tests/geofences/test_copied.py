"""Rows of a COPY, taken apart many at a time, say what each of them said."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofences.copied import taken_apart

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the database says of one geofence."""

    id: int = 1
    exit_buffer_m: float = 20.0
    confirm_s: int = 0
    resolution: int = 9
    campaign: bool = False
    blocks: bytes = b""
    hot: bytes = b""
    cold: bytes = b""
    dwells: tuple[int, ...] = ()


def message(row: Row) -> memoryview:
    """As PostgreSQL sends it."""
    shape = struct.pack("<2I", len(row.hot) // 8, len(row.cold) // 8) + row.hot + row.cold
    fields = (
        *(struct.pack(">q", row.id), struct.pack(">q", 7), struct.pack(">i", 3)),
        *(struct.pack(">d", row.exit_buffer_m), struct.pack(">h", 2)),
        *(struct.pack(">i", row.confirm_s), struct.pack(">q", 1_700_000_000_123)),
        *(struct.pack(">?", row.campaign), struct.pack(">h", row.resolution)),
        *(struct.pack(">i", len(shape)), struct.pack(">i", len(row.hot))),
        *(row.blocks, shape, " ".join(map(str, row.dwells)).encode()),
    )
    return memoryview(
        struct.pack(">h", len(fields))
        + b"".join(struct.pack(">i", len(field)) + field for field in fields)
    )


def words(most: int) -> st.SearchStrategy[bytes]:
    return st.integers(0, most).flatmap(
        lambda size: st.binary(min_size=8 * size, max_size=8 * size)
    )


rows = st.builds(
    Row,
    id=st.integers(1, 2**62),
    exit_buffer_m=st.floats(0, 1_000, width=32),
    confirm_s=st.integers(0, 2**31 - 1),
    resolution=st.integers(0, 12),
    campaign=st.booleans(),
    blocks=words(9),
    hot=words(40),
    cold=words(40),
    dwells=st.lists(st.integers(1, 10**6), max_size=3).map(tuple),
)


@given(st.lists(rows, max_size=9, unique_by=lambda row: row.id))
def test_it_says_what_each_row_said(sent: list[Row]) -> None:
    columns, dwells = taken_apart([message(row) for row in sent])

    assert columns.geofence_id.tolist() == [row.id for row in sent]
    assert set(columns.brand_id.tolist()) <= {7}
    assert set(columns.version.tolist()) <= {3}
    assert columns.resolution.tolist() == [row.resolution for row in sent]
    assert list(columns.cover) == [row.blocks for row in sent]
    assert list(columns.shape.hot) == [row.hot for row in sent]
    assert list(columns.shape.cold) == [row.cold for row in sent]
    assert columns.settings["exit_buffer_m"].tolist() == [row.exit_buffer_m for row in sent]
    assert set(columns.settings["confirm_fixes"].tolist()) <= {2}
    assert columns.settings["confirm_s"].tolist() == [row.confirm_s for row in sent]
    assert set(columns.settings["armed_ms"].tolist()) <= {1_700_000_000_123}
    assert columns.settings["campaign"].tolist() == [row.campaign for row in sent]
    assert dwells == {row.id: row.dwells for row in sent if row.dwells}


def test_it_takes_no_header_and_no_end_for_a_row() -> None:
    first, last = message(Row(id=1)), message(Row(id=2))

    columns, _ = taken_apart([memoryview(HEADER + first), last, memoryview(END)])

    assert columns.geofence_id.tolist() == [1, 2]
    assert len(taken_apart([memoryview(HEADER + END)])[0]) == 0
    assert len(taken_apart([memoryview(END)])[0]) == 0


@pytest.mark.parametrize(
    "broken",
    [
        message(Row(hot=bytes(16)))[:-1],
        message(Row())[:50],
        memoryview(bytes(message(Row())) + b"1"),
        memoryview(bytes(message(Row(hot=bytes(8)))).replace(bytes([0, 0, 0, 8]), b"\0\0\xff\0")),
    ],
)
def test_it_reads_nothing_beyond_a_broken_row(broken: memoryview) -> None:
    with pytest.raises(ValueError, match="no rows"):
        taken_apart([message(Row()), broken])

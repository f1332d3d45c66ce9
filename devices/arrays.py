"""Numpy columns to and from PostgreSQL's binary formats, without a Python object per value.

A batch of 10,000 fixes crosses to the database as a few arrays and one COPY stream, each built by
numpy in one go. Formats: PostgreSQL documentation, "COPY, Binary Format" and `array_send`.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self
from weakref import WeakSet

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Dumper
from psycopg.pq import Format, TransactionStatus

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"
POSTGRES_EPOCH_MS = 946_684_800_000  # 2000-01-01: timestamptz counts microseconds from here
NEVER = -(1 << 62)  # epoch milliseconds before any fix
_MINUS_INFINITY = -(1 << 63)  # as a binary timestamptz

# numpy kind and size -> (element type OID, array type OID, big-endian numpy type)
_ELEMENTS: dict[str, tuple[int, int, str]] = {
    "i8": (20, 1016, ">i8"),
    "i4": (23, 1007, ">i4"),
    "i2": (21, 1005, ">i2"),
    "f8": (701, 1022, ">f8"),
    "f4": (700, 1021, ">f4"),
    "b1": (16, 1000, "?"),
}
_INSTANTS = (1184, 1185)  # timestamptz and its array
_TIDS = (27, 1010)  # tid, where a row lies in its table, and its array
_TID_CELL = np.dtype([("length", ">i4"), ("page", ">u4"), ("item", ">u2")])
_ARRAY_HEAD = struct.Struct(">5i")  # dimensions, nulls, element type, length, lower bound


class Column:
    """A numpy array as one query parameter: a PostgreSQL array of the matching type, no nulls."""

    __slots__ = ("array_oid", "wire")

    def __init__(self, values: NDArray[Any], *, instants: bool = False) -> None:
        """`instants`: the values are epoch milliseconds to be seen as timestamptz."""
        element_oid, self.array_oid, big = _ELEMENTS[values.dtype.str[1:]]
        if instants:
            (element_oid, self.array_oid), values = _INSTANTS, timestamps(values)
        width = values.dtype.itemsize
        cells = np.empty(len(values), dtype=[("length", ">i4"), ("value", big)])
        cells["length"] = width
        cells["value"] = values
        self.wire = _ARRAY_HEAD.pack(1, 0, element_oid, len(values), 1) + cells.tobytes()

    @classmethod
    def packed(cls, values: Mapping[str, NDArray[Any]]) -> list[Self]:
        """Equally long columns at a time, whole numbers as bigint, others as double precision.

        A name that ends in `_ms` stands for epoch milliseconds, to be seen as timestamptz; `tid`
        for where rows lie. For a small batch the calls count, not the bytes: a tenth of one Column
        after the other.
        """
        count = len(next(iter(values.values())))
        whole = np.empty((len(values), count), np.int64)
        floating = whole.view(np.float64)  # the same bytes
        kinds = []
        for row, (name, column) in enumerate(values.items()):
            if column.dtype.kind == "f":
                kinds.append(_ELEMENTS["f8"][:2])
                floating[row] = column
            else:
                kinds.append(_INSTANTS if name.endswith("_ms") else _ELEMENTS["i8"][:2])
                whole[row] = column
        instants = [row for row, kind in enumerate(kinds) if kind is _INSTANTS]
        whole[instants] = timestamps(whole[instants])
        cells = np.empty(whole.shape, dtype=[("length", ">i4"), ("value", ">i8")])
        cells["length"], cells["value"] = 8, whole
        wire, size = cells.tobytes(), count * cells.itemsize
        return [
            cls.tids(values[name])
            if name == "tid"
            else cls._of(oids, count, wire[row * size : (row + 1) * size])
            for row, (name, oids) in enumerate(zip(values, kinds, strict=True))
        ]

    @classmethod
    def tids(cls, places: NDArray[np.int64]) -> Self:
        """Where rows lie, as `read_tids` has it."""
        cells = np.empty(len(places), _TID_CELL)
        cells["length"], cells["page"], cells["item"] = 6, places >> 16, places & 0xFFFF
        return cls._of(_TIDS, len(places), cells.tobytes())

    @classmethod
    def _of(cls, oids: tuple[int, int], count: int, cells: bytes) -> Self:
        column = cls.__new__(cls)
        element_oid, column.array_oid = oids
        column.wire = _ARRAY_HEAD.pack(1, 0, element_oid, count, 1) + cells
        return column


class _ColumnDumperBase(Dumper):
    format = Format.BINARY

    def dump(self, obj: Column) -> bytes:
        return obj.wire

    def get_key(self, obj: Column, format: Any) -> Any:  # noqa: A002, ARG002 - psycopg's name
        return (self.cls, obj.array_oid)

    def upgrade(self, obj: Column, format: Any) -> Dumper:  # noqa: A002, ARG002 - psycopg's name
        dumper = type(self)(self.cls)
        dumper.oid = obj.array_oid
        return dumper


_ready: WeakSet[psycopg.Connection[Any]] = WeakSet()


def register(connection: psycopg.Connection[Any]) -> None:
    """Teach a connection to take Column parameters, and to plan a statement once.

    Left to itself PostgreSQL plans anew for short arrays what it has a plan for: for a lone fix
    that costs more than to run it; and for long ones it reads whole tables. Django's connections
    prepare nothing, even where asked to: from here on what `query` runs is, and all else as ever.
    """
    if connection not in _ready:
        connection.adapters.register_dumper(Column, _ColumnDumperBase)
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.prepare_threshold = sys.maxsize
        if connection.info.transaction_status == TransactionStatus.IDLE:
            _ready.add(connection)  # else a rollback takes the setting back


def query(
    cursor: psycopg.Cursor[Any], sql: str | bytes, params: Sequence[Any]
) -> list[bytes | None]:
    """The one row of a query, each value as PostgreSQL's binary, undecoded."""
    cursor.execute(sql, params, prepare=True, binary=True)
    result = cursor.pgresult
    assert result is not None
    return [result.get_value(0, column) for column in range(result.nfields)]


def timestamps(ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Epoch milliseconds as the int64 that a binary timestamptz is; NEVER is `-infinity`."""
    return np.where(ms == NEVER, _MINUS_INFINITY, (ms - POSTGRES_EPOCH_MS) * 1000)


def read_instants(wire: bytes | None) -> NDArray[np.int64]:
    """Epoch milliseconds of a binary timestamptz array; `-infinity` becomes NEVER."""
    microseconds = read_column(wire, "i8")
    ms = microseconds // 1000 + POSTGRES_EPOCH_MS
    ms[microseconds == _MINUS_INFINITY] = NEVER
    return ms


def read_column(wire: bytes | None, dtype: str) -> NDArray[Any]:
    """The values of a binary one-dimensional array without nulls; None or empty: no values."""
    cells = _cells(wire, np.dtype([("length", ">i4"), ("value", _ELEMENTS[dtype][2])]))
    return cells["value"].astype(dtype)


def read_tids(wire: bytes | None) -> NDArray[np.int64]:
    """Where rows lie: the number of the page times 65,536, and that of the item on it."""
    cells = _cells(wire, _TID_CELL)
    places: NDArray[np.int64] = cells["page"].astype(np.int64) << 16 | cells["item"]
    return places


def _cells(wire: bytes | None, cell: np.dtype[np.void]) -> NDArray[np.void]:
    return (
        np.empty(0, cell)
        if wire is None or len(wire) <= 12
        else np.frombuffer(wire, cell, offset=20)
    )


def copy_stream(columns: Mapping[str, tuple[str, NDArray[Any]]]) -> Iterator[bytes]:
    """A COPY … FROM STDIN (FORMAT BINARY) stream of equally long columns.

    `columns` maps a name to (numpy type, values); NaN in a float column becomes NULL. Rows are
    grouped by which columns are null, since a null has no bytes: their order may change.
    """
    names = list(columns)
    values = [np.asarray(column).astype(dtype, copy=False) for dtype, column in columns.values()]
    count = len(values[0]) if values else 0
    pattern = np.zeros(count, dtype=np.int64)
    for bit, column in enumerate(values):
        if column.dtype.kind == "f":
            pattern |= np.isnan(column).astype(np.int64) << bit
    yield COPY_HEADER
    for nulls in np.unique(pattern):
        rows = pattern == nulls
        fields: list[tuple[str, str]] = [("count", ">i2")]
        for bit, name in enumerate(names):
            fields.append((f"{name}_length", ">i4"))
            if not nulls >> bit & 1:
                fields.append((name, _ELEMENTS[values[bit].dtype.str[1:]][2]))
        packed = np.empty(int(rows.sum()), dtype=fields)
        packed["count"] = len(names)
        for bit, name in enumerate(names):
            if nulls >> bit & 1:
                packed[f"{name}_length"] = -1
            else:
                packed[f"{name}_length"] = values[bit].dtype.itemsize
                packed[name] = values[bit][rows]
        yield packed.tobytes()
    yield COPY_TRAILER

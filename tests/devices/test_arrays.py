"""Columns cross to PostgreSQL and back without loss, nulls included."""

from __future__ import annotations

import numpy as np
import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from devices.arrays import (
    NEVER,
    Column,
    copy_stream,
    query,
    read_column,
    read_instants,
    read_tids,
)
from devices.reading import open_cursor

pytestmark = pytest.mark.django_db

_ON_ONE_DATABASE = settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("dtype", ["i8", "i4", "i2", "f8", "f4"])
@_ON_ONE_DATABASE
@given(data=st.data())
def test_it_hands_a_column_over_and_takes_it_back(dtype: str, data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(np.dtype(dtype), st.integers(0, 20)))
    with open_cursor() as cursor:
        (wire,) = query(cursor, "SELECT $1", (Column(values),))
    np.testing.assert_array_equal(read_column(wire, dtype), values)


@_ON_ONE_DATABASE
@given(count=st.integers(0, 20), data=st.data())
def test_it_hands_equally_long_columns_over_at_once(count: int, data: st.DataObject) -> None:
    dtypes = {"a": "i8", "b": "i2", "c": "f8", "d": "f4", "e": "?", "f_ms": "i8"}
    given_rows = np.zeros(count, dtype=list(dtypes.items()))
    for name, dtype in dtypes.items():
        some = st.integers(0, 1 << 41) if name == "f_ms" else None
        given_rows[name] = data.draw(hnp.arrays(np.dtype(dtype), count, elements=some))
    with open_cursor() as cursor:
        columns = Column.packed({name: given_rows[name] for name in dtypes})
        wire = query(cursor, "SELECT $1, $2, $3, $4, $5, $6", columns)
    for name, column in zip("abcde", wire, strict=False):
        kind = "f8" if name in "cd" else "i8"
        np.testing.assert_array_equal(
            read_column(column, kind), given_rows[name].astype(kind, copy=False)
        )
    np.testing.assert_array_equal(read_instants(wire[5]), given_rows["f_ms"])


def test_it_hands_instants_over_as_timestamps() -> None:
    moments = np.array([0, 1_760_000_000_123, NEVER])
    with open_cursor() as cursor:
        wire, text = query(
            cursor,
            "SELECT a, a[2]::text FROM (SELECT $1 AS a) t",
            (Column(moments, instants=True),),
        )
    np.testing.assert_array_equal(read_instants(wire), moments)
    assert text == b"2025-10-09 08:53:20.123+00"


def test_it_reads_no_rows_as_no_values() -> None:
    with open_cursor() as cursor:
        (wire,) = query(cursor, "SELECT array_agg(x) FROM generate_series(1, 0) x", ())
    assert len(read_column(wire, "i4")) == len(read_tids(wire)) == 0


def test_it_says_and_reads_where_rows_lie() -> None:
    places = np.array([1, 65_535, 65_536, (1 << 48) - 1])
    with open_cursor() as cursor:
        wire, text = query(cursor, "SELECT $1, $1::text::bytea", (Column.tids(places),))
    assert text == b'{"(0,1)","(0,65535)","(1,0)","(4294967295,65535)"}'
    np.testing.assert_array_equal(read_tids(wire), places)


@_ON_ONE_DATABASE
@given(values=hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(width=32)))
def test_it_copies_not_a_number_as_null(values: np.ndarray) -> None:
    numbers = np.arange(len(values))
    with open_cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE landed (number int8, value float4) ON COMMIT DROP")
        with cursor.copy("COPY landed FROM STDIN (FORMAT BINARY)") as copy:
            for block in copy_stream({"number": ("i8", numbers), "value": ("f4", values)}):
                copy.write(block)
        cursor.execute("SELECT value FROM landed ORDER BY number")
        landed = [row[0] for row in cursor.fetchall()]
        cursor.execute("DROP TABLE landed")
    assert [value is None for value in landed] == np.isnan(values).tolist()
    told = np.array(landed, dtype=np.float32)  # None becomes NaN
    np.testing.assert_array_equal(told, values.astype(np.float32))
    assert connection.connection is not None


def test_it_plans_a_statement_once() -> None:
    """A batch's statement is long: to take it apart costs PostgreSQL more than a lone fix."""
    statement = "SELECT count(*) FROM unnest($1) u(planned_once)"
    with open_cursor() as cursor:
        for count in (1, 2, 300):
            (wire,) = query(cursor, statement, (Column(np.zeros(count)),))
            assert wire == count.to_bytes(8, "big")
        cursor.execute(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1",
            (statement,),
        )
        assert cursor.fetchall() == [(3, 0)]

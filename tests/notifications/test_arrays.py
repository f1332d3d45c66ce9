"""Lists as PostgreSQL's array texts come back as they went."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from notifications.arrays import array

# What a row can hold: no NUL, no half of a surrogate pair.
TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.sampled_from('{}",\\ \n\t%'),
    max_size=20,
)


def read_back(values: list[object], kind: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT %s::{kind}[]", [array(values)])
        return cursor.fetchone()[0]


@pytest.mark.django_db
@given(st.lists(st.none() | TEXT | st.sampled_from(["NULL", "null", ""])))
def test_any_text_comes_back_as_it_went(values: list[object]) -> None:
    assert read_back(values, "text") == values


@pytest.mark.django_db
def test_numbers_truths_and_instants_come_back_as_they_went() -> None:
    at = datetime(2026, 5, 1, 21, 7, 3, 250_000, tzinfo=UTC)
    assert read_back([1, None, -(2**63)], "bigint") == [1, None, -(2**63)]
    assert read_back([True, False, None], "bool") == [True, False, None]
    assert read_back([at, None], "timestamptz") == [at, None]
    assert read_back([at.date()], "date") == [at.date()]

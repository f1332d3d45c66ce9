"""Questions that are given up, and those after them that are not."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection

from brands.patience import TookTooLongError, patience

pytestmark = pytest.mark.django_db


def ask(sql: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def test_it_gives_up_and_goes_on() -> None:
    before = ask("SHOW statement_timeout")
    with pytest.raises(TookTooLongError), patience(20):
        ask("SELECT pg_sleep(60)")
    with patience(60_000):
        assert ask("SHOW statement_timeout") == "1min"
    assert ask("SHOW statement_timeout") == before


def test_it_lets_every_other_error_pass() -> None:
    with pytest.raises(DatabaseError, match="no_such_table"), patience(1_000):
        ask("SELECT * FROM no_such_table")

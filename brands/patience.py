"""Questions to the database that are given up after a while: a page must come, whatever it asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError, connection, transaction
from psycopg.errors import QueryCanceled


class TookTooLongError(Exception):
    """A statement was given up."""


@contextmanager
def patience(limit_ms: int) -> Iterator[None]:
    """A transaction of which no statement may take longer. Raises TookTooLongError."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            (before,) = cursor.fetchone()
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", (f"{limit_ms}ms",))
            yield
            # Of a transaction around this one, too: the rest of it is not in such a hurry.
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", (before,))
    except OperationalError as error:
        if not isinstance(error.__cause__, QueryCanceled):
            raise
        raise TookTooLongError from error

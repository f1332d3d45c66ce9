"""Nothing personal in a log line, not even where the database quotes the row it refused."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import IntegrityError, ProgrammingError, connection, transaction
from django.utils.log import configure_logging

from devices.models import Profile
from tests.factories import make_brand

pytestmark = pytest.mark.django_db

SOMEBODY = "anna@example.org"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the process writes to its console, by the handler of the settings."""
    configure_logging("logging.config.dictConfig", settings.LOGGING)
    [handler] = [each for each in logging.getLogger().handlers if each.name == "console"]
    assert isinstance(handler, logging.StreamHandler)
    written = io.StringIO()
    before = handler.setStream(written)
    yield written
    handler.setStream(before)


def test_it_leaves_out_the_row_that_a_constraint_refused(lines: io.StringIO) -> None:
    brand = make_brand()
    Profile.objects.create(brand=brand, external_id=SOMEBODY)
    try:
        with transaction.atomic():
            Profile.objects.create(brand=brand, external_id=SOMEBODY)
    except IntegrityError:
        logging.getLogger("devices").exception("a request could not be taken")

    told = lines.getvalue()
    assert SOMEBODY not in told
    assert told.count("duplicate key value violates unique constraint") == 2  # psycopg's, Django's
    assert "a request could not be taken" in told
    assert "During handling" in told or "The above exception" in told


def test_it_leaves_out_the_statement_that_was_not_understood(lines: io.StringIO) -> None:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT %s AS name, nothing", (SOMEBODY,))
    except ProgrammingError:
        logging.getLogger("campaigns").exception("loop evaluate failed")

    assert SOMEBODY not in lines.getvalue()
    assert 'column "nothing" does not exist' in lines.getvalue()


def test_it_leaves_out_the_row_where_the_error_is_part_of_the_line(lines: io.StringIO) -> None:
    error = IntegrityError(f"refused\nDETAIL:  Key (external_id)=({SOMEBODY}) already exists.")

    logging.getLogger("devices").warning("no figures from rows: %s", error)

    assert lines.getvalue().endswith("no figures from rows: refused\n")

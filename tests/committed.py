"""`transactional_db`: rows are committed, for tests that other processes or threads look into.

It stands in place of pytest-django's own fixture of that name, which truncates every table and
makes content types anew after each test; that takes seconds. Here the rows of one test are deleted
in one short transaction. (`@pytest.mark.django_db(transaction=True)` still takes the slow way.)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.apps import apps
from django.db import connection, transaction
from pytest_django import DjangoDbBlocker

APPS = ("brands", "geofences", "devices", "notifications", "campaigns", "auth", "sessions", "admin")
KEPT = {"auth_permission"}  # made by migrations


def empty() -> None:
    """Delete every row that a test may have made; foreign keys are looked at on commit."""
    tables = {
        model._meta.db_table
        for app in APPS
        for model in apps.get_app_config(app).get_models(include_auto_created=True)
    }
    with transaction.atomic(), connection.cursor() as cursor:
        for table in sorted(tables - KEPT):
            cursor.execute(f'DELETE FROM "{table}"')


@pytest.fixture
def transactional_db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Rows that others see, gone after the test."""
    with django_db_blocker.unblock():
        told = connection.settings_dict
        assert told["NAME"] == told["TEST"]["NAME"], "this would empty a real database"
        yield
        empty()

"""What every test may ask for: the shared data and a clean place to stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db.backends.base.introspection import BaseDatabaseIntrospection
from hypothesis import settings

pytest_plugins = ["tests.committed", "tests.live_server", "tests.browser", "tests.sending"]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# No deadline for one example: the first compiles loops, and the machine is shared.
settings.register_profile("nearcast", deadline=None)
settings.load_profile("nearcast")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real polygons, traces, payloads, kept beside the checkout. A test that asks must have it."""
    assert SHARED_DATA.is_dir(), f"{SHARED_DATA} is missing: this test needs the real data"
    return SHARED_DATA


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The test database; at the end, servers that tests started may still be hanging up."""
    yield
    from django.db import connection

    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for the shared data, so that `-m "not shared_data"` leaves out just that."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("shared_data")


@pytest.fixture(scope="session", autouse=True)
def emptied_as_meant() -> Iterator[None]:
    """Emptying the tables keeps content types, and forgets the history.

    A server that runs all session knows the ids of the former; the latter Django leaves alone, as
    it did not make the table.
    """
    from devices.models import Fix  # once Django is set up

    whole = BaseDatabaseIntrospection.django_table_names

    def meant(self: Any, *args: Any, **kwargs: Any) -> list[str]:
        names = {*whole(self, *args, **kwargs), Fix._meta.db_table}
        return sorted(names - {"django_content_type"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseDatabaseIntrospection, "django_table_names", meant)
        yield

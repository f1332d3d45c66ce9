"""What every test may ask for: the shared data and a clean place to stand."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["tests.committed", "tests.live_server"]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real polygons, traces, payloads, kept beside the checkout. A test that asks must have it."""
    assert SHARED_DATA.is_dir(), f"{SHARED_DATA} is missing: this test needs the real data"
    return SHARED_DATA


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for the shared data, so that `-m "not shared_data"` leaves out just that."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("shared_data")

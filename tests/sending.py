"""Deliveries leave by a courier whose sender only remembers them: fixtures of any test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from notifications.courier import Courier
from tests.notifications.rows import FakeSender


@pytest.fixture
def sender() -> FakeSender:
    return FakeSender()


@pytest.fixture
def courier(sender: FakeSender) -> Iterator[Courier]:
    with Courier(lambda: sender) as made:
        yield made

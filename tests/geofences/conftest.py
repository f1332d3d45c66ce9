"""What tests of imports and exports share: a brand, and a table to import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from brands.models import Brand
from tests.factories import make_brand


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "shops.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding=encoding)
        return path

    return write

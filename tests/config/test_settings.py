"""The settings, and the table that operators read them in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs/guides/operators.md").read_text().partition("## Settings")[2]
OF_DEVELOPERS = {"NEARCAST_BEGAN", "NEARCAST_TEST_DB"}


@pytest.mark.parametrize("source", ["settings.py", "run.py", "asgi.py"])
def test_each_is_in_the_operators_guide(source: str) -> None:
    code = (ROOT / "config" / source).read_text()
    read = set(re.findall(r'(?:env(?:_\w+)?|environ\.\w+)\(\s*"([A-Z_]+)"', code))
    read -= OF_DEVELOPERS | {"DJANGO_SETTINGS_MODULE"}
    assert read
    assert read <= set(re.findall(r"`([A-Z_]+)`", TABLE))


def test_the_guide_names_none_that_nothing_reads() -> None:
    code = "".join(path.read_text() for path in (ROOT / "config").glob("*.py"))
    for name in re.findall(r"`([A-Z]+_[A-Z_]+)`", TABLE):
        assert f'"{name}"' in code

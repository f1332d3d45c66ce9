"""Which JSON values can be kept, and where in one something cannot."""

from __future__ import annotations

from typing import Any

import pytest

from brands.storable import BAD_TEXT, MAX_DEPTH, NOT_FINITE, TOO_DEEP, flaw_of


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "flaw"),
    [
        (None, None),
        ({"a": [1, 2.5, True, None, "é\U0001f600", "\\u0000"]}, None),
        ("a\0b", ("x", BAD_TEXT)),
        ({"a": [{}, {"b": "\ud800"}]}, ("x.a[1].b", BAD_TEXT)),
        ({"a": {"\udfff": 1}}, ("x.a", BAD_TEXT)),
        ({"a": float("nan")}, ("x.a", NOT_FINITE)),
        ((1, float("-inf")), ("x[1]", NOT_FINITE)),
        (nested(MAX_DEPTH), None),
        (nested(MAX_DEPTH + 1), ("x" + "[0]" * (MAX_DEPTH + 1), TOO_DEEP)),
    ],
)
def test_it_finds_what_cannot_be_kept(value: Any, flaw: tuple[str, str] | None) -> None:
    assert flaw_of(value, "x") == flaw


def test_it_follows_as_deep_as_anybody_nests() -> None:
    found = flaw_of(nested(100_000))
    assert found is not None
    assert found[1] == TOO_DEEP

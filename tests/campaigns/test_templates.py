"""Templates without an interpreter: whatever is put into their holes, Liquid would say the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from liquid.exceptions import LiquidError

from campaigns.templates import ENVIRONMENT, _parts, text

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.one_of(
    *(WORDS, st.integers(), st.floats(), st.booleans(), st.none(), st.just(10**40)),
    *(st.lists(WORDS, max_size=2), st.dictionaries(WORDS, WORDS, max_size=2)),
    st.just("x" * 1_999),
)
NAMES = ("name", "first name", "größe", "size", "first", "other")
HOLES = st.builds(
    "{{{{{}device.attributes{}{}{}}}}}".format,
    st.sampled_from(["", " ", "- "]),
    st.sampled_from([f"['{name}']" for name in NAMES] + [".name", ".name.inner", "[0]", ""]),
    st.sampled_from(
        (
            *("", " | default: 'you'", " | default: ''", ' | default: "a", allow_false: true'),
            *(" | default: place.name", " | default: 5", " | upcase", " | default: 'x' | upcase"),
        )
    ),
    st.sampled_from(["", " ", " -"]),
)
WRITTEN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}%"), max_size=8)


@given(
    parts=st.lists(st.one_of(HOLES, WRITTEN), max_size=5),
    attributes=st.dictionaries(st.sampled_from(NAMES), VALUES),
)
@example(parts=["{{device.attributes.name}}"], attributes={"name": False})
@example(parts=["{{device.attributes.name | default: 'you'}}"], attributes={"name": 0})
@example(parts=["{{device.attributes.name | default: 'you'}}"], attributes={"name": " "})
@example(parts=["{{device.attributes.name}}"] * 5, attributes={"name": "ß" * 5_000})
@example(parts=["{{device.attributes.name}}", "\r\n"], attributes={"name": "a"})
@example(parts=["{{device.attributes.name}}", "\n"], attributes={"name": "a\r"})
def test_it_says_what_liquid_says(parts: list[str], attributes: dict[str, Any]) -> None:
    source = "".join(parts)
    names = {"device": {"attributes": attributes}, "place": {"name": "Shop"}}

    try:
        wanted: str = ENVIRONMENT.from_string(source).render(**names)
    except LiquidError as error:
        with pytest.raises(type(error)):
            text(source, names)
    else:
        assert text(source, names) == wanted


@pytest.mark.parametrize(
    ("source", "is_simple"),
    [
        ("{{ device.attributes.name | default: 'You' }}, {{ place.name }} is near", True),
        ("{{- place.metadata['opening hours'] -}}", True),
        ("words", True),
        ("{{ place.name | upcase }}", False),
        ("{{ place.name | default: brand.name }}", False),
        ("{{ place.name | default: 'x', allow_false: true }}", False),
        ("{{ place.tags.size }}", False),
        ("{% if place.name %}x{% endif %}", False),
        ("{{ other }}", False),
    ],
)
def test_it_needs_no_interpreter_for_what_only_has_holes(source: str, is_simple: bool) -> None:
    assert (_parts(source) is not None) is is_simple

"""Liquid in a sandbox: a template's text from the values that it names. It knows no offer, no row.

Loops, output, memory and source length are limited, and there is no way to include another
template. Most templates only put values in their places: they need no interpreter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from liquid import Environment, Mode
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import (
    FilteredExpression,
    Path,
    PositionalArgument,
    StringLiteral,
)
from liquid.builtin.output import OutputNode
from liquid.exceptions import LiquidError

MAX_TEMPLATE_CHARS = 4_000
MAX_VALUE = 20_000  # characters or items that a filter may see or make
MAX_LOOPS = 1_000
CACHED_TEMPLATES = 4_096
CACHED_TEXTS = 16_384
ROOTS = frozenset({"device", "place", "moment", "event", "brand", "campaign", "coupon"})
_FORBIDDEN_TAGS = ("include", "render")


class _Sandbox(Environment):
    loop_iteration_limit = MAX_LOOPS
    local_namespace_limit = 50_000
    output_stream_limit = 16_384
    context_depth_limit = 8
    block_nesting_limit = 12


def _bounded(limited: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that neither takes nor makes more than MAX_VALUE: chains of replace explode."""

    @functools.wraps(limited)
    def call(*values: Any, **named: Any) -> Any:
        for value in (*values, *named.values()):
            _refuse_huge(value)
        made = limited(*values, **named)
        _refuse_huge(made)
        return made

    return call


def _refuse_huge(value: object) -> None:
    if isinstance(value, int):
        too_much = abs(value) > 10**30
    else:
        too_much = isinstance(value, str | bytes | Sequence) and len(value) > MAX_VALUE
    if too_much:
        raise LiquidError("a value grows beyond every screen", token=None)


def _sandbox() -> _Sandbox:
    environment = _Sandbox(tolerance=Mode.STRICT, strict_filters=True)
    for tag in _FORBIDDEN_TAGS:
        environment.tags.pop(tag, None)
    for name, limited in list(environment.filters.items()):
        environment.filters[name] = _bounded(limited)
    return environment


ENVIRONMENT = _sandbox()


@functools.lru_cache(maxsize=CACHED_TEMPLATES)
def parsed(source: str) -> Any:
    if len(source) > MAX_TEMPLATE_CHARS:
        raise LiquidError(f"longer than {MAX_TEMPLATE_CHARS} characters", token=None)
    return ENVIRONMENT.from_string(source)


def text(source: str, names: Mapping[str, Any]) -> str:
    """The text; what the same values made before is not made again."""
    parts = _parts(source)
    if parts is not None and (joined := _joined(parts, names)) is not None:
        return joined
    paths = _reads(source)
    if paths is not None:
        values = [_value(names, path) for path in paths]
        if all(type(value) in _PLAIN for value in values):
            return _text_of(source, *values)
    made: str = parsed(source).render(**names)
    return made


class _Hole(NamedTuple):
    """Where a value is put as it is, or something else where there is none."""

    path: tuple[str, ...]
    otherwise: str | None


@functools.lru_cache(maxsize=CACHED_TEMPLATES)
def _parts(source: str) -> tuple[str | _Hole, ...] | None:
    """The words and holes of a template that has nothing else; None for any other."""
    parts: list[str | _Hole] = []
    for node in parsed(source).nodes:
        if type(node) is ContentNode:
            parts.append(node.text)
        elif type(node) is OutputNode and (hole := _hole(node.expression)) is not None:
            parts.append(hole)
        else:
            return None
    return tuple(parts)


def _hole(expression: object) -> _Hole | None:
    """`{{ a.b }}` or `{{ a.b | default: 'c' }}`."""
    if type(expression) is not FilteredExpression or type(expression.left) is not Path:
        return None
    path = tuple(name for name in expression.left.path if isinstance(name, str))
    if len(path) < len(expression.left.path) or path[0] not in ROOTS or _COMPUTED & set(path):
        return None
    if not expression.filters:
        return _Hole(path, None)
    called, *more = expression.filters
    if more or called.name != "default" or len(called.args) != 1:
        return None
    (given,) = called.args
    if type(given) is not PositionalArgument or type(given.value) is not StringLiteral:
        return None
    return _Hole(path, given.value.value)


def _joined(parts: tuple[str | _Hole, ...], names: Mapping[str, Any]) -> str | None:
    """As Liquid says it; None where a value is nothing plain, or so long that limits matter."""
    said: list[str] = []
    for part in parts:
        if isinstance(part, str):
            said.append(part)
            continue
        value, otherwise = _value(names, part.path), part.otherwise
        if type(value) is str:
            said.append(otherwise if otherwise is not None and not value else value)
        elif value is None or value is _UNKNOWN:
            said.append(otherwise or "")
        elif type(value) is int and -_SAFE_INT < value < _SAFE_INT:
            said.append(str(value))
        else:
            return None
    joined = "".join(said)
    # Liquid makes a line's end of a carriage return.
    return joined if len(joined) <= _SAFE_CHARS and "\r" not in joined else None


_SAFE_CHARS = 2_000  # UTF-8 of it is less than output_stream_limit and MAX_VALUE allow
_SAFE_INT = 2**63


class _Unknown:
    """Stands for a name that is not there."""


_UNKNOWN = _Unknown()
# Equal values of one of these types read alike; 0.0 and -0.0 do not.
_PLAIN = frozenset({str, int, bool, type(None), _Unknown})


@functools.lru_cache(maxsize=CACHED_TEMPLATES)
def _reads(source: str) -> tuple[tuple[str, ...], ...] | None:
    """The names whose values make the text of a template; None where more may play a part."""
    found = parsed(source).analyze()
    # `date` knows what time it is, and tags may loop over what is no plain value.
    if found.tags or "date" in found.filters or not found.globals.keys() <= ROOTS:
        return None
    paths = [tuple(one.segments) for uses in found.globals.values() for one in uses]
    if any(type(name) is not str or name in _COMPUTED for path in paths for name in path):
        return None
    return tuple(dict.fromkeys(paths))


_COMPUTED = frozenset({"size", "first", "last"})  # Liquid answers these of any list


def _value(names: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = names
    for name in path:
        if type(found) is not dict and not isinstance(found, Mapping):
            return ()  # no plain value: Liquid may make something of it
        found = found.get(name, _UNKNOWN)
        if found is _UNKNOWN:
            break
    return found


@functools.lru_cache(maxsize=CACHED_TEXTS, typed=True)
def _text_of(source: str, *values: object) -> str:
    """A template's text from nothing but the values of what it reads, in that order."""
    names: dict[str, Any] = {}
    for path, value in zip(_reads(source) or (), values, strict=True):
        if value is _UNKNOWN:
            continue
        inner = names
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    made: str = parsed(source).render(**names)
    return made

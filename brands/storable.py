"""Which JSON values can be kept in PostgreSQL and read again by anybody. Pure."""

from __future__ import annotations

import math
import re
from typing import Any

MAX_DEPTH = 32  # nobody nests so deep by hand, and every reader follows
BAD_TEXT = "Text must not hold NUL or half a surrogate pair."
NOT_FINITE = "Numbers must be finite."
TOO_DEEP = f"Nested more than {MAX_DEPTH} deep."
_BAD = re.compile("[\0\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether a column of text, or a string in jsonb, can hold this."""
    return _BAD.search(text) is None


def flaw_of(value: Any, path: str = "") -> tuple[str, str] | None:
    """Where in a JSON value something stands that cannot be kept, and why; None where all can.

    The place is written as `content.data.url` or `caps[0].tag`, beginning with `path`.
    """
    waiting = [(path, value, 0)]
    while waiting:
        path, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return path, TOO_DEEP
        if isinstance(value, str) and not is_storable(value):
            return path, BAD_TEXT
        if isinstance(value, float) and not math.isfinite(value):
            return path, NOT_FINITE
        if isinstance(value, dict):
            if not all(map(is_storable, value)):
                return path, BAD_TEXT
            waiting += [(f"{path}.{key}", part, depth + 1) for key, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{path}[{at}]", part, depth + 1) for at, part in enumerate(value)]
    return None

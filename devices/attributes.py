"""What an attribute bag may hold, and how a change is merged in with its source and time. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from brands import storable

MAX_ATTRIBUTES = 200
MAX_DEPTH = 6
MAX_BYTES = 16 * 1024  # of a whole bag as JSON
# jsonb keeps numbers exactly, but clients read doubles: beyond 2^53 they read another number.
MAX_INTEGER = 2**53
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")


def problem_with(value: Any, *, depth: int = MAX_DEPTH) -> str | None:
    """Why PostgreSQL or a later reader could not keep this JSON value; None where it could."""
    if isinstance(value, str):
        if not storable.is_storable(value):
            return storable.BAD_TEXT
    elif isinstance(value, float):
        if not math.isfinite(value):
            return storable.NOT_FINITE
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            return "Whole numbers must be within ±2^53; send longer ones as text."
    elif isinstance(value, (dict, list)):
        if depth == 0:
            return f"Nested more than {MAX_DEPTH} deep."
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return next((why for part in parts if (why := problem_with(part, depth=depth - 1))), None)
    elif value is not None:
        return "Not a JSON value."
    return None


def problem_with_bag(bag: Mapping[str, Any], *, max_bytes: int = MAX_BYTES) -> str | None:
    """Why this is no attribute bag; None where it is one."""
    if len(bag) > MAX_ATTRIBUTES:
        return f"At most {MAX_ATTRIBUTES} names."
    for name in bag:
        if not NAME.fullmatch(name):
            return (
                f"{name[:70]!r} is not a name: a letter or _, then letters, digits or any of _.:-,"
                " at most 64."
            )
    why = problem_with(dict(bag))
    if why is None and len(json.dumps(bag, ensure_ascii=False).encode()) > max_bytes:
        why = f"More than {max_bytes} bytes."
    return why


def merged(
    old: Mapping[str, Any],
    facts: Mapping[str, Any],
    change: Mapping[str, Any],
    *,
    source: str,
    at: datetime,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The bag and its facts ({name: {source, at}}) after a change; None takes an attribute away."""
    bag, known = dict(old), dict(facts)
    for name, value in change.items():
        if value is None:
            bag.pop(name, None)
            known.pop(name, None)
        else:
            bag[name] = value
            known[name] = {"source": source, "at": at.isoformat()}
    return bag, known

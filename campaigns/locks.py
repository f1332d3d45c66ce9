"""Locks by name that last as long as a transaction; every caller takes them in one order.

Evaluation takes persons, campaigns and brands first (campaigns.history), then purses, then pools.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from django.db import connection

_LOCK = "SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key"


def take(kind: str, ids: Iterable[int]) -> None:
    """Wait for the locks of these things: 64 bits each, and two that share one only wait."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, (sorted(_key(f"{kind}:{one}") for one in ids),))


def _key(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)

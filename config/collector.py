"""Spares a process of ours the search for cycles where there are none. It frees nothing itself."""

from __future__ import annotations

import gc

# New objects before a look for cycles: a batch in flight stays below it.
NEW_OBJECTS = 50_000


def settle() -> None:
    """Say, once all is loaded, that what is there lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 10, 10)

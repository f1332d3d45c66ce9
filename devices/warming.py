"""Has ingest's compiled code at hand before a fix waits for it. It reads no row.

python -m devices.warming    # once after an installation: some seconds
"""

from __future__ import annotations

from functools import cache

import numpy as np

from devices.fixes import FIX_DTYPE, assemble, bounds
from devices.judgement import STATE_DTYPE, admit, judge, repeats
from devices.presence import BELIEF_DTYPE
from devices.sightings import advanced, unmoved
from devices.walks import RULES_DTYPE, SEEN_DTYPE, WALKER_DTYPE, due_ms, elapse, end, walk

__all__ = ["warm"]


@cache
def warm() -> None:
    """Read it from disk, or make it: one fix of one device."""
    fixes = assemble([np.zeros(1, FIX_DTYPE)[0].item()])
    states = np.zeros(1, STATE_DTYPE)
    bounds(fixes, now_ms=0)
    repeats(fixes)
    _, device = admit(fixes, states)
    _, jumps = judge(fixes, device, states)
    slots = np.zeros(1, BELIEF_DTYPE)
    advanced(states, fixes, device, unmoved(slots), jumps, now_ms=0)
    rules = np.zeros(1, RULES_DTYPE), np.empty(0, np.int64)
    at_ms, seen = np.zeros(1, np.int64), np.zeros(1, SEEN_DTYPE)
    walkers = np.array([(0, 1, 0, 1, 0)], WALKER_DTYPE)
    walk(slots, *rules, walkers, at_ms, seen, np.zeros(1, np.bool_), silence_ms=0)
    elapse(slots, *rules, at_ms, at_ms, silence_ms=0)
    due_ms(slots, *rules, at_ms, silence_ms=0)
    end(slots, at_ms, np.zeros(1, np.int8))


if __name__ == "__main__":
    warm()

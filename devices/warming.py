"""Has ingest's compiled code at hand before a fix waits for it. It reads no row.

python -m devices.warming    # once after an installation: some seconds
"""

from __future__ import annotations

from functools import cache

import numpy as np

from devices.fixes import FIX_DTYPE, assemble, bounds
from devices.judgement import STATE_DTYPE, admit, judge, repeats
from devices.sightings import Outcome, advanced

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
    advanced(states, fixes, device, Outcome(), jumps, now_ms=0)


if __name__ == "__main__":
    warm()

"""Array loops as machine code, kept on disk between processes. It knows no loop.

A compiled function calls compiled functions of its own file only: what is kept is made anew when
that file changes, not when another one does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

__all__ = ["compiled"]


P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, compiled at its first call for the types it is called with.

    It takes contiguous arrays and numbers, fills arrays it is given (to hand one out costs more
    than most batches), runs without the interpreter's lock and divides as numpy does. What it
    compiled stands in `__pycache__`, or where `NUMBA_CACHE_DIR` says.
    `NUMBA_DISABLE_JIT=1` runs it as the Python it is.
    """
    made: Callable[P, R] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return made

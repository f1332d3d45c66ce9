"""Asking memory for what a compiled loop reads a few steps later. It reads nothing itself.

A place of a large array that was not read lately takes some 100 ns to come. A loop that asks for
many of them and uses them in its next pass waits for all at once.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

__all__ = ["ahead"]

_READ, _KEEP, _DATA = 0, 3, 1  # not to write; close to the processor; no instructions


@intrinsic
def _prefetch(_typing: Any, array: Any, _index: Any) -> Any:
    """LLVM's `llvm.prefetch` of an element's address (https://llvm.org/docs/LangRef.html)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, arguments[0])
        element: Any = cgutils.get_item_pointer(context, builder, kind, view, [arguments[1]])  # type: ignore[no-untyped-call]
        address, number = builder.bitcast(element, cgutils.voidptr_t), ir.IntType(32)
        name = "llvm.prefetch.p0" if cgutils.voidptr_t.is_opaque else "llvm.prefetch.p0i8"
        shape = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        known = builder.module.globals.get(name)
        prefetch = known or ir.Function(builder.module, shape, name)
        builder.call(prefetch, [address, number(_READ), number(_KEEP), number(_DATA)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def ahead(array: Any, index: Any) -> None:  # numba compiles `_ahead` in its place
    """Have `array[index]` brought near; where Python runs a loop as it is, nothing happens.

    Any index will do: what is not there is not brought.
    """


@overload(ahead)
def _ahead(array: Any, index: Any) -> Any:  # noqa: ARG001  # numba compares the names
    compiled: Any = _prefetch

    def prefetch(array: Any, index: Any) -> None:
        compiled(array, index)

    return prefetch

"""Looking at a number that another thread writes, in a loop without the interpreter's lock.

This file imports numba at once, so it is imported where the loop is needed. The number is loaded
atomically: a compiler would load it once, since the loop itself changes nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import numba
from llvmlite import ir

_HAS_PAUSE: Final = platform.machine() in ("x86_64", "AMD64")
_int64: Final[Any] = import_module("numba.core.types").int64


def _load(typing_context: Any, address: Any) -> Any:
    """The int64 at an address. On x86 the processor is told that somebody waits."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _HAS_PAUSE:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=kind), [])
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "acquire", 8)

    return _int64(_int64), code


_loaded: Final[Any] = import_module("numba.extending").intrinsic(_load)


def _look(address: int, number: int, times: int) -> bool:
    for _ in range(times):  # noqa: SIM110 - numba compiles no generators
        if _loaded(address) >= number:
            return True
    return False


# Whether the int64 at an address reaches a number within so many looks.
look: Final[Callable[[int, int, int], bool]] = numba.njit(nogil=True, cache=True)(_look)

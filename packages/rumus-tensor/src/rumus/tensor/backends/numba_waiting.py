"""Polling a number that another thread writes, in a loop without the interpreter lock.

The load is atomic: otherwise the compiler would load only once, since the loop changes nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final

_HAS_PAUSE: Final = platform.machine() in ("x86_64", "AMD64")


def _loaded(address: int) -> int:
    """Load the int64 at an address; for compiled loops only."""
    raise TypeError("_loaded: only compiled loops can call it")


def _look(address: int, number: int, times: int) -> bool:
    for _ in range(times):  # noqa: SIM110 - numba compiles no generators
        if _loaded(address) >= number:
            return True
    return False


@cache
def compiled() -> Callable[[int, int, int], bool]:
    """Return a function that polls whether the int64 at an address reaches a number."""
    import numba
    from llvmlite import ir

    extending: Any = import_module("numba.extending")
    int64: Any = import_module("numba.core.types").int64

    def load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        """An atomic load, with a pause instruction on x86."""
        if _HAS_PAUSE:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=kind), [])
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "acquire", 8)

    extending.lower_builtin(_loaded, int64)(load)
    extending.type_callable(_loaded)(lambda context: lambda address: int64)
    look: Callable[[int, int, int], bool] = numba.njit(nogil=True, cache=True)(_look)
    return look

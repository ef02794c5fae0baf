"""The matrix product of NumPy's BLAS, for compiled loops to call, and its threads.

A compiled loop that multiplies small matrices between other work calls the library itself: threads
of rumus share the work, and each multiplies alone. The library's own threads would go on spinning
after each product, and take the cores from the loops. Only the OpenBLAS of NumPy's wheels is known;
with any other `single` is None, and callers take another way.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Final

from rumus.tensor.expression.dtype import float32, float64
from rumus.tensor.memory.backend import Array

_PREFIXES: Final = ("scipy_", "")  # of the names in the wheels of NumPy 2 and of earlier ones
ALONE: Final = 1 << 18  # multiplications of a product, from which the library would start threads
SHARED: Final = 1 << 21  # from which more than one is worth its start
ROWS, PLAIN, TURNED = 101, 111, 112  # of CBLAS: by rows, as it is, transposed


@cache
def _library() -> tuple[ctypes.CDLL, str] | None:
    """The library that NumPy is linked to, and how its names begin."""
    extension = importlib.import_module("numpy.linalg._umath_linalg").__file__
    try:
        library = ctypes.CDLL(extension)
    except (OSError, TypeError):
        return None
    for prefix in _PREFIXES:
        names = f"{prefix}cblas_sgemm64_", f"{prefix}openblas_set_num_threads64_"
        if all(hasattr(library, name) for name in names):
            return library, prefix
    return None


@cache
def single() -> Callable[..., None] | None:
    """Return cblas_sgemm of float32, its pointers as integers, or None if it is not known."""
    found = _library()
    if found is None:
        return None
    library, prefix = found
    product: Any = getattr(library, f"{prefix}cblas_sgemm64_")
    flag, size, value = ctypes.c_int, ctypes.c_int64, ctypes.c_float
    matrix = (ctypes.c_int64, size)  # its address, and the elements from one row to the next
    product.argtypes = [flag] * 3 + [size] * 3 + [value, *matrix, *matrix, value, *matrix]
    product.restype = None
    called: Callable[..., None] = product
    return called


def is_for_one(a: Array, b: Array, out: Array) -> bool:
    """Whether a product is faster on one thread, where the library would start others."""
    return (
        ALONE <= out.size * a.shape[-1] < SHARED
        and a.ndim == b.ndim == 2
        and out.dtype in (float32, float64)
        and single() is not None
    )


@cache
def _settings() -> tuple[Callable[[], int], Callable[[int], None]]:
    """What says how many threads the library uses, and what sets them."""
    found = _library()
    assert found is not None, "asked for by those that call the library"
    library, prefix = found
    names = (f"{prefix}openblas_{what}_num_threads64_" for what in ("get", "set"))
    get, put = (getattr(library, name) for name in names)
    put.restype = None
    return get, put


def _threads() -> int:
    """Return how many threads the library uses."""
    return _settings()[0]()


class _Alone:
    """How many are inside of `alone`, and how many threads the library had before.

    A class of its own, and no generator: small products enter it every few microseconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = self._before = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                get, put = _settings()
                self._before = get()
                if self._before != 1:
                    put(1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._before != 1:
                _settings()[1](self._before)

    def forked(self) -> None:
        """In a child process: those who were inside, or held the lock, are not there."""
        self._lock = threading.Lock()
        if self._inside:
            self._inside = 0
            _settings()[1](self._before)


_state: Final = _Alone()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_state.forked)


def alone() -> AbstractContextManager[None]:
    """Let each product take place on the thread that asks for it, until the last one leaves.

    The library knows no way to say so for one call: while somebody is inside, products that others
    ask NumPy for take one thread as well.
    """
    return _state

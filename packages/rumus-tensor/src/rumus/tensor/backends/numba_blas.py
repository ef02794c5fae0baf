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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

_PREFIXES: Final = ("scipy_", "")  # of the names in the wheels of NumPy 2 and of earlier ones
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


def _threads(wanted: int | None = None) -> int:
    """Return how many threads the library uses, after setting them to `wanted` if that is given."""
    found = _library()
    assert found is not None, "asked for by those that call the library"
    library, prefix = found
    if wanted is not None:
        getattr(library, f"{prefix}openblas_set_num_threads64_")(wanted)
    count: int = getattr(library, f"{prefix}openblas_get_num_threads64_")()
    return count


class _Alone:
    """How many are inside of `alone`, and how many threads the library had before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.before = 0

    def forked(self) -> None:
        """In a child process: those who were inside, or held the lock, are not there."""
        self.lock = threading.Lock()
        if self.inside:
            self.inside = 0
            _threads(self.before)


_state = _Alone()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_state.forked)


@contextmanager
def alone() -> Iterator[None]:
    """Let each product take place on the thread that asks for it, until the last one leaves.

    The library knows no way to say so for one call: while somebody is inside, products that others
    ask NumPy for take one thread as well.
    """
    with _state.lock:
        if _state.inside == 0:
            _state.before = _threads()
            _threads(1)
        _state.inside += 1
    try:
        yield
    finally:
        with _state.lock:
            _state.inside -= 1
            if _state.inside == 0:
                _threads(_state.before)

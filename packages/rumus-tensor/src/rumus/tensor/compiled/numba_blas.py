"""NumPy's BLAS for compiled loops: its matrix product and its thread settings.

A compiled loop that multiplies small matrices between other work calls the library directly:
rumus's threads share the work, and each multiplies alone. The library's own threads would keep
spinning after each product and take cores from the loops. Only the OpenBLAS of NumPy's wheels is
supported; with any other, `single` returns None and callers use another method.
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

_PREFIXES: Final = ("scipy_", "")  # of symbols in the wheels of NumPy 2, and of earlier ones
ALONE: Final = 1 << 18  # from this many multiplications on, the library would start threads
SHARED: Final = 1 << 21  # from this many on, a second thread pays off
HANDED: Final = 1 << 23  # from this many on, one that Python has to wake does
SMALL_KERNELS: Final = 1_000_000  # multiplications that OpenBLAS leaves to its small kernels
ROWS, PLAIN, TURNED = 101, 111, 112  # CBLAS constants: row-major, not transposed, transposed


@cache
def _library() -> tuple[ctypes.CDLL, str] | None:
    """The library that NumPy is linked to, and the prefix of its symbols."""
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
    """Return cblas_sgemm (float32) with integer pointers, or None if the BLAS is unknown."""
    found = _library()
    if found is None:
        return None
    library, prefix = found
    product: Any = getattr(library, f"{prefix}cblas_sgemm64_")
    flag, size, value = ctypes.c_int, ctypes.c_int64, ctypes.c_float
    matrix = (ctypes.c_int64, size)  # its address, and the row stride in elements
    product.argtypes = [flag] * 3 + [size] * 3 + [value, *matrix, *matrix, value, *matrix]
    product.restype = None
    called: Callable[..., None] = product
    return called


def address() -> int:
    """Return where cblas_sgemm lies, for who has asked `single` whether it is known."""
    product: Any = single()
    return int(ctypes.cast(product, ctypes.c_void_p).value or 0)


@cache
def has_small_kernels() -> bool:
    """Whether the library has kernels for small matrices, which do not copy them first.

    OpenBLAS has them for CPUs with AVX-512. Its large kernels copy both factors into panels, which
    takes a fifth of the time of a product of 64 x 128 by 128 x 128, and more if they are turned.
    """
    found = _library()
    name = found and getattr(found[0], f"{found[1]}openblas_get_corename64_", None)
    if not name:
        return False
    name.restype = ctypes.c_char_p
    return name() in (b"SkylakeX", b"Cooperlake", b"SapphireRapids")


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
    """The functions that get and set the library's number of threads."""
    found = _library()
    assert found is not None, "asked for by those that call the library"
    library, prefix = found
    names = (f"{prefix}openblas_{what}_num_threads64_" for what in ("get", "set"))
    get, put = (getattr(library, name) for name in names)
    put.restype = None
    return get, put


def _threads() -> int:
    """Return the library's number of threads."""
    return _settings()[0]()


class _Alone:
    """The number of callers inside `alone`, and the library's number of threads before.

    A class rather than a generator, since small products enter it every few microseconds.
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
        """In a child process, reset: threads that were inside or held the lock do not exist."""
        self._lock = threading.Lock()
        if self._inside:
            self._inside = 0
            _settings()[1](self._before)


_state: Final = _Alone()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_state.forked)


def alone() -> AbstractContextManager[None]:
    """Run each product on the calling thread only, until the last caller leaves.

    The library has no setting per call: while any caller is inside, NumPy's products on other
    threads use one thread too.
    """
    return _state

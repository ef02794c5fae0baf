"""Looking for numbers that are not finite, or too large, at the speed of memory.

Magnitudes are compared as integers: the bits of a float without its sign rise with it, and those of
NaN are above all others. The largest of integers may be found in any order, on vectors.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np

from rumus.tensor.compiled.numba_addresses import int32s, int64s, stored
from rumus.tensor.compiled.numba_entries import BoundEntry, address_of, fixed_entry
from rumus.tensor.compiled.shared_work import PARALLEL, thread_count
from rumus.tensor.expression.dtype import float32, float64
from rumus.tensor.memory.backend import Array

_MAGNITUDE32: Final = 0x7FFFFFFF
_MAGNITUDE64: Final = 0x7FFFFFFFFFFFFFFF


class BoundLook:
    """Whether an array holds a number of at least some magnitude, or NaN. Calling it looks.

    array: dense, of float32 or float64.
    limit: the magnitude.
    """

    def __init__(self, array: Array, limit: float = math.inf) -> None:
        bits = np.dtype(f"i{array.itemsize}")
        with np.errstate(over="ignore"):
            least = int(array.dtype.type(limit).view(bits))
        self._found = np.zeros(1, np.int64)
        parts = thread_count() if array.size >= PARALLEL else 1
        numbers = [address_of(array), least, address_of(self._found)]
        entry = _entry(array.itemsize)
        self._entry = BoundEntry(entry, numbers, array.size, parts, (array, self._found))

    def __call__(self) -> bool:
        """Look."""
        self._found[0] = 0
        self._entry()
        return bool(self._found[0])


def can_look(array: Array) -> bool:
    """Whether there is a loop for an array."""
    return array.dtype in (float32, float64) and bool(array.flags.c_contiguous)


def _single(place: int, start: int, stop: int) -> None:
    n = int64s(place)
    bits, most = int32s(n[0]), np.int32(0)
    for i in range(start, stop):
        magnitude = bits[i] & np.int32(_MAGNITUDE32)
        most = max(most, magnitude)
    if most >= n[1]:
        stored(n[2], 1)


def _double(place: int, start: int, stop: int) -> None:
    n = int64s(place)
    bits, most = int64s(n[0]), np.int64(0)
    for i in range(start, stop):
        magnitude = bits[i] & np.int64(_MAGNITUDE64)
        most = max(most, magnitude)
    if most >= n[1]:
        stored(n[2], 1)


@lru_cache(maxsize=2)
def _entry(size: int) -> int:
    return fixed_entry(_single if size == 4 else _double)

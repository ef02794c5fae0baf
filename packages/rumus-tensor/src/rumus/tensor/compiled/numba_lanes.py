"""Sums and maxima for compiled loops, by vectors rather than single numbers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

RUN: Final = 64  # numbers that a lane adds in its own dtype; sums of lanes are in float64
_SIGN, _MAGNITUDE, _LOWEST = np.int32(31), np.int32(0x7FFFFFFF), np.int32(-0x80000000)


def emptied(lanes: Any) -> float:
    """For numba to compile: sum the lanes and reset them to 0."""
    total = 0.0
    for i in range(lanes.size):
        total += lanes[i]
        lanes[i] = 0
    return total


def largest(bits: Any, row: int, length: int) -> Any:
    """For numba to compile: the maximum of a float32 row, from its bits as integers.

    Such a loop vectorizes. NaN is above or below all numbers, depending on its sign.
    """
    best = _LOWEST
    for i in range(length):
        k = np.uintp(i)
        key = bits[row, k] ^ ((bits[row, k] >> _SIGN) & _MAGNITUDE)
        best = max(best, key)  # ordered like the numbers
    return np.int32(best ^ ((best >> _SIGN) & _MAGNITUDE)).view(np.float32)

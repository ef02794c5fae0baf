"""Sums side by side, for compiled loops: so vectors are added, and not one number after another."""

from __future__ import annotations

from typing import Any, Final

RUN: Final = 64  # numbers that a lane adds in its own dtype; the sums of lanes are in float64


def emptied(lanes: Any) -> float:
    """For numba to compile: the sum of the lanes, which are 0 after it."""
    total = 0.0
    for i in range(lanes.size):
        total += lanes[i]
        lanes[i] = 0
    return total

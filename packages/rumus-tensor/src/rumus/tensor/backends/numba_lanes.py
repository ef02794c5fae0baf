"""Partial sums side by side, for compiled loops: vectors are added rather than single numbers."""

from __future__ import annotations

from typing import Any, Final

RUN: Final = 64  # numbers that a lane adds in its own dtype; sums of lanes are in float64


def emptied(lanes: Any) -> float:
    """For numba to compile: sum the lanes and reset them to 0."""
    total = 0.0
    for i in range(lanes.size):
        total += lanes[i]
        lanes[i] = 0
    return total

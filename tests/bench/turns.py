"""Timing several implementations of the same work on a GPU, in turns."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping

ROUNDS = 7
Step = Callable[[], object]
Side = tuple[Step, Step]  # a step, and a function that waits until the device has done it


def medians(sides: Mapping[str, Side], repeats: int) -> dict[str, float]:
    """Microseconds per step of each side: the median over alternating rounds."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS + 2):
        for name, (step, wait) in sides.items():
            wait()
            begin = time.perf_counter()
            for _ in range(repeats):
                step()
            wait()
            if number >= 2:
                found[name].append((time.perf_counter() - begin) / repeats * 1e6)
    return {name: statistics.median(times) for name, times in found.items()}


def has(module: str) -> bool:
    """Whether a peer is installed."""
    return importlib.util.find_spec(module) is not None

"""Timing several implementations of the same work on a GPU, in turns."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping

ROUNDS = 7
WARM = 0.25  # seconds of the same work, after which the clock of an idle card has risen
TURN = 0.03  # the same, after another side's turn
Step = Callable[[], object]
Side = tuple[Step, Step]  # a step, and a function that waits until the device has done it


def medians(sides: Mapping[str, Side], repeats: int) -> dict[str, float]:
    """Microseconds per step of each side: the median over alternating rounds.

    Each turn begins with the same work, untimed.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS + 1):
        for name, (step, wait) in sides.items():
            warm = time.perf_counter() + (TURN if number else WARM)
            while time.perf_counter() < warm:
                step()
                wait()
            begin = time.perf_counter()
            for _ in range(repeats):
                step()
            wait()
            if number:
                found[name].append((time.perf_counter() - begin) / repeats * 1e6)
    return {name: statistics.median(times) for name, times in found.items()}


def has(module: str) -> bool:
    """Whether a peer is installed."""
    return importlib.util.find_spec(module) is not None

"""The step of each program of docs/examples/ported beside its PyTorch original's, on the CPU.

    PYTHONPATH=tests/support python tests/bench/ported.py [NAME ...]

Both sides take turns, A B A B; a figure is the median, and contains making the batch, which both do
alike. The first steps, in which rumus reads the program and records it, stand by themselves. Above
1, rumus is the faster one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from ported_programs import PAIRS, program

ROUNDS, FIRST, STEPS, THREADS = 5, 3, 20, 2
SETTLE = 0.5  # seconds: the threads of the other side's libraries go on spinning after their work


def seconds(train: Callable[[int], object], steps: int) -> float:
    """The time of so many steps."""
    time.sleep(SETTLE)
    begin = time.perf_counter()
    train(steps)
    return time.perf_counter() - begin


def side(name: str, model: str) -> Callable[[int], object]:
    """Train a new model each time, as an optimizer owns its parameters while it lives."""
    module = program(name)
    return lambda steps: module.train(getattr(module, model)(), steps)


def measure(name: str) -> None:
    """Print one row."""
    sides = [side(name, PAIRS[name].model), side(f"{name}_torch", PAIRS[name].model)]
    times: list[list[float]] = [[], []]
    first: list[list[float]] = [[], []]
    for number in range(ROUNDS + 1):
        for train, found, begun in zip(sides, times, first, strict=True):
            start = seconds(train, FIRST)
            taken = (seconds(train, FIRST + STEPS) - start) / STEPS
            if number:  # the first compiles
                found.append(taken)
                begun.append(start)
    ours, theirs = (1000 * statistics.median(found) for found in times)
    at_first = " | ".join(f"{1000 * statistics.median(begun):.0f}" for begun in first)
    print(f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.2f} | {at_first} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    print(
        "| program | rumus, ms a step | PyTorch, ms a step | PyTorch / rumus "
        f"| the first {FIRST} steps, ms: rumus | PyTorch |\n|---|---|---|---|---|---|"
    )
    for chosen in sys.argv[1:] or PAIRS:
        measure(chosen)

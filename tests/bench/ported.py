"""The step of each program of docs/examples/ported beside its PyTorch original's, on the CPU.

    PYTHONPATH=tests/support python tests/bench/ported.py [NAME ...]

Both sides take turns, A B A B; a figure is the median, and contains making the batch, which both do
alike. Above 1, rumus is the faster one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from ported_programs import PAIRS, program

ROUNDS, STEPS, THREADS = 5, 10, 2


def seconds(train: Callable[[int], object]) -> float:
    """The time of a step."""
    begin = time.perf_counter()
    train(STEPS)
    return (time.perf_counter() - begin) / STEPS


def side(name: str, model: str) -> Callable[[int], object]:
    """Train a new model each time, as an optimizer owns its parameters while it lives."""
    module = program(name)
    return lambda steps: module.train(getattr(module, model)(), steps)


def measure(name: str) -> None:
    """Print one row."""
    sides = [side(name, PAIRS[name].model), side(f"{name}_torch", PAIRS[name].model)]
    times: list[list[float]] = [[], []]
    for number in range(ROUNDS + 1):
        for train, found in zip(sides, times, strict=True):
            taken = seconds(train)
            if number:  # the first compiles
                found.append(taken)
    ours, theirs = (1000 * statistics.median(found) for found in times)
    print(f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.2f} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    print(
        "| program | rumus, ms a step | PyTorch, ms a step | PyTorch / rumus |\n|---|---|---|---|"
    )
    for chosen in sys.argv[1:] or PAIRS:
        measure(chosen)

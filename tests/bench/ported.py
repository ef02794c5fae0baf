"""A step of each program of docs/examples/ported against its PyTorch original, on the CPU.

    PYTHONPATH=tests/support python tests/bench/ported.py [--cores N] [--steps N] [NAME ...]

Both sides take turns, A B A B; a figure is the median, including the making of the batch, which is
the same for both. The first steps, in which rumus traces and records the program, are listed
separately. Above 1, rumus is faster.

With `--cores 1` both sides have one thread on one core: on a shared machine, threads that wait for
each other would measure the other programs more than the work.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from ported_programs import PAIRS, program

ROUNDS, FIRST = 3, 3
SETTLE = 0.5  # seconds: the threads of the other side's libraries go on spinning after their work


def seconds(train: Callable[[int], object], steps: int) -> float:
    """The time of so many steps."""
    time.sleep(SETTLE if torch.get_num_threads() > 1 else 0)
    begin = time.perf_counter()
    train(steps)
    return time.perf_counter() - begin


def side(name: str, model: str) -> Callable[[int], object]:
    """Train a new model each time, as an optimizer owns its parameters while it lives."""
    module = program(name)
    return lambda steps: module.train(getattr(module, model)(), steps)


def measure(name: str, steps: int) -> None:
    """Print one row."""
    sides = [side(name, PAIRS[name].model), side(f"{name}_torch", PAIRS[name].model)]
    times: list[list[float]] = [[], []]
    first: list[list[float]] = [[], []]
    for number in range(ROUNDS + 1):
        for train, found, begun in zip(sides, times, first, strict=True):
            start = seconds(train, FIRST)
            taken = (seconds(train, FIRST + steps) - start) / steps
            if number:  # the first compiles
                found.append(taken)
                begun.append(start)
    ours, theirs = (1000 * statistics.median(found) for found in times)
    at_first = " | ".join(f"{1000 * statistics.median(begun):.0f}" for begun in first)
    print(f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.2f} | {at_first} |", flush=True)


def main() -> None:
    """Measure the requested programs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(PAIRS))
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    chosen = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-chosen.cores :])
    torch.set_num_threads(chosen.cores)
    print(
        "| program | rumus, ms a step | PyTorch, ms a step | PyTorch / rumus "
        f"| the first {FIRST} steps, ms: rumus | PyTorch |\n|---|---|---|---|---|---|"
    )
    for name in chosen.names:
        measure(name, chosen.steps)


if __name__ == "__main__":
    main()

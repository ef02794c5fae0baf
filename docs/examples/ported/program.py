"""The command line that the programs here share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

M = TypeVar("M")


def main(model: M, train: Callable[[M, int], list[float]], steps: int = 100) -> None:
    """Train according to `--steps` and `--gpu`, and print losses and the time per step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--gpu", action="store_true", help="any kind will do (rumus only)")
    chosen = parser.parse_args()
    if chosen.gpu:
        model.to_gpu()  # type: ignore[attr-defined]
    start = time.perf_counter()
    losses = train(model, chosen.steps)
    seconds = (time.perf_counter() - start) / len(losses)
    for step in sorted({0, len(losses) // 2, len(losses) - 1}):
        print(f"step {step + 1:4}   loss {losses[step]:.4f}")
    print(f"{seconds * 1000:.1f} ms per step")

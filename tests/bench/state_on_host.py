"""An optimizer with its state in host memory, against one on the device: times and bytes.

    python tests/bench/state_on_host.py --lines figures.txt

AdamW over the shapes of GPT-2 124M: only the update, and the whole training step of that model with
8 texts of 512 tokens. Figures are medians of several rounds in which the sides take turns, each on
its own device, so that peaks are separate; each line is written to the file at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gpu_models import rumus_step, works
from steps import GPT2, stepping
from turns import Side, medians

from rumus.gpu import Gpu, GpuBackend, Precision
from rumus.optim import AdamW

SIDES: Mapping[str, Mapping[str, Any]] = {
    "resident": {},
    "host": {"state_device": "host"},
    "host, 8 bits": {"state_device": "host", "state_dtype": "8bit"},
}
MiB = 2**20


def update(backend: GpuBackend, options: Mapping[str, Any]) -> Side:
    """AdamW's update over GPT-2's list."""
    return stepping(backend, GPT2, partial(AdamW, lr=1e-3, **options))


def training(precision: Precision, backend: GpuBackend, options: Mapping[str, Any]) -> Side:
    """A training step of GPT-2."""
    backend.gpu.precision = precision
    return rumus_step(works()["gpt2"], backend, True, **options)


Work = Callable[[GpuBackend, Mapping[str, Any]], Side]
ROWS: Mapping[str, tuple[Work, int]] = {
    "AdamW of GPT-2 124M, update": (update, 5),
    "GPT-2 124M step, 8 x 512": (partial(training, "highest"), 3),
    'the same, precision="medium"': (partial(training, "medium"), 3),
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure optimizer state in host memory.")
    parser.add_argument("--lines", type=Path, help="a file to which each figure is added")
    parser.add_argument("--engine", choices=("wgpu", "dawn"), help="by default what a user gets")
    chosen = parser.parse_args()
    for row, (work, repeats) in ROWS.items():
        backends = {name: GpuBackend(Gpu(engine=chosen.engine)) for name in SIDES}
        sides = {name: work(backends[name], options) for name, options in SIDES.items()}
        figures = medians(sides, repeats)
        for name, figure in figures.items():
            backend = backends[name]
            say(
                f"{row:30} {name:13} {figure / 1000:9.2f} ms  "
                f"{figure / figures['resident']:5.2f} times resident  "
                f"peak {backend.memory_stats().peak / MiB:7.0f} MiB on the device, "
                f"{backend.gpu.bytes_on_host / MiB:5.0f} MiB on the host  ({backend.gpu.engine}, "
                f"{backend.gpu.name})",
                chosen.lines,
            )
        sides.clear()


def say(line: str, file: Path | None) -> None:
    """Print a line, and add it to the file."""
    print(line, flush=True)
    if file is not None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")


if __name__ == "__main__":
    main()

"""Seconds until a new process has done its first training step, with a warm numba cache.

Each process runs a program like a user's: imports, a model, one step. The first round fills the
caches of Python and numba and does not count. Run with `python tests/bench/first_step.py`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROUNDS: Final = 5
REACH: Final = {"mlp": 0.5, "gpt": 1.0}  # seconds of the step, including numba's import


class Stopwatch:
    """Seconds for parts of a program, in wall-clock and processor time."""

    def __init__(self) -> None:
        self.parts: dict[str, tuple[float, float]] = {}
        self._last = self._now()

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def stop(self, part: str) -> None:
        """Note the time since the previous part."""
        before, self._last = self._last, self._now()
        wall, processor = (now - then for now, then in zip(self._last, before, strict=True))
        self.parts[part] = wall, processor


def one_step(kind: str) -> dict[str, tuple[float, float]]:
    """Run the program, and return how long its parts took."""
    watch = Stopwatch()
    from rumus import nn
    from rumus.optim import AdamW
    from rumus.train import Trainer

    watch.stop("imports")
    random = np.random.default_rng(0)
    x: NDArray[Any]
    if kind == "mlp":
        model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
        x = random.random((64, 784), np.float32)
    else:
        block = nn.TransformerBlock(64, 4, causal=True, dropout=0.1)
        head = nn.LayerNorm(64), nn.Flatten(), nn.Linear(64 * 64, 10)
        model = nn.Sequential(nn.Embedding(64, 64), block, *head)
        x = random.integers(0, 64, (16, 64))
    trainer = Trainer(AdamW(model.parameters(), 1e-3), state={"model": model})
    watch.stop("model")
    loss = trainer.train_step(
        lambda x, y: nn.cross_entropy_loss(model(x), y), x, np.zeros(len(x), np.int32)
    )
    loss.item()
    watch.stop("first step")
    return watch.parts


def of_new_process(kind: str, environment: dict[str, str]) -> dict[str, list[float]]:
    """Return how long the parts took in a process of its own."""
    command = [sys.executable, __file__, kind]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    parts: dict[str, list[float]] = json.loads(found.stdout)
    return parts


def main() -> None:
    """Measure and print medians."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/python"}
        environment |= {"NUMBA_CACHE_DIR": f"{folder}/numba"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for kind, reach in REACH.items():
            first = of_new_process(kind, environment)
            rounds = [of_new_process(kind, environment) for _ in range(ROUNDS)]
            for name, (wall, processor) in first.items():
                medians = [statistics.median(each[name][at] for each in rounds) for at in (0, 1)]
                least = min(each[name][0] for each in rounds)
                print(
                    f"{kind} {name:10} {medians[0]:.2f} s, at least {least:.2f}; of the processor "
                    f"{medians[1]:.2f}; with empty caches {wall:.1f}, {processor:.1f}"
                )
            print(f"{kind} to reach: a first step of {reach:.1f} s")
    beside = [name for name in ("scipy", "coverage", "yaml") if find_spec(name)]
    print(f"installed, and imported by numba: {', '.join(beside) or 'nothing else'}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one_step(sys.argv[1])))
    else:
        main()

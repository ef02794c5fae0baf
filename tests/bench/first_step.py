"""Seconds until a new process has done its first training step, with numba's code in its cache.

Each process is a program of its own, that of a user: imports, a model, one step. The first round
fills the caches, of Python and of numba, and does not count. Run with
`python tests/bench/first_step.py`.
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

ROUNDS: Final = 7
REACH: Final = {"mlp": 0.5, "gpt": 1.0}  # seconds of the step, numba's import among them


def one_step(kind: str) -> dict[str, float]:
    """Do what a program does, and return how long its parts took."""
    start = time.perf_counter()
    from rumus import nn
    from rumus.optim import AdamW
    from rumus.train import Trainer

    imported = time.perf_counter()
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
    made = time.perf_counter()
    loss = trainer.train_step(
        lambda x, y: nn.cross_entropy_loss(model(x), y), x, np.zeros(len(x), np.int32)
    )
    loss.item()
    done = time.perf_counter()
    return {"imports": imported - start, "model": made - imported, "first step": done - made}


def of_new_process(kind: str, environment: dict[str, str]) -> dict[str, float]:
    """Return how long the parts took in a process of its own, and all of it."""
    start = time.perf_counter()
    command = [sys.executable, __file__, kind]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    parts: dict[str, float] = json.loads(found.stdout)
    return {**parts, "the process": time.perf_counter() - start}


def main() -> None:
    """Measure and print medians."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/python"}
        environment |= {"NUMBA_CACHE_DIR": f"{folder}/numba"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for kind, reach in REACH.items():
            first = of_new_process(kind, environment)
            rounds = [of_new_process(kind, environment) for _ in range(ROUNDS)]
            told = ", ".join(
                f"{name} {statistics.median(each[name] for each in rounds):.2f}" for name in first
            )
            best = min(each["first step"] for each in rounds)
            print(f"{kind}: {told}; the fastest first step {best:.2f}, to reach {reach:.1f}")
            print(f"     with empty caches the first step took {first['first step']:.1f}")
    beside = [name for name in ("scipy", "coverage", "yaml") if find_spec(name)]
    print(f"installed, and imported by numba: {', '.join(beside) or 'nothing else'}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one_step(sys.argv[1])))
    else:
        main()

"""The cost of logging in a captured step: microseconds of the training thread, on the CPU.

The same step of a small classifier, once with only its loss, and once with a number or a metric
logged as well. For a number this is the cost of noting it; a metric is also computed. Rounds
alternate, and the minimum of each counts; where a model lies in memory makes a difference of up to
ten microseconds, so that the median of several counts. Run with `python
tests/bench/logged_steps.py`; it takes two minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from statistics import median
from typing import Any, Final

import numpy as np

from rumus import nn
from rumus.optim import AdamW
from rumus.tensor import Backend, NumbaBackend, NumpyBackend, Tensor
from rumus.train import Trainer, metrics

STEPS, ROUNDS, MODELS = 240, 6, 9
REACH = 10.0  # microseconds more than with only the loss
ALONE: Final = "the loss alone"

# The logged values, from the loss, the scores and the targets.
LOGS: Final[Mapping[str, Callable[[Tensor, Tensor, Tensor], Any]]] = {
    "a number": lambda loss, scores, y: loss,
    "accuracy": lambda loss, scores, y: metrics.accuracy(scores, y),
    "accuracy, top 3": lambda loss, scores, y: metrics.accuracy(scores, y, top=3),
    "f1": lambda loss, scores, y: metrics.f1(scores, y),
    "perplexity": lambda loss, scores, y: metrics.perplexity(scores, y),
    "mean absolute error": lambda loss, scores, y: metrics.mean_absolute_error(scores, scores),
}

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 32)).astype(np.float32)
Y = (np.arange(64) % 10).astype(np.int32)


class Side:
    """A model, and the values that its steps log."""

    def __init__(self, backend: Backend, logs: str) -> None:
        self.model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
        self.model.to(backend)
        # It learns nothing: vanishing gradients would be subnormal, and slow.
        self.trainer: Trainer[Any] = Trainer(AdamW(self.model.parameters(), 1e-9))
        self.logs = logs
        self.best = float("inf")
        self._logged = LOGS.get(logs)

    def loss(self, x: Tensor, y: Tensor) -> Any:
        """Return the loss, and the values to log."""
        scores = self.model(x)
        loss = nn.cross_entropy_loss(scores, y)
        return loss if self._logged is None else {"loss": loss, "it": self._logged(loss, scores, y)}

    def run(self) -> None:
        """Do a round of steps."""
        start = time.thread_time()
        for _ in range(STEPS):
            self.trainer.train_step(self.loss, X, Y, weight=64)
        self.best = min(self.best, (time.thread_time() - start) / STEPS * 1e6)
        self.trainer.epoch_avg_loss()
        self.trainer.epoch_averages()


def measure(name: str, make_backend: Callable[[], Backend]) -> None:
    """Measure and print."""
    alone: list[float] = []
    captured: set[float] = set()
    more: dict[str, list[float]] = {logs: [] for logs in LOGS}
    for _ in range(MODELS):
        backend = make_backend()
        sides = [Side(backend, logs) for logs in (ALONE, *LOGS)]
        for _ in range(ROUNDS):
            for side in sides:
                side.run()
        alone.append(sides[0].best)
        for side in sides[1:]:
            more[side.logs].append(side.best - sides[0].best)
        captured |= {side.trainer.counts.captured / STEPS / ROUNDS for side in sides}
    print(f"{name:6} {ALONE:20} {median(alone):7.1f} us; captured {min(captured):.0%}")
    for logs, found in more.items():
        print(f"{name:6} {logs:20} {median(found):7.1f} us more")


if __name__ == "__main__":
    measure("NumPy", NumpyBackend)
    if find_spec("numba"):
        measure("numba", NumbaBackend)
    print(f"to reach: at most {REACH:.0f} more")

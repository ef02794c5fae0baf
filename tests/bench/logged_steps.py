"""What it costs a captured step to log: microseconds of the thread that trains, on the CPU.

The same step of a small classifier, once with its loss alone, and with a number and a metric beside
it. A number costs what it takes to note it; a metric is computed as well. Rounds take turns, and
the least of each counts. Run with `python tests/bench/logged_steps.py`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from rumus import nn
from rumus.optim import AdamW
from rumus.tensor import Tensor
from rumus.train import Trainer, metrics

STEPS, ROUNDS = 500, 25
REACH = 10.0  # microseconds, for a number

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 32)).astype(np.float32)
Y = (np.arange(64) % 10).astype(np.int32)


class Side:
    """A model, and what its steps log."""

    def __init__(self, logs: str) -> None:
        self.model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
        self.trainer: Trainer[Any] = Trainer(AdamW(self.model.parameters(), 1e-3))
        self.logs = logs
        self.best = float("inf")

    def loss(self, x: Tensor, y: Tensor) -> Any:
        """Return the loss, and what is to be logged."""
        scores = self.model(x)
        loss = nn.cross_entropy_loss(scores, y)
        if self.logs == "the loss alone":
            return loss
        if self.logs == "a number":
            return {"loss": loss, "again": loss}
        return {"loss": loss, "accuracy": metrics.accuracy(scores, y)}

    def run(self) -> None:
        """Do a round of steps."""
        start = time.thread_time()
        for _ in range(STEPS):
            self.trainer.train_step(self.loss, X, Y, weight=64)
        self.best = min(self.best, (time.thread_time() - start) / STEPS * 1e6)
        self.trainer.epoch_avg_loss()
        self.trainer.epoch_averages()


def main() -> None:
    """Measure and print."""
    sides = [Side(logs) for logs in ("the loss alone", "a number", "accuracy")]
    for _ in range(ROUNDS):
        for side in sides:
            side.run()
    for side in sides:
        more = side.best - sides[0].best
        kept = side.trainer.counts
        share = kept.captured / (kept.captured + kept.plain)
        print(f"{side.logs:16} {side.best:7.1f} us, {more:5.1f} more; captured {share:.0%}")
    print(f"to reach, for a number: at most {REACH:.0f}")


if __name__ == "__main__":
    main()

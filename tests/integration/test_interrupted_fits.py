"""`fit` with a signal at any of its lines, whose handler raises, and what the next `fit` finds.

The checkpoint that is left has the last step that happened, and a run that goes on from it ends
with the bits, and the history, of one that nothing has interrupted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from interrupted import SIGNALS, at_line, raising_handlers

from rumus import nn
from rumus.optim import EMA, SAM, AdamW
from rumus.tensor import Generator, Tensor
from rumus.train import ArrayDataset, Checkpoints, DataLoader, Every, Result, Spikes, Trainer

_NUMBERS: Final = np.random.default_rng(0)
X: Final = _NUMBERS.standard_normal((12, 3)).astype(np.float32)
Y: Final = _NUMBERS.integers(0, 2, 12)
LINES: Final = 12  # at which each kind of run is interrupted
OF_PROGRAM: Final = SIGNALS[2:]  # those whose handlers `fit` leaves alone


class Counted:
    """A loader without a place of its own, whose batches are counted."""

    def __len__(self) -> int:
        return 3

    def set_epoch(self, epoch: int) -> None:
        self.order = np.random.default_rng(epoch).permutation(12)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for start in range(0, 12, 4):
            at = self.order[start : start + 4]
            yield X[at], Y[at]


class Run:
    """A training with buffers, dropout and an average."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        generator = Generator(1)
        self.model = nn.Sequential(
            nn.Linear(3, 4, generator=generator),
            nn.BatchNorm1d(4),
            nn.Dropout(0.3, generator=Generator(2)),
            nn.Linear(4, 2, generator=generator),
        )
        base = AdamW(self.model.parameters(), 0.05, average=None if kind == "sam" else EMA(0.9))
        self.optimizer: Any = SAM(base) if kind == "sam" else base
        # Capturing runs code as arrays are freed, where Python swallows what a handler raises.
        self.trainer = Trainer(self.optimizer, state={"model": self.model}, capture=False)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(self.model(x), y)

    def fit(self) -> Result:
        ordered = DataLoader(ArrayDataset(X, Y), 4, shuffle=True, seed=5)
        return self.trainer.fit(
            Counted() if self.kind == "counted" else ordered,
            self.loss,
            epochs=2,
            validate=(DataLoader(ArrayDataset(X, Y), 6), self.loss),
            checkpoints=Checkpoints(self.folder, keep_last=3),
            save_every=Every(epochs=2),
            accumulate=2 if self.kind == "accumulated" else 1,
            spikes=Spikes("skip", window=2, z_thresh=0.5) if self.kind == "spikes" else None,
            resume="auto",
            progress=None,
        )

    def bits(self) -> list[bytes]:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return [each.numpy().tobytes() for each in tensors]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", ["plain", "counted", "accumulated", "sam", "spikes"])
def test_the_last_whole_step_is_saved_and_nothing_is_torn(kind: str, tmp_path: Path) -> None:
    whole = Run(kind, tmp_path / "whole")
    wanted = whole.fit().history, whole.bits()
    lines, _ = at_line(0, OF_PROGRAM[0], Run(kind, tmp_path / "counting").fit)
    chosen = random.Random(kind)
    for line in sorted(chosen.sample(range(lines // 10, lines), LINES)):
        folder = tmp_path / str(line)
        first = Run(kind, folder)
        with raising_handlers():
            at_line(line, chosen.choice(OF_PROGRAM), first.fit)
        saved = Checkpoints(folder).list()
        if kind != "spikes":  # whose steps that are left out are steps of the run
            assert (saved[-1].step if saved else 0) == first.optimizer.steps, line
        second = Run(kind, folder)
        assert (second.fit().history, second.bits()) == wanted, line

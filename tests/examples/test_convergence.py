"""Every optimizer trains the digits model with its defaults."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from optimizer_table import KINDS
from sklearn.datasets import load_digits

from rumus import nn, optim
from rumus.optim import AveragingOptimizer
from rumus.tensor import Generator, NumpyBackend, Tensor, no_grad, tensor

BATCH: Final = 64
HELD_OUT: Final = 297
# Default learning rates that are small for this model need more than the usual 20 epochs.
EPOCHS: Final = {"SGD": 400, "Muon": 60, "ASGD": 100, "Lion": 100, "LAMB": 100}


def digits() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The pictures as numbers from 0 to 1, and their classes, in a mixed order."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return (
        (data.data[order] / 16).astype(np.float32),
        data.target[order].astype(np.int32),
    )


def train(kind: Any, hidden: int = 32, **options: Any) -> float:
    """The held-out accuracy."""
    backend = NumpyBackend()
    random = Generator(0)
    model = nn.Sequential(
        nn.Linear(64, hidden, generator=random, backend=backend),
        nn.Tanh(),
        nn.Linear(hidden, 10, generator=random, backend=backend),
    )
    x, y = digits()
    optimizer = kind(model.parameters(), **options)
    for epoch in range(EPOCHS.get(kind.__name__, 20)):
        order = np.random.default_rng([1, epoch]).permutation(len(y) - HELD_OUT)
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            logits: Tensor = model(tensor(x[rows], backend=backend))
            with nn.cross_entropy_loss(logits, y[rows]).backward() as grads:
                optimizer.step(grads)
    averaged = optimizer.eval_params() if isinstance(optimizer, AveragingOptimizer) else None
    with no_grad(), averaged or nullcontext():
        found = model(tensor(x[-HELD_OUT:], backend=backend)).argmax(axis=1).numpy()
    return float((found == y[-HELD_OUT:]).mean())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_digits(kind: Any) -> None:
    assert train(kind) >= 0.85


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.Lion])
def test_digits_with_state_in_8_bits(kind: Any) -> None:
    plain, packed = train(kind, 64), train(kind, 64, state_dtype="8bit")
    assert packed >= 0.85
    assert abs(packed - plain) <= 0.02

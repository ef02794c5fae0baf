"""Recomputed activations in a captured step: bit for bit the eager step."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import default_backend
from rumus.optim import AdamW
from rumus.tensor import Generator, GraphError, Parameter, Tensor
from rumus.train import Trainer


def losses(capture: bool) -> tuple[list[float], list[bytes]]:
    backend, random = default_backend(), Generator(0)
    block = nn.Sequential(
        nn.Linear(6, 12, generator=random, backend=backend),
        nn.GELU(),
        nn.Dropout(0.4, generator=Generator(1)),
        nn.Linear(12, 6, generator=random, backend=backend),
    )
    trainer = Trainer(AdamW(block.parameters(), 0.01), capture=capture)

    def loss_fn(x: Tensor, y: Tensor) -> Tensor:
        return nn.mse_loss(nn.checkpoint(block, nn.checkpoint(block, x)), y)

    found = []
    for step in range(6):
        x, y = (np.random.default_rng([step, i]).normal(size=(5, 6)) for i in range(2))
        found.append(trainer.train_step(loss_fn, x, y).item())
    assert (trainer.counts.replayed > 0) == capture
    return found, [p.numpy().tobytes() for p in block.parameters()]


def test_a_captured_step_is_the_eager_one() -> None:
    assert losses(capture=True) == losses(capture=False)


@pytest.mark.parametrize("draw", [random.random, np.random.random])
def test_draws_that_are_not_rewound_are_refused(draw: Callable[[], float]) -> None:
    """On a GPU, whose results are not compared, nothing else would tell."""
    w = Parameter([1.0, 2.0], name="w", backend=default_backend())
    with pytest.raises(GraphError, match=r"draws from the generator .*rumus\.tensor\.Generator"):
        nn.checkpoint(lambda x: x * w * draw(), w * 1.0)
    other = random.Random(0)
    nn.checkpoint(lambda x: x * w * (0.0 * other.random()), w * 1.0).sum().backward()

"""A captured step looks at each batch: at usual numbers, then at those whose squares are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rumus import nn
from rumus.optim import SGD
from rumus.tensor import Backend, Parameter, Tensor
from rumus.train import Trainer

SIZES = [1.0, 1.0, 1.0, 1.0, 1e25, 1e-25, 0.0, 1.0]
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: x.norm(axis=1).mean(),
    "norm of another order": lambda x: x.norm(3, axis=1).mean(),
    "std": lambda x: x.std(1).mean(),
    "cosine": lambda x: nn.cosine_similarity(x, x[:, ::-1]).mean(),
    "distance": lambda x: nn.pairwise_distance(x, -x, eps=0.0).mean(),
    "adaptive mean": lambda x: (nn.AdaptiveAvgPool1d(3)(x.unsqueeze(0))[0, :, 1]).max(),
}


def trained(name: str, backend: Backend, capture: bool) -> tuple[list[float], list[float], int]:
    """The losses, the first weight after each step, and the number of replayed steps."""
    w = Parameter(np.ones(7, np.float32), name="w", backend=backend)
    optimizer = SGD([w], lr=1e-3, nonfinite="propagate")
    trainer = Trainer(optimizer, capture=capture)
    draw = np.random.default_rng(3)
    losses, weights = [], []
    for size in SIZES:
        x = (draw.standard_normal((5, 7)) * size).astype(np.float32)
        if name == "adaptive mean" and size > 1:
            x[:, 6] = np.nan  # in the last part alone
        losses.append(trainer.train_step(lambda x: FUNCTIONS[name](x * w), x).item())
        weights.append(float(w.numpy()[0]))
        w.assign(np.ones(7, np.float32))
    return losses, weights, trainer.counts.replayed


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_replayed_step_looks_at_its_own_numbers(name: str, backend: Backend) -> None:
    eager, moved, replayed = trained(name, backend, capture=False)
    assert not replayed
    assert np.isfinite(eager).all()
    again, moved_again, replayed = trained(name, backend, capture=True)
    assert replayed >= 5
    np.testing.assert_allclose(again, eager, rtol=1e-6)
    np.testing.assert_allclose(moved_again, moved, rtol=1e-6)

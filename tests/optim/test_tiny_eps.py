"""With an eps far below the root of the smallest number, a step is as large as with any other."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from rumus import optim
from rumus.tensor import Backend, GradientStore, Parameter, tensor

NAMES = [
    "Adagrad", "Adam", "AdamW", "AdaBelief", "Adan", "AdEMAMix", "ADOPT", "LAMB", "LaProp", "MARS",
    "NAdam", "RAdam", "RMSprop", "ScheduleFreeAdamW", "StableAdamW", "Yogi",
]  # fmt: skip


def options(name: str, eps: float) -> dict[str, Any]:
    kind = getattr(optim, name)
    takes = inspect.signature(kind).parameters
    return {"lr": 1e-3, "eps": eps} if "weight_decay" not in takes else {
        "lr": 1e-3, "eps": eps, "weight_decay": 0.0
    }  # fmt: skip


@pytest.mark.parametrize("size", [40, 30_000])
@pytest.mark.parametrize("eps", [1e-37, 1e-30, 1e-20])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_whose_squares_are_0_move_nothing_far(
    name: str, eps: float, size: int, backend: Backend
) -> None:
    rng = np.random.default_rng(1)
    start = rng.standard_normal(size).astype(np.float32)
    w = Parameter(start, name="w", backend=backend)
    optimizer = getattr(optim, name)([w], **options(name, eps))
    for _ in range(6):
        g = rng.choice([-1.0, 1.0], size) * 10.0 ** rng.uniform(-37, -17, size)
        grads = GradientStore()
        grads.accumulate(w, tensor(g.astype(np.float32), backend=backend))
        optimizer.step(grads)
    # Less than the number of steps times the learning rate, and 31 at the first steps of beta2.
    assert np.abs(w.numpy() - start).max() <= 6 * 32 * 1e-3

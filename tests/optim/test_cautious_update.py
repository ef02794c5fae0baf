"""`cautious=True`: against its formula in float64, and with other options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import LAMB, SGD, AdamW, ClipNorm, Lion, LossScale, Muon, ScheduleFreeAdamW
from rumus.tensor import Backend, DType, GradientStore, Parameter, float32, tensor

Real = NDArray[Any]
SHAPES = ((6, 5), (9,))


def moved(p: Real, u: Real, g: Real, lr: float) -> Real:
    """The authors' formula: held back where the signs differ, larger where they agree."""
    agrees = (u * g > 0).astype(p.dtype)
    result: Real = p - lr * u * agrees / max(float(agrees.mean()), 1e-3)
    return result


def of_adamw(p: Real, gradients: Sequence[Real], lr: float, decay: float) -> Real:
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        p = moved(p, u, g, lr) - lr * decay * p
    return p


def of_lion(p: Real, gradients: Sequence[Real], lr: float, decay: float) -> Real:
    m = np.zeros_like(p)
    for g in gradients:
        p = moved(p, np.sign(0.9 * m + 0.1 * g), g, lr) - lr * decay * p
        m = 0.99 * m + 0.01 * g
    return p


def of_sgd(p: Real, gradients: Sequence[Real], lr: float, decay: float) -> Real:
    b = np.zeros_like(p)
    for g in gradients:
        b = 0.9 * b + g
        p = moved(p, b, g, lr) - lr * decay * p
    return p


KINDS: dict[str, tuple[Any, Any]] = {
    "AdamW": (AdamW, of_adamw),
    "Lion": (Lion, of_lion),
    "SGD": (lambda p, **o: SGD(p, momentum=0.9, **o), of_sgd),
}


def made(backend: Backend, dtype: DType) -> tuple[list[Parameter], list[list[Real]]]:
    draw = np.random.default_rng(4)
    start = [draw.normal(size=s) for s in SHAPES]
    gradients = [[draw.normal(size=s) for s in SHAPES] for _ in range(200)]
    owned = [Parameter(a, name=f"p{i}", dtype=dtype, backend=backend) for i, a in enumerate(start)]
    return owned, gradients


def step(optimizer: Any, owned: list[Parameter], of_step: Sequence[Real], scale: float = 1) -> None:
    grads = GradientStore()
    for p, g in zip(owned, of_step, strict=True):
        grads.accumulate(p, tensor(g * scale, dtype=p.dtype, backend=p.backend))
    optimizer.step(grads)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", KINDS)
def test_200_steps(name: str, decay: float, backend: Backend, widest: DType) -> None:
    make, formula = KINDS[name]
    owned, gradients = made(backend, widest)
    start = [p.numpy() for p in owned]
    rounded = [[g.astype(widest) for g in of_step] for of_step in gradients]
    optimizer = make(owned, lr=0.01, weight_decay=decay, cautious=True)
    for of_step in rounded:
        step(optimizer, owned, of_step)
    tolerance = 1e-10 if widest == np.float64 else 2e-4
    for i, p in enumerate(owned):
        own = [of_step[i].astype(np.float64) for of_step in rounded]
        wanted = formula(start[i].astype(np.float64), own, 0.01, decay)
        error = float(np.linalg.norm(p.numpy() - wanted) / np.linalg.norm(wanted))
        assert error <= tolerance


def test_it_acts_on_the_gradient_that_the_rule_sees(backend: Backend) -> None:
    """The gradient is negated, clipped and scaled; none of this changes what is held back."""
    runs = []
    every: list[dict[str, Any]] = [
        {},
        {"maximize": True},
        {"clip": ClipNorm(1e9)},
        {"scaled": True},
    ]
    for options in every:
        owned, gradients = made(backend, float32)
        given = {name: value for name, value in options.items() if name != "scaled"}
        optimizer = AdamW(owned, 0.01, cautious=True, **given)
        scale = -1.0 if "maximize" in options else 1.0
        if "scaled" in options:
            scale = optimizer.scale_losses(LossScale(initial=16.0)).scale
        for of_step in gradients[:5]:
            step(optimizer, owned, of_step, scale)
        runs.append([p.numpy() for p in owned])
    for run in runs[1:]:
        for mine, other in zip(run, runs[0], strict=True):
            np.testing.assert_array_equal(mine, other)


def test_matrices_of_muon(backend: Backend) -> None:
    """An element moves as without the option, except for the factor from the share that moves."""
    owned, gradients = made(backend, float32)
    others, _ = made(backend, float32)
    start = owned[0].numpy()
    for optimizer, own in ((Muon(owned, 0.1, weight_decay=0.0, cautious=True), owned),
                           (Muon(others, 0.1, weight_decay=0.0), others)):  # fmt: skip
        step(optimizer, own, gradients[0])
    held, free = owned[0].numpy() - start, others[0].numpy() - start
    agrees = free * gradients[0][0] < 0
    assert (held[~agrees] == 0).all()
    assert not agrees.all()
    np.testing.assert_allclose(held[agrees] * agrees.mean(), free[agrees], rtol=1e-3, atol=1e-6)


def test_unsupported_optimizers() -> None:
    w = Parameter(np.ones((3, 2)), name="w")
    with pytest.raises(TypeError, match="depends on another reduction"):
        LAMB([w], cautious=True)
    with pytest.raises(TypeError, match="not the average that this optimizer keeps"):
        ScheduleFreeAdamW([w], cautious=True)
    assert w.owner is None

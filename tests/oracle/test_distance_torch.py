"""Prodigy and D-Adaptation against their authors' code, on a problem that they solve."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rumus.optim import DAdaptAdam, FusedOptimizer, Prodigy
from rumus.tensor import Backend, DType, GradientStore, Parameter, float64, tensor

STEPS: Final = 100
SHAPES: Final = ((3, 5), (7,), (), (65, 3))
OTHER: Final = {"betas": (0.8, 0.95), "growth_rate": 1.3, "d0": 1e-3, "lr": 0.5}

CASES: Final[list[tuple[type[FusedOptimizer[Any]], dict[str, Any], dict[str, Any]]]] = [
    (Prodigy, {}, {}),
    (
        Prodigy,
        {**OTHER, "bias_correction": True, "weight_decay": 0.1, "beta3": 0.9, "d_coef": 2.0},
        {**OTHER, "use_bias_correction": True, "weight_decay": 0.1, "beta3": 0.9, "d_coef": 2.0},
    ),
    (Prodigy, {"safeguard_warmup": True, "lr": 0.3}, {"safeguard_warmup": True, "lr": 0.3}),
    (DAdaptAdam, {}, {}),
    (DAdaptAdam, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    (
        DAdaptAdam,
        {**OTHER, "bias_correction": True, "weight_decay": 0.1, "decoupled_weight_decay": True},
        {**OTHER, "use_bias_correction": True, "weight_decay": 0.1, "decouple": True},
    ),
]


def gradient(p: NDArray[Any], number: int, t: int) -> NDArray[Any]:
    """The gradient of a quadratic with its minimum elsewhere, with noise."""
    noise = np.random.default_rng([number, t]).normal(size=p.shape)
    return np.asarray(p - 1.5 + 0.1 * noise, p.dtype)


@pytest.mark.parametrize(("kind", "options", "theirs"), CASES, ids=str)
def test_the_estimate_and_the_parameters(
    kind: type[FusedOptimizer[Any]],
    options: dict[str, Any],
    theirs: dict[str, Any],
    backend: Backend,
    widest: DType,
) -> None:
    module = pytest.importorskip({Prodigy: "prodigyopt", DAdaptAdam: "dadaptation"}[kind])
    draw = np.random.default_rng(3)
    start = [np.asarray(draw.normal(size=shape), widest) for shape in SHAPES]
    ours = [Parameter(p, name=f"p{n}", dtype=widest, backend=backend) for n, p in enumerate(start)]
    others = [torch.nn.Parameter(torch.tensor(p)) for p in start]
    optimizer: Any = kind(ours, **options)
    other = getattr(module, kind.__name__)(others, **theirs)
    for t in range(STEPS):
        grads = GradientStore()
        for n, (p, q) in enumerate(zip(ours, others, strict=True)):
            own = gradient(p.numpy(), n, t)
            grads.accumulate(p, tensor(own, dtype=widest, backend=backend))
            q.grad = torch.tensor(gradient(q.detach().numpy(), n, t))
        optimizer.step(grads)
        other.step()
    tolerance = 1e-9 if widest == float64 else 1e-3
    assert optimizer.d.item() == pytest.approx(other.param_groups[0]["d"], rel=tolerance)
    assert optimizer.d.item() > 0.01
    for p, q in zip(ours, others, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance)

"""Reductions in a rule, against NumPy in float64, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import ClipNorm, FusedOptimizer, LossScale
from rumus.optim.options.options import StateDType
from rumus.tensor import (
    Backend,
    DType,
    Expr,
    GradientStore,
    Kernel,
    Parameter,
    elementwise,
    float16,
    float32,
    float64,
    ones,
    tensor,
)

Real = NDArray[Any]
SHAPES = ((5, 7), (130,), (), (64, 3))


def measuring(p: Expr, g: Expr, m: Expr, *, lr: Expr) -> dict[str, Expr]:
    m = 0.5 * m + g
    slope = (g * p).tensor_sum()
    rms = (g * g).tensor_mean().sqrt()
    return {"p": p - lr * (g * m.tensor_norm() / (1 + rms) + slope), "m": m}


def expected(start: Sequence[Real], gradients: Sequence[Sequence[Real]], lr: float) -> list[Real]:
    found = []
    for number, p in enumerate(start):
        m = np.zeros_like(p)
        for now in gradients:
            g = now[number]
            m = 0.5 * m + g
            rms, slope = np.sqrt(np.mean(g * g)), np.sum(g * p)
            p = p - lr * (g * np.sqrt(np.sum(m * m)) / (1 + rms) + slope)
        found.append(p)
    return found


def drawn(steps: int = 20) -> tuple[list[Real], list[list[Real]]]:
    draw = np.random.default_rng(2)
    start = [draw.normal(size=shape) for shape in SHAPES]
    return start, [[draw.normal(size=shape) for shape in SHAPES] for _ in range(steps)]


def parameters(start: Sequence[Real], dtype: DType, backend: Backend | None = None) -> Any:
    pairs = enumerate(start)
    return [Parameter(tensor(p, dtype=dtype, backend=backend), name=f"p{n}") for n, p in pairs]


def train(
    optimizer: FusedOptimizer[Any], gradients: Sequence[Sequence[Real]], scale: float = 1.0
) -> None:
    for now in gradients:
        grads = GradientStore()
        for p, g in zip(optimizer.parameters, now, strict=True):
            grads.accumulate(p, tensor(scale * g, dtype=p.dtype, backend=p.backend))
        optimizer.step(grads)


def test_sum_mean_and_norm(backend: Backend, widest: DType) -> None:
    start, gradients = drawn()
    optimizer = FusedOptimizer(parameters(start, widest, backend), measuring, lr=0.002)
    train(optimizer, gradients)
    tolerance = 1e-12 if widest == float64 else 2e-5
    for p, wanted in zip(optimizer.parameters, expected(start, gradients, 0.002), strict=True):
        np.testing.assert_allclose(p.numpy(), wanted, rtol=tolerance, atol=tolerance)


def test_they_see_the_gradient_that_the_rule_sees(backend: Backend) -> None:
    """Unscaled, clipped, and turned around."""
    start, gradients = drawn(5)
    made = parameters(start, np.dtype(np.float32), backend)
    optimizer = FusedOptimizer(made, measuring, lr=0.002, maximize=True, clip=ClipNorm(1.0, eps=0))
    optimizer.scale_losses(LossScale(initial=8.0))
    train(optimizer, gradients, 8.0)
    norms = [np.sqrt(sum(np.sum(g * g) for g in now)) for now in gradients]
    used = [[-g / max(1.0, n) for g in now] for now, n in zip(gradients, norms, strict=True)]
    for p, wanted in zip(optimizer.parameters, expected(start, used, 0.002), strict=True):
        np.testing.assert_allclose(p.numpy(), wanted, rtol=2e-5, atol=2e-5)


def test_float16_with_master_weights() -> None:
    start, gradients = drawn(5)
    start = [p.astype(np.float16).astype(np.float64) for p in start]
    gradients = [[g.astype(np.float16).astype(np.float64) for g in now] for now in gradients]
    optimizer = FusedOptimizer(parameters(start, float16), measuring, lr=0.002, master_weights=True)
    train(optimizer, gradients)
    entries = optimizer.state_dict()["parameters"].values()
    for entry, wanted in zip(entries, expected(start, gradients, 0.002), strict=True):
        np.testing.assert_allclose(entry["state"]["master"], wanted, rtol=1e-5, atol=1e-5)


def test_memory_is_as_planned() -> None:
    start, _ = drawn(1)
    made = parameters(start, float32)
    planned = FusedOptimizer.planned_memory(made, measuring, lr=0.1)
    assert FusedOptimizer(made, measuring, lr=0.1).memory() == planned


def test_one_of_another_is_refused() -> None:
    def nested(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": p - lr * (g - g.tensor_mean()).tensor_norm()}

    p = Parameter([1.0, 2.0])
    with pytest.raises(TypeError, match=r"nested: tensor_norm\(\) of what depends on another"):
        FusedOptimizer([p], nested)
    assert p.owner is None


def test_one_of_scalars_is_refused() -> None:
    def constant(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": p - lr.tensor_sum() * g}

    with pytest.raises(TypeError, match=r"constant: tensor_sum\(\) of scalars alone"):
        FusedOptimizer([Parameter([1.0])], constant)


def test_state_in_8_bits_is_unpacked_before_it_is_measured(backend: Backend) -> None:
    def measuring_state(p: Expr, g: Expr, m: Expr, *, lr: Expr) -> dict[str, Expr]:
        m = 0.5 * m + g
        return {"p": p - lr * m / m.tensor_norm(), "m": m}

    steps = []
    dtypes: tuple[StateDType | None, ...] = (None, "8bit")
    for state_dtype in dtypes:
        p = Parameter(np.linspace(1, 2, 5000, dtype=np.float32), name="p", backend=backend)
        optimizer = FusedOptimizer([p], measuring_state, lr=1.0, state_dtype=state_dtype)
        for _ in range(3):
            optimizer.step((p * p).sum().backward())
        steps.append(np.linspace(1, 2, 5000, dtype=np.float32) - p.numpy())
    assert "m.codes" in optimizer.state_dict()["parameters"]["p"]["state"]
    np.testing.assert_allclose(steps[1], steps[0], rtol=0.05)


def test_outside_of_a_rule_there_are_none() -> None:
    with pytest.raises(TypeError, match=r"tensor_mean\(\) is for the rules of optimizers"):
        Kernel("centered", {"y": Expr.array("x") - Expr.array("x").tensor_mean()})

    @elementwise
    def centered(x: Any) -> Any:
        return x - x.tensor_mean()

    with pytest.raises(TypeError, match="for the rules of optimizers"):
        centered(ones((3,)))

"""Reductions in a rule, against NumPy in float64, and what they refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus.optim import ClipNorm, FusedOptimizer, LossScale, ParameterGroup, Prodigy
from rumus.optim.options.options import StateDType
from rumus.tensor import (
    Backend,
    BackendMismatchError,
    DType,
    Expr,
    GradientStore,
    Kernel,
    NumpyBackend,
    Parameter,
    StateMismatchError,
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
    """Unscaled, clipped, and negated."""
    start, gradients = drawn(5)
    made = parameters(start, np.dtype(np.float32), backend)
    optimizer = FusedOptimizer(made, measuring, lr=0.002, maximize=True, clip=ClipNorm(1.0, eps=0))
    train(optimizer, gradients, optimizer.scale_losses(LossScale(initial=8.0)).scale)
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


def test_a_reduction_of_another_is_refused() -> None:
    def nested(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": p - lr * (g - g.tensor_mean()).tensor_norm()}

    p = Parameter([1.0, 2.0])
    with pytest.raises(TypeError, match=r"the argument of tensor_norm\(\) depends on another"):
        FusedOptimizer([p], nested)
    assert p.owner is None


def test_a_reduction_of_scalars_is_refused() -> None:
    def constant(p: Expr, g: Expr, *, lr: Expr) -> dict[str, Expr]:
        return {"p": p - lr.tensor_sum() * g}

    with pytest.raises(TypeError, match=r"constant: tensor_sum\(\) needs an array"):
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


def test_reductions_outside_a_rule_are_refused() -> None:
    with pytest.raises(TypeError, match=r"tensor_mean\(\) works only in optimizer rules"):
        Kernel("centered", {"y": Expr.array("x") - Expr.array("x").tensor_mean()})

    @elementwise
    def centered(x: Any) -> Any:
        return x - x.tensor_mean()

    with pytest.raises(TypeError, match="works only in optimizer rules"):
        centered(ones((3,)))


def joint(p: Expr, g: Expr, m: Expr, size: Expr, *, lr: Expr, t: Expr) -> dict[str, Expr]:
    """size: a number that all parameters share; it uses the norm of all of them."""
    norm = (g * g).global_sum().sqrt()
    size = size + lr * norm + (p * g).global_sum() / t
    m = 0.5 * m + g / norm
    return {"p": p - lr * m * size, "m": m, "size": size}


def expected_of_joint(start: Sequence[Real], gradients: Any, lr: float) -> tuple[Real, float]:
    p = np.concatenate([each.ravel() for each in start])
    m, size = np.zeros_like(p), 0.0
    for t, now in enumerate(gradients, 1):
        g = np.concatenate([each.ravel() for each in now])
        norm = np.sqrt(np.sum(g * g))
        size += lr * norm + np.sum(p * g) / t
        m = 0.5 * m + g / norm
        p = p - lr * m * size
    return p, size


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_sums_over_all_and_a_number_that_follows_from_them(
    backend: Backend, widest: DType, groups: int
) -> None:
    """Whatever the groups are: the gaps between tensors do not count, though they are not 0."""
    start, gradients = drawn()
    made = parameters(start, widest, backend)
    split = [ParameterGroup(made[n::groups]) for n in range(groups)]
    optimizer = FusedOptimizer(split, joint, lr=0.01)
    order = [n for first in range(groups) for n in range(first, len(made), groups)]
    train(optimizer, [[now[n] for n in order] for now in gradients])
    wanted, size = expected_of_joint(start, gradients, 0.01)
    found = np.concatenate([p.numpy().ravel() for p in made])
    tolerance = 1e-12 if widest == float64 else 2e-5
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
    for entry in optimizer.state_dict()["parameters"].values():
        assert entry["state"]["size"].shape == ()
        assert entry["state"]["size"] == pytest.approx(size, rel=tolerance)


def test_a_number_is_loaded_only_if_all_have_the_same() -> None:
    start, gradients = drawn(3)
    optimizer = FusedOptimizer(parameters(start, float32), joint, lr=0.01)
    train(optimizer, gradients)
    state = optimizer.state_dict()
    state["parameters"]["p1"]["state"]["size"] += 1
    with pytest.raises(StateMismatchError, match=r"size: saved .* one number for all parameters"):
        optimizer.load_state_dict(state)


def test_memory_of_sums_over_all_is_as_planned() -> None:
    start, _ = drawn(1)
    made = parameters(start, float32)
    planned = FusedOptimizer.planned_memory(made, joint, lr=0.1)
    assert FusedOptimizer(made, joint, lr=0.1).memory() == planned


def test_inputs_of_a_shared_number_are_the_same_in_all_groups() -> None:
    a, b = Parameter([1.0], name="a"), Parameter([1.0], name="b")
    groups = [ParameterGroup([a], lr=0.1), ParameterGroup([b])]
    with pytest.raises(ValueError, match=r"joint: lr is 0\.1 in one group and 0\.2 in another"):
        FusedOptimizer(groups, joint, lr=0.2)
    assert a.owner is None
    with pytest.raises(
        ValueError, match=r"Prodigy: lr is 0\.5 in one group and 1\.0 in another, but"
    ):
        Prodigy([ParameterGroup([a], lr_scale=0.5), ParameterGroup([b])])
    optimizer = FusedOptimizer(groups, joint, lr=0.1)
    with pytest.raises(ValueError, match="give all groups the same"):
        optimizer.set(lr=0.2)
    assert optimizer.hyper["lr"] == 0.1


def test_a_sum_over_all_on_two_backends_is_refused() -> None:
    other = NumpyBackend()
    a, b = Parameter([1.0], name="a"), Parameter([1.0], name="b", backend=other)
    with pytest.raises(BackendMismatchError, match=r"'a' on .* and parameter 'b' on"):
        FusedOptimizer([a, b], joint, lr=0.1)
    assert a.owner is None
    b.move(a.backend)
    optimizer = FusedOptimizer([ParameterGroup([a]), ParameterGroup([b])], joint, lr=0.1)
    b.move(other)
    grads = GradientStore()
    for p in (a, b):
        grads.accumulate(p, tensor([1.0], backend=p.backend))
    with pytest.raises(BackendMismatchError, match="joint: its rule has a global_sum"):
        optimizer.step(grads)
    assert optimizer.steps == 0
    assert (a.tolist(), b.tolist()) == ([1.0], [1.0])


def test_a_sum_over_all_needs_all() -> None:
    a, b = Parameter([1.0], name="a"), Parameter([1.0], name="b")
    with pytest.raises(ValueError, match="needs all gradients"):
        FusedOptimizer([ParameterGroup([a], optional=True), ParameterGroup([b])], joint, lr=0.1)
    wide = Parameter(np.ones(3), name="wide", dtype=float64)
    with pytest.raises(TypeError, match="use one dtype"):
        FusedOptimizer([a, wide], joint, lr=0.1)


def test_a_copy_of_the_parameters_is_never_packed(backend: Backend) -> None:
    p = Parameter(np.linspace(1, 2, 5000, dtype=np.float32), name="p", backend=backend)
    optimizer = Prodigy([p], state_dtype="8bit")
    for _ in range(3):
        optimizer.step((p * p).sum().backward())
    state = optimizer.state_dict()["parameters"]["p"]["state"]
    assert state["p0"].tobytes() == np.linspace(1, 2, 5000, dtype=np.float32).tobytes()
    assert {"m.codes", "s.codes", "v.codes", "d", "p0"} <= set(state)
    assert state["d"].shape == ()


def test_groups_that_share_a_number_stay_alike() -> None:
    """A rate assigned to one group's hyper was taken, though all share the estimate."""
    a, b = Parameter([1.0], name="a"), Parameter([1.0], name="b")
    optimizer = Prodigy([ParameterGroup([a], weight_decay=0.5), ParameterGroup([b])])
    hyper: Any = optimizer.groups[0].hyper
    hyper["lr"] = 0.5
    with pytest.raises(ValueError, match=r"lr is 0\.5 in one group and 1\.0 in another"):
        optimizer.step((a * b).sum().backward())
    assert (optimizer.steps, a.tolist()) == (0, [1.0])
    hyper["lr"] = 1.0
    optimizer.step((a * b).sum().backward())
    assert optimizer.steps == 1

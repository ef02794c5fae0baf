"""A dynamic loss scale: the update divides by it, and each backend adapts it on its own."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
import pytest

from rumus.optim import (
    AGC,
    LBFGS,
    SGD,
    Accumulation,
    AdamW,
    ClipNorm,
    ClipValue,
    FusedOptimizer,
    LossScale,
    Scaling,
)
from rumus.tensor import (
    Backend,
    GradientStore,
    NonFiniteGradientError,
    NumpyBackend,
    OwnershipError,
    Parameter,
    Tensor,
    float16,
    float32,
    tensor,
)

QUICK: Final = LossScale(initial=4.0, every=2, minimum=0.25, maximum=16.0)


def weights(backend: Backend, dtype: Any = float32) -> list[Parameter]:
    random = np.random.default_rng(1)
    return [
        Parameter(random.normal(size=shape), dtype=dtype, name=name, backend=backend)
        for name, shape in (("matrix", (3, 5)), ("vector", (7,)))
    ]


def step(
    optimizer: FusedOptimizer[Any], scaling: Scaling | None, seed: int, factor: float = 1.0
) -> None:
    total: Tensor | None = None
    for p in optimizer.parameters:
        random = np.random.default_rng([seed, p.size])
        c = tensor(random.normal(size=p.shape) * factor, dtype=float32, backend=p.backend)
        part = (p * c).sum()
        total = part if total is None else total + part
    assert total is not None
    scale = None if scaling is None else scaling.on(total.backend)
    optimizer.step(total.backward(scale=scale))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip": ClipNorm(0.5)},
        {"clip": ClipNorm(0.5, per="tensor")},
        {"clip": ClipValue(0.3)},
        {"clip": AGC(0.05)},
        {"compensated": True},
    ],
    ids=str,
)
def test_a_scale_changes_nothing_without_overflow_or_underflow(
    backend: Backend, options: dict[str, Any]
) -> None:
    plain = AdamW(weights(backend), 0.1, **options)
    scaled = AdamW(weights(backend), 0.1, **options)
    scaling = scaled.scale_losses(LossScale(initial=2.0**10, every=2))
    for seed in range(5):
        step(plain, None, seed)
        step(scaled, scaling, seed)
    assert scaling.on(backend).item() == 2.0**12
    for mine, theirs in zip(scaled.parameters, plain.parameters, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    if isinstance(options.get("clip"), ClipNorm):
        assert scaled.grad_norm.item() == plain.grad_norm.item()


def expected(policy: LossScale, are_bad: list[bool]) -> list[float]:
    """The scales after each step, computed in plain Python."""
    scale, good, found = policy.initial, 0, []
    for is_bad in are_bad:
        good = 0 if is_bad else good + 1
        if is_bad:
            scale = max(scale * policy.backoff, policy.minimum)
        elif good == policy.every:
            scale, good = min(scale * policy.growth, policy.maximum), 0
        found.append(scale)
    return found


def test_the_scale_follows_the_steps(backend: Backend) -> None:
    """Down to the minimum and up to the maximum: the same on each backend and on the host."""
    optimizer = SGD(weights(backend), 0.1, nonfinite="skip")
    scaling = optimizer.scale_losses(QUICK)
    pattern = [*(bool(int(c)) for c in "0010110111110000000001000")]
    seen = []
    for number, is_bad in enumerate(pattern):
        step(optimizer, scaling, number, float("inf") if is_bad else 1.0)
        seen.append(scaling.on(backend) * 1.0)
    assert [scale.item() for scale in seen] == expected(QUICK, pattern)
    assert (optimizer.steps, optimizer.skipped) == (pattern.count(False), pattern.count(True))
    assert scaling.state_dict() == {"scale": seen[-1].item(), "good": 1}


def test_a_scale_that_is_too_large_is_lowered(backend: Backend) -> None:
    optimizer = SGD(weights(backend), 1e-38)
    scaling = optimizer.scale_losses(LossScale(initial=2.0**12))
    for number in range(14):
        step(optimizer, scaling, number, 3e35)
    applied = optimizer.steps
    assert 0 < optimizer.skipped < 8
    assert applied + optimizer.skipped == 14
    assert scaling.on(backend).item() == 2.0 ** (12 - optimizer.skipped)


def test_what_float16_would_lose_arrives(backend: Backend) -> None:
    """A gradient of 1e-8 is 0 in float16; times 2^16 it is not."""
    moved = []
    for policy in (None, LossScale()):
        p = Parameter([1.0], dtype=float16, name="p", backend=backend)
        optimizer = SGD([p], 1e4, master_weights=True)
        scale = None if policy is None else optimizer.scale_losses(policy).on(backend)
        optimizer.step((p.astype(float32).sum() * 1e-8).backward(scale=scale))
        master = optimizer.state_dict()["parameters"]["p"]["state"]["master"]
        moved.append(1 - float(master[0]))
    assert moved[0] == 0
    assert moved[1] == pytest.approx(1e-4, rel=2e-3)


def test_at_the_minimum_a_refused_step_is_an_error(backend: Backend) -> None:
    optimizer = SGD(weights(backend), 0.1)
    scaling = optimizer.scale_losses(LossScale(initial=2.0, every=100))
    before = [p.numpy() for p in optimizer.parameters]
    step(optimizer, scaling, 0, float("nan"))
    assert scaling.on(backend).item() == 1.0

    def refused() -> None:
        step(optimizer, scaling, 1, float("nan"))
        optimizer.poll(wait=True)

    with pytest.raises(NonFiniteGradientError, match=r"scale is 1.0, its minimum.*skipped"):
        refused()
    for p, value in zip(optimizer.parameters, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)
    step(optimizer, scaling, 2)
    assert optimizer.steps == 1


def test_it_moves_with_the_parameters(backend: Backend) -> None:
    optimizer = SGD(weights(NumpyBackend()), 0.1, nonfinite="skip")
    scaling = optimizer.scale_losses(QUICK)
    here = optimizer.parameters[0].backend
    for number, place in enumerate((here, backend, here, backend)):
        for p in optimizer.parameters:
            p.move(place)
        step(optimizer, scaling, number, 1.0 if number else float("inf"))
        wanted = expected(QUICK, [True, False, False, False])[number]
        assert scaling.on(place).item() == wanted


def test_it_is_saved_and_restarted(backend: Backend) -> None:
    optimizer = SGD(weights(backend), 0.1)
    scaling = optimizer.scale_losses(QUICK)
    on_device = scaling.on(backend)
    for number in range(3):
        step(optimizer, scaling, number)
    optimizer.poll(wait=True)
    saved = scaling.state_dict()
    assert saved == {"scale": 8.0, "good": 1}
    assert optimizer.scale_losses(LossScale(initial=32.0)) is scaling
    assert on_device.item() == 32.0
    scaling.load_state_dict(saved)
    assert on_device.item() == 8.0
    for broken in ({}, {"scale": 3.0, "good": 0}, {"scale": 2.0, "good": -1}, {"scale": "2"}):
        with pytest.raises(ValueError, match="saved"):
            scaling.load_state_dict(broken)
    assert scaling.state_dict() == saved


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 3.0}, "initial of a loss scale must be a power of two"),
        ({"growth": 1.5}, "growth of a loss scale"),
        ({"backoff": 0.0}, "backoff of a loss scale"),
        ({"maximum": float("inf")}, "maximum of a loss scale"),
        ({"growth": 0.5}, "growth of a loss scale must be above 1"),
        ({"backoff": 2.0}, "its backoff below"),
        ({"every": 0}, r"every .*not 0"),
        ({"every": 1.5}, r"every .*not 1.5"),
        ({"initial": 2.0**30}, "must lie within"),
    ],
)
def test_invalid_policies(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossScale(**options)


def test_optimizers_that_cannot_follow() -> None:
    optimizer = SGD(weights(NumpyBackend()), 0.1, nonfinite="propagate")
    with pytest.raises(ValueError, match="turns the check off"):
        optimizer.scale_losses(LossScale())
    optimizer.release()
    with pytest.raises(OwnershipError, match="owns nothing"):
        optimizer.scale_losses(LossScale())
    assert not hasattr(LBFGS, "scale_losses")


def test_a_scale_that_no_loss_was_multiplied_by_is_refused() -> None:
    """The update would divide by it all the same: too small by 65,536, without a word."""
    w = Parameter([1.0], name="w")
    optimizer = AdamW([w], 0.1)
    scaling = optimizer.scale_losses(LossScale())
    grads = (w * 3.0).sum().backward()
    with pytest.raises(ValueError, match=r"no loss was multiplied.*backward\(scale=scaling\.on"):
        optimizer.step(grads)
    assert w.item() == 1.0
    optimizer.step(((w * 3.0).sum() * scaling.scale).backward())  # as in PyTorch
    assert w.item() < 1.0


def test_a_fixed_scale_is_known_without_asking() -> None:
    """One that cannot change is a number that a program may write by itself."""
    w = Parameter([1.0], name="w")
    optimizer = SGD([w], 0.5)
    optimizer.scale_losses(LossScale(8.0, minimum=8.0, maximum=8.0))
    optimizer.step(((w * 3.0).sum() * 8.0).backward())
    assert w.item() == -0.5


@pytest.mark.parametrize("way", ["accumulated", "into a store", "merged"])
def test_a_scale_that_one_of_several_losses_was_not_given_is_told_of(way: str) -> None:
    """What it contributes would be divided all the same, and so lost."""
    w = Parameter([1.0], name="w")
    optimizer = SGD([w], 0.5)
    scaling = optimizer.scale_losses(LossScale())

    def grads(*, is_scaled: bool) -> GradientStore:
        on: dict[str, Any] = {"scale": scaling.on(w.backend)} if is_scaled else {}
        first = (w * 3.0).sum().backward(scale=scaling.on(w.backend))
        if way == "into a store":
            return (w * 5.0).sum().backward(first, **on)
        sums, others = Accumulation(), Accumulation()
        sums.add(first)
        (others if way == "merged" else sums).add((w * 7.0).sum().backward(**on))
        sums.merge(others)
        return sums.gradients()

    with pytest.warns(UserWarning, match=r"only some of their 2 losses .*\(scale=scaling\.on"):
        optimizer.step(grads(is_scaled=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(grads(is_scaled=True))

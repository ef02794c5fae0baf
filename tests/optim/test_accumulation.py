"""Accumulated micro-batches equal one large batch."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rumus.optim import SGD, Accumulation, AdamW
from rumus.tensor import (
    Backend,
    GradientMismatchError,
    GradientStore,
    MissingGradientError,
    NumpyBackend,
    Parameter,
    Tensor,
    tensor,
)

quick = settings(
    deadline=None,
    max_examples=15,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def model(backend: Backend) -> list[Parameter]:
    draw = np.random.default_rng(0)
    shapes = ((4, 3), (3,))
    return [Parameter(draw.normal(size=s), name=f"p{i}", backend=backend, dtype=np.float32)
            for i, s in enumerate(shapes)]  # fmt: skip


def loss_of(parameters: list[Parameter], x: Tensor) -> Tensor:
    weight, bias = parameters
    y = x @ weight + bias
    return (y * y).sum() / 3


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), summed=st.booleans())
@quick
def test_micro_batches_are_one_batch(backend: Backend, sizes: list[int], summed: bool) -> None:
    data = np.random.default_rng(1).normal(size=(sum(sizes), 4)).astype(np.float32)
    whole, parts = model(backend), model(backend)
    optimizers = [AdamW(p, 0.1, eps=1e-2) for p in (whole, parts)]
    for _ in range(2):
        loss = loss_of(whole, tensor(data, backend=backend)) / len(data)
        large = loss.backward()
        accumulation = Accumulation()
        for stop, size in zip(accumulate(sizes), sizes, strict=True):
            loss = loss_of(parts, tensor(data[stop - size : stop], backend=backend))
            loss = loss if summed else loss / size
            accumulation.add(loss.backward(), weight=size, summed=summed)
        assert accumulation.weight == len(data)
        small = accumulation.gradients()
        for p, q in zip(whole, parts, strict=True):
            np.testing.assert_allclose(small[q].numpy(), large[p].numpy(), rtol=1e-5, atol=1e-5)
        optimizers[0].step(large)
        optimizers[1].step(small)
    for p, q in zip(whole, parts, strict=True):
        np.testing.assert_allclose(q.numpy(), p.numpy(), rtol=1e-4, atol=1e-4)


def test_the_sum_lies_where_the_optimizer_steps_from(backend: Backend) -> None:
    parameters = model(backend)
    optimizer, accumulation = SGD(parameters, 0.1), Accumulation()
    for size in (3, 2):
        loss = loss_of(parameters, tensor(np.ones((size, 4), np.float32), backend=backend))
        accumulation.add(loss.backward(), weight=size, summed=True)
    grads = accumulation.gradients()
    assert [len(owned) for _, _, owned in optimizer.gradients(grads)] == [2]
    optimizer.step(grads)
    assert len(grads) == 0


def test_one_parameter_whose_gradient_lies_elsewhere(backend: Backend) -> None:
    """Another store occupies the slot in the first pass, or in the last."""
    for held in (0, 1, 2):
        w = Parameter([1.0, 2.0, 3.0], name="w", backend=backend)
        optimizer, accumulation = SGD([w], 1.0), Accumulation()
        for number in range(2):
            other = (w * 7.0).sum().backward() if number == held else GradientStore()
            accumulation.add((w * w).sum().backward(), weight=number + 1)
            other.drain(list(other), "the test")
        other = (w * 7.0).sum().backward() if held == 2 else GradientStore()
        grads = accumulation.gradients()
        assert grads[w].tolist() == [2.0, 4.0, 6.0]
        optimizer.step(grads)
        assert w.tolist() == [-1.0, -2.0, -3.0]
        other.drain(list(other), "the test")


def test_parameters_that_come_together_after_they_came_alone(backend: Backend) -> None:
    a, b = (Parameter([0.0], name=n, backend=backend) for n in "ab")
    optimizer, accumulation = SGD([a, b], 1.0), Accumulation()
    for loss in ((4 * a).sum(), (a + 2 * b).sum(), (6 * b).sum(), (3 * a + 4 * b).sum()):
        accumulation.add(loss.backward())
    optimizer.step(accumulation.gradients())
    assert (a.tolist(), b.tolist()) == ([-2.0], [-3.0])


def test_a_parameter_that_was_moved_is_refused() -> None:
    w, accumulation = Parameter([1.0], name="w"), Accumulation()
    optimizer = SGD([w], 1.0)
    accumulation.add((w * w).sum().backward())
    optimizer.move([w], NumpyBackend())
    with pytest.raises(GradientMismatchError, match="has backend"):
        accumulation.gradients()
    with pytest.raises(GradientMismatchError, match="has backend"):
        accumulation.add((w * w).sum().backward())


def test_weights_and_parameters_of_only_some_losses(backend: Backend) -> None:
    a, b = (Parameter([0.0], name=n, backend=backend) for n in "ab")
    accumulation = Accumulation()
    accumulation.add((4 * a).sum().backward(), weight=1)
    accumulation.add((8 * b).sum().backward(), weight=3)
    accumulation.add((math.nan * a).sum().backward(), weight=0)
    accumulation.add((2 * a + b).sum().backward(), weight=4)
    assert (accumulation.count, accumulation.weight) == (3, 8.0)
    grads = accumulation.gradients()
    assert [grads[p].tolist() for p in (a, b)] == [[1.5], [3.5]]
    assert (accumulation.count, accumulation.weight) == (0, 0.0)
    accumulation.add(a.sum().backward())
    assert accumulation.gradients()[a].tolist() == [1.0]


def test_refused_input_changes_nothing(backend: Backend) -> None:
    (w,) = (Parameter([1.0, 2.0], name="w", backend=backend),)
    accumulation, grads = Accumulation(), (w * w).sum().backward()
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="weight must be"):
            accumulation.add(grads, weight=weight)
    assert w in grads
    with pytest.raises(MissingGradientError, match="nothing was accumulated"):
        accumulation.gradients()
    accumulation.add(grads)
    for empty in (grads, GradientStore()):
        with pytest.raises(MissingGradientError, match="no gradients"):
            accumulation.add(empty)
    assert accumulation.gradients()[w].tolist() == [2.0, 4.0]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(1, 5))
@quick
def test_merged_sums_are_added_once_each(weights: list[int], at: int) -> None:
    """Two merged accumulations hold the sum of their sums, with one addition per element."""
    parameters = model(NumpyBackend())
    optimizer = SGD(parameters, 1.0)
    draw = np.random.default_rng(len(weights))
    there = parameters[0].backend
    batches = [tensor(draw.normal(size=(2, 4)), dtype=np.float32, backend=there) for _ in weights]
    left, right = Accumulation(), Accumulation()
    for number, (x, weight) in enumerate(zip(batches, weights, strict=True)):
        part = left if number < at else right
        part.add(loss_of(parameters, x).backward(), weight)
    both = [[array.copy() for _, array in part.sums()] for part in (left, right)]
    left.merge(right)
    assert (left.weight, left.count) == (sum(weights), len(weights))
    assert right.weight == right.count == len(right.sums()) == 0
    expected = both[0] if not both[1] else [a + b for a, b in zip(*both, strict=True)]
    for (_, found), wanted in zip(left.sums(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    optimizer.step(left.gradients())


def test_sums_of_other_parameters_are_merged_too() -> None:
    a, b, c = (Parameter([1.0], name=name) for name in "abc")
    optimizer = SGD([a, b, c], 1.0)
    first, second = Accumulation(), Accumulation()
    first.add((a * 2.0).sum().backward(), 3.0)
    second.add((a * 1.0 + b * 4.0 + c * 5.0).sum().backward(), 1.0)
    first.merge(second)
    total = {id(array): array for _, array in first.sums()}
    assert sorted(float(x) for array in total.values() for x in array.ravel() if x) == [4, 5, 7]
    first.weight = 2.0  # the divisor of the sum
    optimizer.step(first.gradients())
    assert [p.tolist() for p in (a, b, c)] == [[-2.5], [-1.0], [-1.5]]

"""Pooling on a GPU: one dispatch each way, two-dimensional grids, empty inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import default_backend
from rumus.gpu.device.limits import DeviceLimits
from rumus.tensor import NumpyBackend, Parameter, Tensor, avg_pool, max_pool, tensor

POOLS: list[Callable[[Tensor], Tensor]] = [
    lambda x: max_pool(x, 2),
    lambda x: avg_pool(x, 3, stride=2, padding=1),
    nn.AdaptiveAvgPool2d((2, 3)),
]


@pytest.mark.parametrize("pool", POOLS)
def test_one_dispatch_forward_and_one_backward(pool: Callable[[Tensor], Tensor]) -> None:
    backend = default_backend()
    x = Parameter(np.ones((2, 3, 8, 9)), dtype=np.float32, backend=backend)
    given, counts = x * 2.0, [backend.stats.dispatches]
    y = pool(given)
    counts.append(backend.stats.dispatches)
    grads = y.sum().backward()  # one to sum, one before the pool, one after it
    counts.append(backend.stats.dispatches)
    assert counts[1] - counts[0] == 1
    assert counts[2] - counts[1] == 1 + 1 + 1 + 1
    assert x in grads


@pytest.mark.parametrize("pool", POOLS)
def test_a_grid_of_two_dimensions(
    pool: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more workgroups than one dimension allows, some of them idle."""
    monkeypatch.setattr(DeviceLimits, "grid", lambda self, groups: (5, -(-groups // 5)))
    host = np.random.default_rng(0).standard_normal((2, 5, 26, 36)).astype(np.float32)
    found = []
    for backend in (default_backend(), NumpyBackend()):
        x = Parameter(host, backend=backend)
        y = pool(x)
        grads = (y * y).sum().backward()
        found.append([y.numpy(), grads[x].numpy()])
    for ours, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)


def test_an_adaptive_pool_of_parts_that_are_not_even() -> None:
    host = np.random.default_rng(0).standard_normal((2, 3, 7, 8)).astype(np.float32)
    found = [
        nn.AdaptiveAvgPool2d((3, 4))(Parameter(host, backend=backend)).numpy()
        for backend in (default_backend(), NumpyBackend())
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_an_empty_batch() -> None:
    x = Parameter(np.ones((0, 3, 4, 4)), dtype=np.float32, backend=default_backend())
    y = max_pool(x, 2)
    assert y.shape == (0, 3, 2, 2)
    assert y.sum().backward()[x].shape == (0, 3, 4, 4)


@pytest.mark.parametrize(("lengths", "kernel"), [((8, 9), (2, 3)), ((8, 9), 2), ((6, 6), 3)])
def test_one_of_several_largest_has_the_gradient(
    lengths: tuple[int, int], kernel: int | tuple[int, int]
) -> None:
    """With windows that cover everything, and with elements outside all windows."""
    random = np.random.default_rng(0)
    host = random.integers(-1, 2, (2, 3, *lengths)).astype(np.float32)
    host[0, 0, 1, 1], host[1, 2, 0] = np.nan, -0.0
    found = []
    for backend in (default_backend(), NumpyBackend()):
        x = Parameter(host, backend=backend)
        y = max_pool(x, kernel)
        factors = np.arange(y.size, dtype=np.float32).reshape(y.shape)
        found.append((y * tensor(factors, backend=backend)).sum().backward()[x].numpy())
    np.testing.assert_array_equal(found[0], found[1])

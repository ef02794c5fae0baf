"""Batch norm on a GPU: shapes of every kind, cancellation, repeated steps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rumus import nn
from rumus.gpu import GpuBackend, default_backend
from rumus.gpu.device.limits import DeviceLimits
from rumus.optim import AdamW
from rumus.tensor import Generator, NumpyBackend, Parameter, Tensor, batch_norm, tensor
from rumus.tensor.memory.backend import Backend
from rumus.train import Trainer

SHAPES = [
    (1, 1), (3, 1), (130, 5), (700, 70), (2, 33, 1), (4, 3, 15), (9, 7, 16), (5, 40, 17),
    (3, 2, 5, 7), (1, 3, 1000), (128, 2, 32, 32),
]  # fmt: skip


def normed(
    backend: Backend, shape: tuple[int, ...], dtype: type, shift: float = 0.0
) -> list[NDArray[Any]]:
    """The result, its sums and the gradients of a batch norm."""
    normal = np.random.default_rng(5).standard_normal
    given = (normal(shape) + shift).astype(np.float32), normal(shape[1]), normal(shape[1])
    inputs = x, weight, bias = [Parameter(a, dtype=dtype, backend=backend) for a in given]
    result, *sums = batch_norm(x, weight, bias)
    weights = tensor(np.cos(np.arange(result.size)).reshape(shape), dtype=dtype, backend=backend)
    grads = (result * weights).sum().backward()
    return [t.numpy() for t in (result, *sums, *(grads[p] for p in inputs))]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape: tuple[int, ...]) -> None:
    first, second = (normed(default_backend(), shape, np.float32) for _ in range(2))
    for a, b, exact in zip(first, second, normed(NumpyBackend(), shape, np.float64), strict=True):
        assert a.tobytes() == b.tobytes()
        size = max(1e-3, float(np.sqrt(np.square(exact).mean())))
        np.testing.assert_allclose(a, exact, rtol=3e-5, atol=3e-5 * size)


def test_a_grid_of_two_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more workgroups than one dimension allows, some of them idle."""
    shape = 3, 50, 4, 5
    usual = normed(default_backend(), shape, np.float32)
    monkeypatch.setattr(DeviceLimits, "grid", lambda self, groups: (7, -(-groups // 7)))
    for a, b in zip(usual, normed(default_backend(), shape, np.float32), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_large_mean_keeps_its_digits() -> None:
    """The inputs are float32, so nothing is lost before the kernel."""
    found = normed(default_backend(), (64, 3, 8, 8), np.float32, 10_000.0)
    exact = normed(NumpyBackend(), (64, 3, 8, 8), np.float64, 10_000.0)
    np.testing.assert_allclose(found[2], exact[2], rtol=1e-4)
    np.testing.assert_allclose(found[0], exact[0], atol=2e-3)


@pytest.mark.parametrize("far", [1e6, -1e-6])
def test_one_element_far_from_the_others(far: float) -> None:
    x = np.random.default_rng(0).standard_normal((16, 2, 64)).astype(np.float32)
    x[0, 0, 0] = far
    _, total, squares = batch_norm(tensor(x, backend=default_backend()))
    wide = x.astype(np.float64)
    np.testing.assert_allclose(total.numpy(), wide.sum((0, 2)), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(squares.numpy(), wide.var((0, 2)) * 1024, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_values_stay_in_their_channel(bad: float) -> None:
    x = np.ones((4, 3, 20), np.float32)
    x[2, 1, 7] = bad
    result, _, squares = batch_norm(tensor(x, backend=default_backend()))
    assert np.isnan(result.numpy()).any((0, 2)).tolist() == [False, True, False]
    assert np.isnan(squares.numpy()).tolist() == [False, True, False]


def test_only_the_weights_want_gradients() -> None:
    """The input's gradient is not computed, and the others are unchanged."""
    x = np.random.default_rng(1).standard_normal((30, 4, 5)).astype(np.float32)
    found = []
    for backend in (default_backend(), NumpyBackend()):
        weight, bias = (Parameter(np.ones(4), backend=backend) for _ in range(2))
        y, _, _ = batch_norm(tensor(x, backend=backend), weight, bias)
        grads = (y * y * y).sum().backward()
        found.append([grads[weight].numpy(), grads[bias].numpy()])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-3)


def test_a_layer_takes_two_dispatches_each_way_and_one_for_its_statistics() -> None:
    backend = default_backend()
    layer = nn.BatchNorm2d(6).to(backend)
    x = Parameter(np.ones((4, 6, 8, 8)), dtype=np.float32, backend=backend)
    given, counts = x * 2.0, [backend.stats.dispatches]
    y = layer(given)
    counts.append(backend.stats.dispatches)
    grads = y.sum().backward()  # one to sum, one before the norm, one after it
    counts.append(backend.stats.dispatches)
    grads.write_updates()
    counts.append(backend.stats.dispatches)
    assert [b - a for a, b in pairwise(counts)] == [2, 1 + 1 + 2 + 1, 1]
    assert x in grads


def losses_and_state(backend: Backend, capture: bool) -> tuple[list[float], list[bytes]]:
    generator = Generator(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, generator=generator), nn.BatchNorm2d(6), nn.ReLU(),
        nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 5, generator=generator), nn.BatchNorm1d(5),
        nn.Linear(5, 2, generator=generator),
    ).to(backend)  # fmt: skip
    trainer = Trainer(AdamW(model.parameters(), 0.01), capture=capture)
    random = np.random.default_rng(1)

    def loss_fn(images: Tensor, targets: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(images), targets)

    losses = []
    for _ in range(6):
        images = random.standard_normal((20, 2, 8, 8)).astype(np.float32)
        targets = (images.mean((1, 2, 3)) > 0).astype(np.int32)
        losses.append(trainer.train_step(loss_fn, images, targets))
    replays = 4 if capture and isinstance(backend, GpuBackend) else 0
    assert trainer.counts.captured == replays
    return [float(x) for x in losses], [a.tobytes() for a in model.state_dict().values()]


def test_repeated_steps_are_those_of_the_code_with_their_running_statistics() -> None:
    found = losses_and_state(default_backend(), capture=True)
    assert found == losses_and_state(default_backend(), capture=False)
    np.testing.assert_allclose(found[0], losses_and_state(NumpyBackend(), False)[0], rtol=1e-4)

"""The same training on the CPU and on the GPU: equal losses, few dispatches, no reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import Gpu, GpuBackend, default_backend
from rumus.optim import SGD, Adam, AdamW, FusedOptimizer
from rumus.tensor import (
    Backend,
    Generator,
    GradientStore,
    NumpyBackend,
    Parameter,
    Tensor,
    relu,
    tensor,
)


class Digits(nn.Module):
    """64 features, one hidden layer with dropout, 10 classes."""

    def __init__(self, seed: int) -> None:
        generator = Generator(seed)
        self.first = nn.Linear(64, 48, generator=generator)
        self.drop = nn.Dropout(0.2, generator=Generator(seed, stream=1))
        self.second = nn.Linear(48, 10, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drop(relu(self.first(x))))


def losses(
    backend: Backend, steps: int, kind: Callable[..., FusedOptimizer[Digits]]
) -> list[float]:
    """The losses of a training on learnable images, from one seed."""
    model = Digits(3)
    optimizer = kind(model.parameters(), 0.01)
    model.to(backend)
    draw = np.random.default_rng(0)
    centers = draw.normal(size=(10, 64))
    found = []
    for _ in range(steps):
        labels = draw.integers(0, 10, 32)
        images = centers[labels] + draw.normal(size=(32, 64))
        logits = model(tensor(images, backend=backend))
        loss = nn.cross_entropy_loss(logits, tensor(labels, backend=backend))
        with loss.backward() as grads:
            optimizer.step(grads)
        found.append(loss.detach())
    return [loss.item() for loss in found]


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_the_losses_are_those_of_the_cpu(kind: Callable[..., FusedOptimizer[Digits]]) -> None:
    here = losses(NumpyBackend(), 100, kind)
    there = losses(default_backend(), 100, kind)
    assert here[-1] < 0.7 * here[0]
    assert np.abs(np.subtract(here, there)).max() < 1e-4


def dispatches_of_a_step(gpu: GpuBackend, tensors: int) -> int:
    """The dispatches of a step, given the gradients."""
    parameters = [Parameter(np.ones(3), name=f"p{i}", backend=gpu) for i in range(tensors)]
    optimizer = AdamW(parameters, 1e-3)
    one = tensor(np.ones(3), backend=gpu)
    grads = GradientStore()
    for parameter in parameters:
        grads.accumulate(parameter, one)
    before = gpu.stats.dispatches
    optimizer.step(grads)
    after = gpu.stats.dispatches
    assert parameters[-1].numpy()[0] < 1
    return after - before


@pytest.mark.parametrize("tensors", [1, 148, 10_000])
def test_a_step_is_a_few_dispatches_however_many_tensors_there_are(tensors: int) -> None:
    assert dispatches_of_a_step(default_backend(), tensors) <= 4


def trained(backend: Backend, steps: int) -> list[Parameter]:
    """Parameters that fit a 1 MiB arena only one at a time, and a few small ones."""
    draw = np.random.default_rng(0)
    shapes = [(500, 400), (400, 500), (7,), (600, 400), (3, 5)]
    parameters = [
        Parameter(draw.normal(size=shape), name=f"p{i}", backend=backend)
        for i, shape in enumerate(shapes)
    ]
    optimizer = AdamW(parameters, 0.1)
    for _ in range(steps):
        grads = GradientStore()
        for parameter in parameters:
            gradient = draw.normal(size=parameter.shape)
            grads.accumulate(parameter, tensor(gradient, backend=backend))
        optimizer.step(grads)
    return parameters


def test_arenas_larger_than_the_largest_array_are_split() -> None:
    small = GpuBackend(Gpu(max_array_bytes=2**20))
    for there, here in zip(trained(small, 3), trained(NumpyBackend(), 3), strict=True):
        np.testing.assert_allclose(there.numpy(), here.numpy(), rtol=1e-5, atol=1e-5)

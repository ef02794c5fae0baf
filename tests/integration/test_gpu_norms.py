"""Models with norms: the GPU against the CPU, and repeated steps against uncaptured ones."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import GpuBackend
from rumus.optim import AdamW
from rumus.tensor import Backend, Generator, NumpyBackend, Parameter, Tensor, gpu_backend
from rumus.train import Trainer


def losses_and_weights(backend: Backend, *, capture: bool) -> tuple[list[float], list[bytes]]:
    generator = Generator(0)
    model = nn.Sequential(
        nn.Linear(6, 20, generator=generator),
        nn.LayerNorm(20),
        nn.GELU(),
        nn.Linear(20, 12, generator=generator),
        nn.RMSNorm(12),
        nn.Linear(12, 3, generator=generator),
    ).to(backend)
    trainer = Trainer(AdamW(model.parameters(), 0.01), capture=capture)
    random = np.random.default_rng(1)

    def loss_fn(inputs: Tensor, targets: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(inputs), targets)

    losses = []
    for _ in range(12):
        inputs = random.standard_normal((70, 6)).astype(np.float32)
        targets = (inputs[:, 0] > 0).astype(np.int32) + (inputs[:, 1] > 0)
        losses.append(trainer.train_step(loss_fn, inputs, targets))
    assert trainer.counts.captured == (10 if capture else 0)
    return [float(x) for x in losses], [p.numpy().tobytes() for p in model.parameters()]


def test_repeated_steps_with_norms_are_those_of_the_code() -> None:
    backend = gpu_backend()
    assert losses_and_weights(backend, capture=True) == losses_and_weights(backend, capture=False)


def test_a_model_with_norms_trains_as_on_the_cpu() -> None:
    found, _ = losses_and_weights(gpu_backend(), capture=True)
    wanted, _ = losses_and_weights(NumpyBackend(), capture=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert found[-1] < 0.9 * found[0]


@pytest.mark.parametrize(("rows", "expected"), [(1, 2), (16, 2), (17, 3), (5000, 3)])
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_backward_takes_few_dispatches(norm: Any, rows: int, expected: int) -> None:
    """One for the input, and one for weight and bias, or two with many rows."""
    backend = gpu_backend()
    layer = norm(40).to(backend)
    x = Parameter(np.ones((rows, 40)), dtype=np.float32, backend=backend)
    loss = (x + layer(x)).sum()
    before = cast(GpuBackend, backend).stats.dispatches
    loss.backward()
    # Before them the gradient of the sum is filled; that of x is copied to its slot twice.
    found = cast(GpuBackend, backend).stats.dispatches - before
    assert found == expected + 3

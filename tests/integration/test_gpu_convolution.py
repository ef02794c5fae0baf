"""Convolutional models: the GPU against the CPU, and repeated steps against uncaptured ones."""

from __future__ import annotations

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import default_backend
from rumus.optim import AdamW
from rumus.tensor import (
    Backend,
    DType,
    Generator,
    NumpyBackend,
    Parameter,
    Tensor,
    float16,
    float32,
    gpu_backend,
)
from rumus.train import Trainer


def losses_and_weights(
    backend: Backend, *, capture: bool, dtype: DType = float32
) -> tuple[list[float], list[bytes]]:
    """Train with a stride, groups, a transposed convolution and a depthwise one."""
    generator = Generator(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, generator=generator, dtype=dtype),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=2, generator=generator, dtype=dtype),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, generator=generator, dtype=dtype),
        nn.GELU(),
        nn.ConvTranspose2d(8, 4, 4, stride=2, generator=generator, dtype=dtype),
        nn.Flatten(),
        nn.Linear(4 * 12 * 12, 3, generator=generator, dtype=dtype),
    ).to(backend)
    optimizer = AdamW(model.parameters(), 0.01, master_weights=dtype == float16)
    trainer = Trainer(optimizer, capture=capture)
    random = np.random.default_rng(1)

    def loss_fn(inputs: Tensor, targets: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(inputs.astype(dtype)), targets)

    losses = []
    for _ in range(8):
        inputs = random.standard_normal((10, 2, 11, 11)).astype(np.float32)
        targets = (inputs[:, 0, 3, 3] > 0).astype(np.int32) + (inputs[:, 1, 5, 5] > 0)
        losses.append(trainer.train_step(loss_fn, inputs, targets))
    assert trainer.counts.captured == (6 if capture else 0)
    return [float(x) for x in losses], [p.numpy().tobytes() for p in model.parameters()]


@pytest.mark.parametrize("dtype", [float32, float16])
def test_repeated_steps_are_those_of_the_code(dtype: DType) -> None:
    backend = gpu_backend()
    steps = [losses_and_weights(backend, capture=on, dtype=dtype) for on in (True, False)]
    assert steps[0] == steps[1]


def test_a_model_trains_as_on_the_cpu() -> None:
    found, _ = losses_and_weights(gpu_backend(), capture=True)
    wanted, _ = losses_and_weights(NumpyBackend(), capture=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_dispatches_of_a_layer() -> None:
    """One forward; two for the bias gradient, one for each of the others, and no copies.

    Where several workgroups share the gradient of the weight, one more adds up its parts.
    """
    backend = default_backend()
    x = Parameter(np.ones((2, 3, 9, 9), np.float32), backend=backend)
    layer = nn.Conv2d(3, 8, 3, padding=1, generator=Generator(0)).to(backend)
    with backend.profile() as profile:
        out = layer(x)
    assert [event.kernel for event in profile.events] == ["convolution"]
    with backend.profile() as profile:
        (out * out).sum().backward()
    names = [event.kernel for event in profile.events]
    names = [name for name in names[names.index("convolution") :] if name != "add_parts"]
    assert names == ["convolution", "convolution_weight", "reduce_sum", "reduce_sum"]

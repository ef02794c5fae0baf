"""A loss over many classes takes one array as large as the logits, in plain and captured steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import Gpu, GpuBackend
from rumus.optim import SGD
from rumus.tensor import Backend, Generator, Parameter, Tensor, float16, float32, linear
from rumus.train import Trainer

LEAD, CLASSES, WIDTH = (4, 24), 5000, 8
LOGITS = 4 * 24 * CLASSES  # elements


def batch(step: int) -> tuple[Any, Any]:
    random = np.random.default_rng(step)
    targets = random.integers(0, CLASSES, LEAD).astype(np.int32)
    targets[0, step] = -100
    return random.standard_normal((*LEAD, WIDTH)).astype(np.float32), targets


class Projection:
    """Logits from one product; `kept` is what a loss function might leave behind."""

    def __init__(self, backend: Backend | None, dtype: Any = float32) -> None:
        generator = Generator(0)
        self.weight = Parameter(generator.normal((CLASSES, WIDTH)), backend=backend, dtype=dtype)
        self.kept: list[Tensor] = []
        self.keeps = False

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        logits = linear(x.astype(self.weight.dtype), self.weight)
        if self.keeps:
            self.kept.append(logits)
        return nn.cross_entropy_loss(logits, targets, label_smoothing=0.1)


def trained(model: Projection, capture: bool) -> tuple[Any, list[float], Any]:
    trainer = Trainer(SGD([model.weight], 0.5), capture=capture)
    losses = [trainer.train_step(model.loss, *batch(step)).item() for step in range(4)]
    return model.weight.numpy(), losses, trainer.counts


def test_a_captured_step_is_a_plain_one() -> None:
    gpu = GpuBackend(Gpu())
    weight, losses, counts = trained(Projection(gpu), capture=True)
    assert counts.captured == 2
    holder = Projection(gpu)
    holder.keeps = True
    for other in (Projection(gpu), holder):
        plain_weight, plain_losses, _ = trained(other, capture=False)
        np.testing.assert_array_equal(weight, plain_weight)
        assert losses == plain_losses
    cpu_weight, cpu_losses, _ = trained(Projection(None), capture=True)
    np.testing.assert_allclose(weight, cpu_weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses, cpu_losses, rtol=1e-5)


@pytest.mark.parametrize("dtype", [float32, float16])
def test_the_logits_are_the_only_large_array(dtype: Any) -> None:
    gpu = GpuBackend(Gpu())
    model = Projection(gpu, dtype)
    element = gpu.allocate((), dtype).stored.itemsize
    before = gpu.memory_stats().used
    x, targets = batch(0)
    given = Tensor(gpu.upload(x), gpu), Tensor(gpu.upload(targets), gpu)
    grads = model.loss(*given).backward()
    extra = gpu.memory_stats().peak - before
    assert model.weight in grads
    assert LOGITS * element <= extra < 1.25 * LOGITS * element + 4 * CLASSES * WIDTH * 4

"""`Trainer.memory_report` matches what the device holds, before and while steps run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import Gpu, GpuBackend
from rumus.optim import SGD, AdamW, Optimizer
from rumus.tensor import Generator, GradientStore, Parameter, Tensor
from rumus.train import MemoryReport, Trainer

VOCABULARY, SIZE, LENGTH = 3000, 32, 32


class Language(nn.Module):
    """A small GPT with a tied embedding."""

    def __init__(self) -> None:
        super().__init__()
        generator = Generator(0)
        self.tokens = nn.Embedding(VOCABULARY, SIZE, generator=generator)
        self.blocks = nn.ModuleList(
            [nn.TransformerBlock(SIZE, 2, causal=True, generator=generator) for _ in range(3)]
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x)
        for block in self.blocks:
            h = block(h)
        return h @ self.tokens.weight.T

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        return nn.cross_entropy_loss(self(x), targets)


def batch(seed: int, rows: int = 4) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    shape = (rows, LENGTH)
    x, targets = (random.integers(0, VOCABULARY, shape).astype(np.int32) for _ in range(2))
    return x, targets


def trained(*, capture: bool, steps: int) -> tuple[GpuBackend, Trainer[Any], Language]:
    gpu = GpuBackend(Gpu())
    model = Language().to(gpu)
    trainer: Trainer[Any] = Trainer(AdamW(model.parameters(), 1e-3), capture=capture)
    for step in range(steps):
        trainer.train_step(model.loss, *batch(step))
    return gpu, trainer, model


def test_the_peak_is_known_before_a_captured_step_runs() -> None:
    gpu, trainer, model = trained(capture=True, steps=2)
    report = trainer.memory_report()
    memory = trainer.optimizer.memory()  # type: ignore[attr-defined]
    assert report.persistent == memory.total
    for step in range(2, 5):
        trainer.train_step(model.loss, *batch(step))
    assert trainer.counts.captured == 3
    stats = gpu.memory_stats()
    assert stats.used == report.peak
    assert stats.peak == report.highest


def test_a_captured_step_holds_what_a_plain_one_needs_at_its_peak() -> None:
    _, trainer, _ = trained(capture=False, steps=1)
    plain = trainer.memory_report()
    assert plain.peak is None
    assert plain.other is not None
    assert plain.highest is not None
    needed = plain.highest - plain.persistent - plain.other
    _, trainer, _ = trained(capture=True, steps=2)
    (step,) = trainer.memory_report().steps
    assert needed < step.bytes < 1.03 * needed
    assert step.name == "loss(int32[4, 32], int32[4, 32])"


def test_an_array_takes_the_place_of_a_larger_one() -> None:
    gpu = GpuBackend(Gpu())
    weight = Parameter(np.ones(20_000, np.float32), name="weight", backend=gpu)
    trainer = Trainer(SGD([weight], 0.1))

    def loss(x: Tensor) -> Tensor:
        size = (x * 2.0).sum()  # large arrays are gone before the weight's products are computed
        return (weight * size.detach()).sum()

    for _ in range(2):
        trainer.train_step(loss, np.ones(100_000, np.float32))
    (step,) = trainer.memory_report().steps
    assert 2 * 100_000 * 4 < step.bytes < 2.1 * 100_000 * 4 + 20_000 * 4


def test_every_kind_of_step_is_listed_until_dropped() -> None:
    _, trainer, model = trained(capture=True, steps=2)
    first = trainer.memory_report()
    for _ in range(2):
        trainer.train_step(model.loss, *batch(7, rows=1))
    both = trainer.memory_report()
    assert [step.name for step in both.steps] == [
        "loss(int32[4, 32], int32[4, 32])",
        "loss(int32[1, 32], int32[1, 32])",
    ]
    assert both.steps[0] == first.steps[0]
    assert 3 < both.steps[0].bytes / both.steps[1].bytes < 5
    table = str(both)
    assert "captured step loss(int32[1, 32], int32[1, 32])" in table
    assert table.startswith("memory on gpu\nparameters")
    assert "not known" not in table


def test_before_a_step_was_captured_its_activations_are_not_known() -> None:
    _, trainer, _ = trained(capture=True, steps=1)
    report = trainer.memory_report()
    assert report.peak is None
    assert str(report).endswith("not known yet: the second step of each kind is captured")


class Halving(Optimizer[Any]):
    """An optimizer without a `memory` method."""

    def step(self, grads: GradientStore) -> None:
        """Halve the parameters."""
        grads.drain(self.parameters, "Halving")
        for parameter in self.parameters:
            parameter.assign(parameter.detach() * 0.5)


@pytest.mark.parametrize(("kind", "state"), [(SGD, 0), (Halving, None)])
def test_on_a_cpu_the_known_parts_are_reported(kind: Any, state: int | None) -> None:
    weight = Parameter(np.zeros((64, 16), np.float32), name="weight")
    options = (0.1,) if kind is SGD else ()
    trainer = Trainer(kind([weight], *options))

    def loss(x: Tensor) -> Tensor:
        return (weight * x).sum()

    trainer.train_step(loss, np.ones(16, np.float32))
    report = trainer.memory_report()
    assert report == MemoryReport(weight.backend.name, 4096, 4096, state)
    assert "activations are not known yet" in str(report)
    assert ("unknown" in str(report).split("\n")[3]) == (state is None)
    trainer.train_step(loss, np.ones(16, np.float32))
    (step,) = trainer.memory_report().steps
    assert step.bytes >= 16 * 4 + 64 * 16 * 4  # the batch, and a product

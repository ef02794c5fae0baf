"""500 steps of the digits model, on the CPU and captured on the GPU: the same losses."""

from __future__ import annotations

import math

import numpy as np

from rumus import nn
from rumus.gpu import default_backend
from rumus.optim import AdamW
from rumus.tensor import Backend, Generator, NumpyBackend, Tensor
from rumus.train import Trainer

STEPS = 500
BATCH = 32


def model(random: Generator) -> nn.Sequential:
    """The model of docs/examples/digits.py."""
    return nn.Sequential(
        nn.Dropout(0.1, generator=random),
        nn.Linear(64, 256, generator=random),
        nn.ReLU(),
        nn.Dropout(0.3, generator=random),
        nn.Linear(256, 128, generator=random),
        nn.ReLU(),
        nn.Dropout(0.3, generator=random),
        nn.Linear(128, 10, generator=random),
    )


def train(backend: Backend) -> tuple[list[Tensor], Trainer[nn.Sequential]]:
    """The losses of all steps, not read yet, and the trainer."""
    network = model(Generator(0))

    def learning_rate(step: int) -> float:
        return 0.003 * 0.5 * (1 + math.cos(math.pi * step / STEPS))

    def loss_of(images: Tensor, digits: Tensor) -> Tensor:
        return nn.cross_entropy_loss(network(images), digits)

    optimizer = AdamW(network.parameters(), lr=learning_rate)
    network.to(backend)
    trainer = Trainer(optimizer)
    draw = np.random.default_rng(0)
    centers = draw.random((10, 64))
    found = []
    for _ in range(STEPS):
        digits = draw.integers(0, 10, BATCH)
        images = centers[digits] + 0.5 * draw.normal(size=(BATCH, 64))
        found.append(trainer.train_step(loss_of, images, digits))
    return found, trainer


def test_500_steps_are_the_same_on_cpu_and_gpu() -> None:
    gpu = default_backend()
    before = gpu.stats.bytes_down
    losses, trainer = train(gpu)
    assert gpu.stats.bytes_down == before
    assert trainer.counts.captured == STEPS - 2
    there = [loss.item() for loss in losses]
    here = [loss.item() for loss in train(NumpyBackend())[0]]
    assert np.mean(here[-50:]) < 0.3 * here[0]
    assert np.abs(np.subtract(here, there)).max() < 1e-4

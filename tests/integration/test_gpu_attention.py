"""A small GPT: the GPU against the CPU, repeated steps against uncaptured ones, and dispatches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import GpuBackend, default_backend
from rumus.optim import AdamW
from rumus.tensor import Backend, Generator, NumpyBackend, Tensor
from rumus.train import Trainer


class Language(nn.Module):
    """Predicts the next character."""

    def __init__(self, backend: Backend, **options: Any) -> None:
        generator = Generator(0)
        self.embedding = nn.Embedding(11, 16, generator=generator)
        self.blocks = nn.Sequential(
            *(nn.TransformerBlock(16, 4, causal=True, generator=generator, **options)
              for _ in range(2))
        )  # fmt: skip
        self.output = nn.Linear(16, 11, generator=generator)
        self.to(backend)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.blocks(self.embedding(x)))


def losses_and_weights(
    backend: Backend, *, capture: bool, **options: Any
) -> tuple[list[float], list[bytes]]:
    model = Language(backend, **options)
    trainer = Trainer(AdamW(model.parameters(), 0.01), capture=capture)
    random = np.random.default_rng(1)

    def loss_fn(inputs: Tensor, targets: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(inputs).reshape(-1, 11), targets.reshape(-1))

    losses = []
    for _ in range(10):
        start = random.integers(0, 11, (5, 1))
        text = ((start + np.arange(14) * 3) % 11).astype(np.int32)
        losses.append(trainer.train_step(loss_fn, text[:, :-1].copy(), text[:, 1:].copy()))
    assert trainer.counts.captured == (8 if capture else 0)
    return [float(x) for x in losses], [p.numpy().tobytes() for p in model.parameters()]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"kv_heads": 2, "norm": "rms", "activation": "swiglu", "rotary": nn.RotaryEmbedding(4)},
    {"dropout": 0.1},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_repeated_steps_are_those_of_the_code(options: dict[str, Any]) -> None:
    gpu = default_backend()
    repeated = losses_and_weights(gpu, capture=True, **options)
    assert repeated == losses_and_weights(gpu, capture=False, **options)


@pytest.mark.parametrize("options", OPTIONS[:2])
def test_it_trains_as_on_the_cpu(options: dict[str, Any]) -> None:
    found, _ = losses_and_weights(default_backend(), capture=True, **options)
    wanted, _ = losses_and_weights(NumpyBackend(), capture=True, **options)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert found[-1] < 0.7 * found[0]


def test_heads_are_split_and_joined_without_copies() -> None:
    """A layer's (batch, positions, size) is read in place."""
    gpu = default_backend()
    assert isinstance(gpu, GpuBackend)
    product = "matmul" if gpu.gpu.is_software else "tiled_matmul"
    layer = nn.MultiHeadAttention(16, 4, causal=True, generator=Generator(0)).to(gpu)
    x = Generator(1).normal((3, 13, 16), backend=gpu)
    with gpu.profile() as profile:
        out = layer(x)
    assert sorted(event.kernel for event in profile.events) == ["attention", product, product]
    loss = out.sum()
    with gpu.profile() as profile:
        loss.backward()
    kernels = [event.kernel for event in profile.events]
    after = kernels[kernels.index("attention_gradient_query") :]
    # The gradients are parts of one array that is ready for the product.
    assert after == ["attention_gradient_query", "attention_gradient_key", product]

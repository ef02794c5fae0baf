"""The dispatches of a training step: operations after a product are fused into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus import nn
from rumus.gpu import GpuBackend, default_backend
from rumus.optim import SGD
from rumus.tensor import Generator, Parameter, Tensor, linear, relu, tensor

LOSS = 3  # the losses of all rows, their mean, and the gradient of the logits


@pytest.fixture
def gpu() -> GpuBackend:
    return default_backend()


def of_a_step(gpu: GpuBackend, model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """The dispatches of a step of `model`, without those of the update."""
    optimizer: SGD[Any] = SGD(model.parameters(), 0.1)
    for _ in range(2):
        before = gpu.stats.dispatches
        grads = loss().backward()
        taken = gpu.stats.dispatches - before
        optimizer.step(grads)
    return taken


def test_an_mlp_takes_three_products_a_layer_and_nothing_else(gpu: GpuBackend) -> None:
    model = nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 10)
    )
    model.to_gpu()
    draw = np.random.default_rng(0)
    x = tensor(draw.normal(size=(8, 12)), backend=gpu)
    classes = tensor(draw.integers(0, 10, 8), backend=gpu)
    taken = of_a_step(gpu, model, lambda: nn.cross_entropy_loss(model(x), classes))
    assert taken == 3 + 5 + LOSS  # the first layer's input needs no gradient


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_feed_forward_part_takes_two_dispatches_and_four_back(
    activation: str, gpu: GpuBackend
) -> None:
    kind = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
    model = kind if activation == "relu" else nn.FeedForward(8, 32)
    model.to_gpu()
    x = Parameter(np.ones((2, 3, 8)), backend=gpu)
    before = gpu.stats.dispatches
    y = model(x)
    assert gpu.stats.dispatches - before == 2
    before = gpu.stats.dispatches
    y.sum().backward()
    assert gpu.stats.dispatches - before == 4 + 2 + 1  # the sum and its share; x's own


def test_gradients_of_two_products_are_added_in_the_second(gpu: GpuBackend) -> None:
    weights = [Parameter(np.eye(4), backend=gpu) for _ in range(3)]
    h = linear(tensor(np.ones((2, 4)), backend=gpu), weights[0], activation=relu)
    loss = (linear(h, weights[1]) * linear(h, weights[2])).sum()
    before = gpu.stats.dispatches
    loss.backward()
    # The gradient of * by the sum's, two weights, two products, relu, the weight.
    assert gpu.stats.dispatches - before == 1 + 2 + 2 + 1 + 1


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_block_that_drops_nothing_adds_in_its_products(dropout: float, gpu: GpuBackend) -> None:
    block = nn.TransformerBlock(8, 2, causal=True, dropout=dropout, generator=Generator(0))
    block.to_gpu()
    block.eval()
    x = tensor(np.ones((2, 4, 8)), backend=gpu)
    block(x)
    before = gpu.stats.dispatches
    block(x)
    # Norm, queries with keys and values, attention, its output; norm, up, down.
    assert gpu.stats.dispatches - before == 7


def test_a_block_goes_back_in_products_norms_and_attention(gpu: GpuBackend) -> None:
    block = nn.TransformerBlock(8, 2, causal=True, generator=Generator(0))
    block.to_gpu()
    x = Parameter(np.ones((2, 4, 8)), backend=gpu)
    taken = of_a_step(gpu, block, lambda: block(x * 1.0).sum())
    # Forward: of x, the block, the sum. Back: the sum's share; two products for each
    # of four layers; the two norms and their weights; attention; of x.
    assert taken == 1 + 7 + 1 + 1 + 4 * 2 + 2 * 2 + 2 + 1

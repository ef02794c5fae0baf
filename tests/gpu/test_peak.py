"""The memory of a deep stack: the arrays kept for backward, and two more."""

from __future__ import annotations

import pytest

from rumus.gpu import Gpu, GpuBackend
from rumus.tensor import Generator, Parameter, Tensor, linear

ROWS, WIDTH = 512, 256
UNIT = 4 * ROWS * WIDTH  # bytes of one activation, and a size class
WEIGHT = 4 * WIDTH * WIDTH


def peak(depth: int) -> tuple[int, int]:
    """The activations at the peak of a forward and backward pass, and the bytes left after it."""
    gpu = GpuBackend(Gpu())
    generator = Generator(0)
    weights = [
        Parameter(generator.normal((WIDTH, WIDTH)), backend=gpu, name=str(n)) for n in range(depth)
    ]
    x = Tensor(gpu.upload(generator.normal((ROWS, WIDTH)).numpy()), gpu)
    before = gpu.memory_stats().used
    for weight in weights:
        x = linear(x, weight).tanh()
    loss = (x * x).sum()
    del x
    grads = loss.backward()
    del loss
    stats = gpu.memory_stats()
    assert len(grads) == depth
    return stats.peak - before, stats.used - before


def test_the_peak_is_what_backward_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer keeps the input and the output of tanh; the stack's input was there before.

    At the top, each factor of x * x has a gradient; that of the sum is one number. Further down,
    each new array frees another one, so that the peak does not move.
    """
    # Products that are split for a large device also need memory for their parts.
    monkeypatch.setattr(Gpu, "is_software", True)
    for depth in (2, 6):
        most, left = peak(depth)
        needed = (2 * depth + 2) * UNIT
        assert needed <= most < needed + 4096
        assert left - (depth * WEIGHT - UNIT) < 4096

"""Averages of gradients that have become 0 do not get stuck at the smallest numbers."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from rumus.optim import AdamW
from rumus.tensor import GradientStore, Parameter, float32, tensor

pytest.importorskip("numba")

from rumus.tensor import NumbaBackend, NumpyBackend

IS_X86 = platform.machine() in ("x86_64", "AMD64")


def means(
    backend: NumpyBackend, size: int, steps: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The averages of an AdamW whose gradient is 1e-36 at its first step, and 0 afterwards."""
    parameter = Parameter(np.ones(size, np.float32), name="p", backend=backend)
    optimizer = AdamW([parameter])
    for step in range(steps):
        grads = GradientStore()
        gradient = np.full(size, 0.0 if step else 1e-36, np.float32)
        grads.accumulate(parameter, tensor(gradient, dtype=float32, backend=backend))
        optimizer.step(grads)
    return np.asarray(backend.download(optimizer.segments[0].state["m"]))[:size]


@pytest.mark.skipif(not IS_X86, reason="other processors are fast with such numbers")
@pytest.mark.parametrize("size", [100, 20_000, 300_000])
def test_an_average_without_gradients_decays_to_zero(size: int) -> None:
    """For arrays long enough for any kind of loop; above 1.2e-38 the rounding is unchanged."""
    assert (means(NumbaBackend(), size, 20) == means(NumpyBackend(), size, 20)).all()
    assert (means(NumpyBackend(), size, 60)[:5] > 0).all()
    assert (means(NumbaBackend(), size, 60) == 0).all()

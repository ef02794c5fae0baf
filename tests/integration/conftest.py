"""Backends that repeat steps, one device for the tests of a file."""

from __future__ import annotations

import pytest

from rumus.gpu import Gpu, GpuBackend
from rumus.tensor import NumbaBackend, NumpyBackend
from rumus.tensor.memory.recording import Capturing


@pytest.fixture(scope="module")
def gpu() -> GpuBackend:
    """One device for all."""
    return GpuBackend(Gpu())


@pytest.fixture(scope="module", params=["gpu", NumpyBackend, NumbaBackend], ids=str)
def device(request: pytest.FixtureRequest) -> Capturing:
    """Each kind of backend that repeats steps; those of the CPU without a GPU, too."""
    kind = request.param
    found: Capturing = request.getfixturevalue("gpu") if kind == "gpu" else kind()
    return found

"""The GPU of these tests. Without a driver they fail: a GPU test that is skipped tells nothing."""

from __future__ import annotations

import pytest

from rumus.gpu import Gpu, GpuBackend


@pytest.fixture(scope="session", params=["immediates", "uniforms"])
def gpu(request: pytest.FixtureRequest) -> GpuBackend:
    """The backend, with scalars given directly and through a uniform buffer."""
    return GpuBackend(Gpu(immediates=request.param == "immediates"))

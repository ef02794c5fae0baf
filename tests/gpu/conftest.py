"""The GPU of these tests. Without a driver those that ask for it are skipped."""

from __future__ import annotations

import pytest

from rumus.gpu import Gpu, GpuBackend


@pytest.fixture(scope="session", params=["immediates", "uniforms"])
def gpu(request: pytest.FixtureRequest) -> GpuBackend:
    """The backend as it usually is, and as it is on devices with less.

    The other one gives scalars through a uniform buffer and has every index checked.
    """
    is_usual = request.param == "immediates"
    return GpuBackend(Gpu(immediates=is_usual, trusted=is_usual))

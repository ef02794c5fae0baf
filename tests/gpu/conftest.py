"""The GPU of these tests. Without a driver, tests that need it are skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from wgsl_operators import mixed_operators

from rumus.gpu import Gpu, GpuBackend, devices
from rumus.gpu.device.pipelines import Pipeline, Pipelines, Program


def has_dawn() -> bool:
    """Whether the tests can run on Dawn."""
    return any("dawn" in info.engines for info in devices())


@pytest.fixture(scope="session", params=["immediates", "uniforms", "dawn"])
def gpu(request: pytest.FixtureRequest) -> GpuBackend:
    """The usual backend, and variants of it.

    The second passes scalars through a uniform buffer and has every index checked. The third is the
    other engine, if it is installed and its library accepts the driver.
    """
    if request.param == "dawn":
        if not has_dawn():
            pytest.skip("Dawn is not installed, or finds no GPU")
        return GpuBackend(Gpu(engine="dawn"))
    is_usual = request.param == "immediates"
    return GpuBackend(Gpu(engine="wgpu", immediates=is_usual, trusted=is_usual))


@pytest.fixture(scope="session", autouse=True)
def _plain_operators() -> Iterator[None]:
    """Let every program that these tests compile be one that both engines take."""
    with pytest.MonkeyPatch.context() as patch:
        compiled = Pipelines._compile

        def checked(pipelines: Pipelines, program: Program) -> Pipeline:
            mixed = list(mixed_operators(program.source))
            assert not mixed, f"{program.name} mixes {mixed} without parentheses"
            return compiled(pipelines, program)

        patch.setattr(Pipelines, "_compile", checked)
        yield

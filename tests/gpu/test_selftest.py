"""`python -m rumus.gpu`: its output, and that it detects wrong kernels."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from rumus.gpu import GpuBackend, ShaderError, devices, selftest
from rumus.gpu.__main__ import main
from rumus.gpu.elementwise import wgsl
from rumus.gpu.selftest import CHECKS, CheckResult, self_test

pytestmark = pytest.mark.needs_gpu  # in their own processes


RUNS: Final = sum(len(info.engines) for info in devices())  # of the self-test, by the program


def test_the_program_lists_devices_and_tests_every_family() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "rumus.gpu"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for info in devices():
        assert str(info) in done.stdout
    for text in ("largest array", "workgroup memory", "features"):
        assert text in done.stdout
    lines = {line.strip() for line in done.stdout.splitlines()}
    for name in CHECKS:
        found = [line for line in lines if line.startswith(f"{name} ")]  # of each engine
        assert found
        assert all(line.endswith(" ok") for line in found)


def test_both_modes_of_kernels_pass(gpu: GpuBackend) -> None:
    findings = list(self_test(gpu))
    assert [finding.name for finding in findings] == list(CHECKS)
    assert all(finding.is_ok for finding in findings), "\n".join(map(str, findings))


def test_tint_compiles_every_kernel(gpu: GpuBackend) -> None:
    """Dawn's null device needs no driver and runs nothing, but its compiler is the real one."""
    dawn = pytest.importorskip("rumus.gpu.engine.dawn", exc_type=ModuleNotFoundError)
    programs = [each.program for each in gpu.gpu._pipelines._found.values()]
    assert len(programs) > 150  # those of the self-test above
    texts = ((p.name, gpu.gpu.device.preamble(p.features) + p.source) for p in programs)
    refused = {name: said for name, text in texts if (said := dawn.compiles(text))}
    assert refused == {}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep three families, one of which has a kernel to break."""
    names = "copy", "elementwise", "random words"
    monkeypatch.setattr(selftest, "CHECKS", {name: CHECKS[name] for name in names})


@pytest.mark.usefixtures("few")
def test_a_wrong_kernel_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(wgsl.OPERATIONS, "tanh", "{0}")
    assert main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "FAILED" in line] == ["elementwise"] * RUNS


@pytest.mark.usefixtures("few")
def test_a_kernel_that_does_not_compile_is_reported_and_the_rest_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(wgsl.OPERATIONS, "tanh", "no_such_function({0})")
    assert main() == 1
    out = capsys.readouterr().out
    failed = [line for line in out.splitlines() if "FAILED" in line]
    assert len(failed) == RUNS
    assert all(ShaderError.__name__ in line for line in failed)
    assert "random words" in out


def test_an_error_is_ok_up_to_its_tolerance() -> None:
    assert CheckResult("x", 1e-5, 1e-5).is_ok
    assert not CheckResult("x", 2e-5, 1e-5).is_ok
    assert not CheckResult("x", 0.0, 1e-5, "ValueError").is_ok
    assert not CheckResult("x", float("nan"), 1e-5).is_ok

"""docs/examples/ported, run as a reader runs them; tests/oracle compares them with PyTorch."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from ported_programs import FOLDER, PAIRS


def losses(name: str, *arguments: object) -> list[float]:
    """The losses that a program prints."""
    command = [sys.executable, "-W", "error", str(FOLDER / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[\d.]+ ms per step$", done.stdout, re.MULTILINE)
    return [float(found) for found in re.findall(r"loss (-?[\d.]+)$", done.stdout, re.MULTILINE)]


def test_a_program() -> None:
    assert len(losses("lenet", "--steps", 2)) == 2


@pytest.mark.needs_gpu
@pytest.mark.parametrize("name", PAIRS)
def test_programs_on_a_gpu(name: str) -> None:
    """Including a software GPU: the same losses, from the same weights."""
    here, there = losses(name, "--steps", 3), losses(name, "--steps", 3, "--gpu")
    assert here == pytest.approx(there, rel=2e-3, abs=2e-3)

"""A forked child that uses its parent's GPU gets an error at once."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

from rumus.gpu import GpuBackend

# The child tries every use under a time limit: SIGALRM ends one that hangs.
PROGRAM: Final = """
import os, signal
import numpy as np
from rumus.gpu import ForkedProcessError, Gpu, default_backend
from rumus.tensor import Generator, tensor

backend = default_backend()
x = tensor(np.ones(4), backend=backend)
assert (x + 1).sum().item() == 8.0
uses = [
    lambda: x.numpy(), lambda: x + 1, lambda: tensor(np.ones(4), backend=backend),
    lambda: x.to(backend).sum().item(), lambda: backend.gpu.synchronize(), lambda: Gpu(),
    lambda: Generator(0).keep(0.5, (4,), backend=backend), lambda: x.assign(2.0),
]
child = os.fork()
if child == 0:
    signal.alarm(30)
    refused = 0
    for use in uses:
        try:
            use()
        except ForkedProcessError:
            refused += 1
    os._exit(refused)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(uses)
assert (x + 1).sum().item() == 8.0  # the parent continues
"""


ENDING: Final = """
import os, signal, sys
import numpy as np
from rumus.gpu import default_backend
from rumus.tensor import tensor

x = tensor(np.ones(4), backend=default_backend()) + 1
x.numpy()
child = os.fork()
if child == 0:
    signal.alarm(30)
    del x
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_a_forked_child_is_refused(gpu: GpuBackend) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr


def test_a_forked_child_ends(gpu: GpuBackend) -> None:
    """At exit the interpreter releases the GPU's objects, which must not wait for the GPU."""
    found = subprocess.run(
        [sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr

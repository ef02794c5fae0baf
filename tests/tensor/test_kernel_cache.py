"""numba's compiled kernels are cached between processes, and match what it would compile again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytest.importorskip("numba")

PROGRAM: Final = """
import sys
from numba.core import event
from numba.core.ccallback import CFunc
import numpy as np
from rumus.tensor import NumbaBackend, elementwise, tensor

compiled = []

class Count(event.Listener):
    def on_start(self, e): compiled.append(e.data["dispatcher"].py_func.__name__)
    def on_end(self, e): pass

event.register("numba:compile", Count())
uncached = CFunc._compile_uncached

def count(function):  # functions that are called by address tell nobody
    compiled.append(function.__name__)
    return uncached(function)

CFunc._compile_uncached = count

@elementwise
def odd(x, y):
    return (x * y + 0.1) / (1.0 + y * y)

backend = NumbaBackend()
for dtype in (np.float32, np.float64):
    x = np.linspace(-1, 1, 100_000).astype(dtype)
    a, b = (tensor(v.copy(), dtype=dtype, backend=backend) for v in (x, x[::-1]))
    found = odd(a, b).numpy()
    print(found.dtype, found.tobytes().hex()[:4000])
print("compiled", compiled.count("loop"))
"""


def run(folder: Path, program: str = PROGRAM) -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.splitlines()


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    *first, compiled = run(tmp_path / "cache")
    assert compiled == "compiled 2"
    *second, compiled = run(tmp_path / "cache")
    assert compiled == "compiled 0"
    assert second == first
    texts = sorted((tmp_path / "cache" / "rumus").glob("kernel_*.py"))
    assert len(texts) == 2
    for text in texts:
        text.write_text("def loop(*arrays):\n    raise SystemExit\n")  # belongs to someone else
    *third, _ = run(tmp_path / "cache")
    assert third == first


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    *found, compiled = run(tmp_path / "file")
    assert compiled == "compiled 2"
    assert len(found) == 2


MOVED: Final = """
import sys
import rumus.tensor.compiled.numba_cache as numba_cache
sys.modules["rumus.tensor.elsewhere"] = numba_cache
numba_cache.__name__ = "rumus.tensor.elsewhere"  # the module's name in another version of rumus
"""


def test_what_another_version_kept_is_left_alone(tmp_path: Path) -> None:
    """What numba keeps names the modules that it is from, and loading it imports them."""
    *first, _ = run(tmp_path / "cache", MOVED + PROGRAM)
    *second, compiled = run(tmp_path / "cache")
    assert compiled == "compiled 2"
    assert second == first

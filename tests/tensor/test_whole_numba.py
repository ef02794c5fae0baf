"""numba is imported and compiles in one piece, whatever handlers raise meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")
if not hasattr(signal, "SIGALRM"):
    pytest.skip("no alarms", allow_module_level=True)

PROGRAM = """
import signal, sys

class Late(Exception):
    pass

def handler(number, frame):
    module = sys.modules.get("numba.core.compiler_lock")
    is_compiling.append(getattr(module, "global_compiler_lock", None) is not None
                        and module.global_compiler_lock.is_locked())
    raise Late

class Alarm:  # an alarm as numba imports one of its modules
    def find_spec(self, name, path=None, target=None):
        if name == NAME:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGALRM)

from rumus.tensor import tensor
import numpy as np

is_compiling = []
signal.signal(signal.SIGALRM, handler)
NAME = sys.argv[1]
if NAME == "compiler":
    from numba.core import event

    class Compiling(event.Listener):
        def on_start(self, _):
            event.unregister("numba:compile", self)
            signal.raise_signal(signal.SIGALRM)

        def on_end(self, _):
            pass

    event.register("numba:compile", Compiling())
else:
    sys.meta_path.insert(0, Alarm())

values = tensor(np.ones((512, 256), np.float32))
try:
    values.softmax(-1).log().sum().item()
except Late:
    pass
print(is_compiling, round(values.softmax(-1).sum().item(), 3))
"""


@pytest.mark.parametrize("name", ["numba.core.types", "numba.core.typing", "compiler"])
def test_a_handler_that_raises_as_numba_starts(name: str, tmp_path: Path) -> None:
    kept = {"NUMBA_CACHE_DIR": str(tmp_path)} if name == "compiler" else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **kept},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[False] 512.0\n"), done.stderr

"""The backends there are, each made once in a process: a program may fork before it opens a GPU."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from typing import Final

from rumus.tensor import Backend, NumbaBackend, NumpyBackend

BACKENDS: Final = ("NumPy", "numba", "GPU")


@cache
def backend(name: str) -> Backend | None:
    """Return a backend by its name in BACKENDS; None where there is none."""
    if name == "NumPy":
        return NumpyBackend()
    if name == "numba":
        return NumbaBackend() if find_spec("numba") is not None else None
    try:
        from rumus.gpu import GpuBackend

        return GpuBackend()
    except Exception as error:
        print(f"without a GPU: {error}", file=sys.stderr)
        return None

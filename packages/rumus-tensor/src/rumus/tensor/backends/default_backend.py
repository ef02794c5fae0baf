"""The default backend of tensors: the CPU, with numba if it is installed."""

from __future__ import annotations

from importlib.util import find_spec

from rumus.tensor.backends.numba_backend import NumbaBackend
from rumus.tensor.backends.numpy_backend import NumpyBackend
from rumus.tensor.memory.backend import Backend
from rumus.tensor.memory.once import once


@once
def cpu() -> Backend:
    """Return the CPU backend of this process, always the same object.

    With numba installed (`pip install rumus-tensor[fast]`) large kernels run as compiled loops.

    >>> from rumus.tensor import cpu
    >>> cpu() is cpu()
    True
    """
    return NumpyBackend() if find_spec("numba") is None else NumbaBackend()

"""How `to_gpu()` finds the GPU: it imports `rumus.gpu` on first use."""

from __future__ import annotations

from importlib import import_module

from rumus.tensor.memory.backend import Backend


def gpu_backend() -> Backend:
    """Return the backend of the default GPU.

    ImportError if rumus-gpu is not installed; the error of `rumus.gpu` if it finds no GPU.
    """
    try:
        gpu = import_module("rumus.gpu")
    except ModuleNotFoundError as missing:
        if missing.name != "rumus.gpu":
            raise
        raise ImportError(
            "to_gpu() needs the package rumus-gpu: pip install rumus-gpu (or rumus[gpu])"
        ) from None
    backend: Backend = gpu.default_backend()
    return backend

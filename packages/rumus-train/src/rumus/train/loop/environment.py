"""The environment of a run: versions, device, arguments, commit; no names of hosts or people."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rumus.optim import Optimizer
from rumus.tensor import Backend, run_seed
from rumus.tensor.memory.uninterrupted import is_of_handler

if TYPE_CHECKING:
    from rumus.train.loop.run import Run

_PACKAGES: Final = (
    "rumus-tensor", "rumus-gpu", "rumus-nn", "rumus-optim", "rumus-train", "numpy", "numba", "wgpu"
)  # fmt: skip
_PATIENCE: Final = 5  # seconds for git


def environment(run: Run, seed: int | None) -> dict[str, Any]:
    """Return it for JSON: time, versions, system, device, seed, arguments, commit."""
    import platform

    backend = backend_of(run.trainer.optimizer)
    found: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": _versions(),
        "device": device_name(backend),
        "cpu": cpu_features(),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "optimizer": type(run.trainer.optimizer).__name__,
    }
    found["seed"] = run_seed() if seed is None else seed
    if (commit := _commit()) is not None:
        found["git"] = commit
    return found


def cpu_features() -> list[str]:
    """Return the instruction sets that NumPy uses."""
    extensions: Any = np.show_config(mode="dicts").get("SIMD Extensions", {})
    return [str(name) for kind in ("baseline", "found") for name in extensions.get(kind, ())]


def backend_of(optimizer: Optimizer[Any]) -> Backend | None:
    """Return the device of the first parameter, or None."""
    named = optimizer.groups[0].named if optimizer.groups else []
    return named[0][1].backend if named else None


def device_name(backend: Backend | None) -> str:
    """Return the device's name for messages.

    >>> from rumus.tensor import NumpyBackend
    >>> device_name(NumpyBackend())
    'CPU (numpy)'
    """
    if backend is None:
        return "CPU"
    device = getattr(backend, "gpu", None)
    return f"CPU ({backend.name})" if device is None else str(device.name)


def memory_used(backend: Backend | None) -> int | None:
    """Return the bytes of arrays on a GPU; otherwise those of the process, if known."""
    stats = getattr(backend, "memory_stats", None)
    if stats is not None:
        return int(stats().used)
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
    except OSError as error:
        if is_of_handler(error):
            raise
        return None
    import resource

    return pages * resource.getpagesize()


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> dict[str, Any] | None:
    """The commit of the working folder, or None."""
    import subprocess

    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        if is_of_handler(error):
            raise
        return None
    commit, dirty, _ = done.stdout.strip().partition("-dirty")
    return {"commit": commit, "changed": bool(dirty)} if commit else None

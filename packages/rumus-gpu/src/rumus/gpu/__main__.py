"""`python -m rumus.gpu`: the GPUs of this machine, their features, and whether they work.

Compares every family of kernels with NumPy on each GPU and prints the error. The exit status is 0
if every check passes, 1 if one fails, and 2 if there is no GPU.
"""

from __future__ import annotations

import sys

from rumus.gpu.backend import GpuBackend
from rumus.gpu.device.adapter import choose, devices
from rumus.gpu.device.device import Gpu
from rumus.gpu.engine.engines import INSTALL, is_installed
from rumus.gpu.engine.errors import NoAdapterError
from rumus.gpu.engine.protocol import EngineName
from rumus.gpu.selftest import self_test


def about(gpu: Gpu) -> str:
    """Return a description of a device's limits and features."""
    limits = gpu.limits
    rows = {
        "largest array": f"{limits.binding:,} bytes",
        "buffers per kernel": f"{limits.bindings}",
        "workgroup memory": f"{limits.workgroup_memory:,} bytes",
        "workgroup size": f"{limits.workgroup_size}",
        "scalars": f"{limits.immediates} bytes" if limits.immediates else "uniform buffer",
        "engine": _engine(gpu),
        "matrix units": units(gpu),
        "features": ", ".join(sorted(gpu.device.features)),
    }
    return "\n".join(f"    {name:20} {text}" for name, text in rows.items())


def units(gpu: Gpu) -> str:
    """Return the hardware used for products of lower precision."""
    if gpu.units is None:
        return "none: `high` and `medium` compute like `highest`"
    shape = gpu.units.shape
    return f"float16 {shape.rows} x {shape.columns} x {shape.depth}, for `high` and `medium`"


def _engine(gpu: Gpu) -> str:
    """The library in use, and how to install the other one."""
    if gpu.engine == "dawn" or is_installed("dawn"):
        return gpu.engine
    return f"{gpu.engine}; {INSTALL} adds Dawn, which can use a GPU's matrix units"


def examine(index: int, engine: EngineName) -> bool:
    """Describe a device on one engine and test its kernels; return whether all checks pass."""
    backend = GpuBackend(Gpu(index, engine=engine))
    print(about(backend.gpu))
    print("    self-test: the largest |error| / (1 + |value|) against NumPy")
    is_ok = True
    for finding in self_test(backend):
        print(f"        {finding}", flush=True)
        is_ok &= finding.is_ok
    return is_ok


def main() -> int:
    """Print all GPUs, or what to install; return the exit status."""
    try:
        choose()
    except NoAdapterError as error:
        print(error, file=sys.stderr)
        return 2
    is_ok = True
    for info in devices():
        print(info)
        for engine in info.engines:
            is_ok &= examine(info.index, engine)
    if not is_ok:
        print("a GPU's results differ from NumPy's; see FAILED above", file=sys.stderr)
    return 0 if is_ok else 1


if __name__ == "__main__":
    sys.exit(main())

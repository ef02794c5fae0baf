"""`python -m rumus.gpu`: the GPUs of this machine, their limits and features."""

from __future__ import annotations

import sys

from rumus.gpu.adapter import choose, devices
from rumus.gpu.device import Gpu
from rumus.gpu.errors import NoAdapterError


def listing() -> str:
    """Return the text about every GPU. NoAdapterError where there is none."""
    choose()
    return "\n\n".join(_about(info.index, str(info)) for info in devices())


def _about(index: int, title: str) -> str:
    gpu = Gpu(index)
    limits = gpu.limits
    rows = {
        "largest array": f"{limits.binding:,} bytes",
        "buffers of a kernel": f"{limits.bindings}",
        "workgroup memory": f"{limits.workgroup_memory:,} bytes",
        "workgroup size": f"{limits.workgroup_size}",
        "scalars": f"{limits.immediates} bytes" if limits.immediates else "uniform buffer",
        "features": ", ".join(sorted(str(f) for f in gpu.device.features)),
    }
    return "\n".join([title, *(f"    {name:20} {text}" for name, text in rows.items())])


def main() -> int:
    """Print the listing, or what to install; return the exit status."""
    try:
        print(listing())
    except NoAdapterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

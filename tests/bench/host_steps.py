"""The host's work in a step, on a device that computes nothing: it needs no GPU.

    python tests/bench/host_steps.py --steps 4000 --profile

It needs the extra `dawn`, whose library has a null device that accepts all work and does none.
The step is that of a model of gpu.py, by default of the MLP (784-512-512-10, batch 128, AdamW);
`--eager` does not capture it. Prints its dispatches, its calls of Python functions, and the
microseconds on the host, the median and the minimum over rounds of 50 steps. Since nothing is
computed, this program stands in for the device's decision about steps: all are applied.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import time
from importlib import import_module
from typing import Any

import gpu_models
import numpy as np

from rumus.gpu import Gpu, GpuBackend
from rumus.gpu.device import device
from rumus.gpu.engine import dawn, webgpu
from rumus.gpu.optimizer.updater import DeviceUpdater

ROUND = 50  # steps


def null_device() -> Gpu:
    """Return a `Gpu` over Dawn's device that does nothing."""
    dawn.adapters()  # starts Dawn
    listed = enumerate(import_module("wgpudawn").gpu._enumerate_all_adapters())
    place, adapter = next((n, a) for n, a in listed if a.info["backend_type"] == "Null")
    found: Any = dawn.DawnAdapter(adapter, place)
    found.kind = "DiscreteGPU"
    vars(device)["choose"] = lambda *_: found
    bind = webgpu.BindGroups.bind

    def bind_part(self: Any, number: int, buffer: Any, offset: int, size: int) -> None:
        # This device refuses overlapping bindings, whatever it is told; a part works as well here.
        bind(self, number, buffer, offset, min(size, 256))

    setattr(webgpu.BindGroups, "bind", bind_part)  # noqa: B010
    return Gpu()


def all_applied(updater: Any, report: Any) -> None:
    """Take it that the device has applied every step so far."""
    for outcome, _ in updater._pending:
        outcome.applied = True
    updater._pending.clear()
    updater.counts = list(updater.issued)


def calls(step: Any) -> int:
    """Count the calls of Python functions in a step."""
    found = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal found
        found += event == "call"

    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(None)
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument(
        "--model", choices=tuple(gpu_models.works()), default="mlp", help="of gpu.py"
    )
    parser.add_argument("--eager", action="store_true", help="steps are not captured")
    parser.add_argument("--profile", action="store_true", help="by function")
    options = parser.parse_args()
    setattr(DeviceUpdater, "_absorb", all_applied)  # noqa: B010
    backend = GpuBackend(null_device())
    work = gpu_models.works()[options.model]
    np.seterr(all="ignore")  # what is read there is anything
    step, wait = gpu_models.rumus_step(work, backend, capture=not options.eager)
    for _ in range(20 if options.eager else 200):
        step()
    wait()
    before, submits = backend.gpu.stats.dispatches, backend.gpu.stats.submits
    times = []
    for _ in range(-(-options.steps // ROUND)):
        begin = time.perf_counter()
        for _ in range(ROUND):
            step()
        times.append((time.perf_counter() - begin) / ROUND * 1e6)
        wait()
    count = ROUND * len(times)
    dispatches = (backend.gpu.stats.dispatches - before) / count
    print(
        f"{dispatches:.1f} dispatches, {(backend.gpu.stats.submits - submits) / count:.2f} "
        f"submissions and {min(calls(step) for _ in range(5))} calls of Python functions a step; "
        f"the host takes {statistics.median(times):.0f} us, at least {min(times):.0f}"
    )
    if options.profile:
        profile = cProfile.Profile()
        profile.enable()
        for _ in range(options.steps):
            step()
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()

"""What the last bits of a run depend on besides the program: NumPy, the device, CPU features.

NumPy computes some float32 functions by other formulas if the CPU has AVX-512, and devices may do
the same. A run that continues elsewhere is as good, but not bit for bit the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rumus.tensor import Backend
from rumus.train.loop.environment import cpu_features, device_name


def machine(backend: Backend | None) -> dict[str, Any]:
    """Return this machine's, for JSON.

    >>> from rumus.tensor import NumpyBackend
    >>> sorted(machine(NumpyBackend())), machine(NumpyBackend())["device"]
    (['cpu', 'device', 'numpy'], 'CPU (numpy)')
    """
    return {"numpy": np.__version__, "device": device_name(backend), "cpu": cpu_features()}


def what_differs(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the differences from another machine, for a message, or None.

    >>> what_differs({"numpy": "2.4.6", "cpu": ["AVX2"]}, {"numpy": "2.4.6", "cpu": ["AVX2"]})
    >>> what_differs({"numpy": "2.4.6", "cpu": ["AVX2", "AVX512F"]}, {"cpu": ["AVX2"]})
    'CPU features: AVX512F there, none of them here; numpy: 2.4.6 there, None here'
    """
    found = []
    for name in sorted({*before, *now}):
        there, here = before.get(name), now.get(name)
        if there == here:
            continue
        if name == "cpu":
            only = [[f for f in a or () if f not in (b or ())]
                    for a, b in ((there, here), (here, there))]  # fmt: skip
            told = [" ".join(map(str, features)) or "none of them" for features in only]
            found.append(f"CPU features: {told[0]} there, {told[1]} here")
        else:
            found.append(f"{name}: {there} there, {here} here")
    return "; ".join(found) or None

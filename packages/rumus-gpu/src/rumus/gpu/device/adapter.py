"""The GPUs of this machine: what there is, and which one to take.

Drivers are asked for Vulkan, Metal and DX12. OpenGL is left out: where it is the only interface,
the features that the kernels need are missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import wgpu
from wgpu.backends.wgpu_native import extras

from rumus.gpu.device.errors import NoAdapterError

_ORDER: Final = ("DiscreteGPU", "IntegratedGPU", "VirtualGPU", "CPU", "Unknown")
_INTERFACES: Final = {"darwin": ("Metal",), "win32": ("Vulkan", "DX12")}


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One adapter: its place in the order of choice, its name, what kind it is."""

    index: int
    name: str
    kind: str  # DiscreteGPU, IntegratedGPU, VirtualGPU or CPU
    interface: str  # Vulkan, Metal or D3D12
    driver: str

    def __str__(self) -> str:
        return f"[{self.index}] {self.name} ({self.kind}, {self.interface}, {self.driver})"


@lru_cache(maxsize=1)
def adapters() -> Sequence[wgpu.GPUAdapter]:
    """Return the adapters, the one to prefer first; empty where there is no driver."""
    # Without the flags that validate indirect calls, which are never made. It fails where other
    # code of this process has started wgpu already, with its own settings, which do as well.
    with suppress(RuntimeError):
        extras.set_instance_extras(_INTERFACES.get(sys.platform, ("Vulkan",)), ["Empty"])
    found = [a for a in wgpu.gpu.enumerate_adapters_sync() if a.info["backend_type"] != "OpenGL"]
    return sorted(found, key=lambda a: _ORDER.index(_kind(a)))


def _kind(adapter: wgpu.GPUAdapter) -> str:
    kind = str(adapter.info["adapter_type"])
    return kind if kind in _ORDER else "Unknown"


def devices() -> list[DeviceInfo]:
    """Return the GPUs of this machine, the one to prefer first.

    Discrete ones before integrated, virtual and software ones; OpenGL is left out.
    """
    return [
        DeviceInfo(
            index,
            str(adapter.info["device"]),
            _kind(adapter),
            str(adapter.info["backend_type"]),
            str(adapter.info["description"]),
        )
        for index, adapter in enumerate(adapters())
    ]


def choose(which: int | str | None = None) -> wgpu.GPUAdapter:
    """Return the adapter of this index, or whose name contains this text; by default the first.

    NoAdapterError says what to install where there is none, and what there is where none fits.
    """
    found = adapters()
    if not found:
        raise NoAdapterError(
            "no GPU driver was found. Install your GPU's Vulkan driver; a software one is in the "
            "package mesa-vulkan-drivers (Debian, Ubuntu, Fedora). The CPU backend works without"
        )
    if which is None:
        return found[0]
    if isinstance(which, int) and 0 <= which < len(found):
        return found[which]
    if isinstance(which, str):
        for adapter in found:
            if which.lower() in str(adapter.info["device"]).lower():
                return adapter
    there = "; ".join(map(str, devices()))
    raise NoAdapterError(f"there is no GPU {which!r}; there is {there}")

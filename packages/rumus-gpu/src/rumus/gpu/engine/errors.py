"""What goes wrong on a GPU, as types. Every one of them is a `GpuError`."""

from __future__ import annotations


class GpuError(RuntimeError):
    """Something about the device, its memory or its programs."""


class ForkedProcessError(GpuError):
    """This process was forked from one that had opened a GPU; no driver survives that."""


class NoAdapterError(GpuError):
    """No GPU driver was found, or none that fits what was asked for."""


class LimitError(GpuError):
    """An array or a kernel is larger than the device allows."""


class OutOfMemoryError(GpuError):
    """The device has no memory left; the message shows who holds how much."""


class ShaderError(GpuError):
    """A kernel's WGSL does not compile; the message shows the kernel's name and the line."""


class DeviceLostError(GpuError):
    """The device is gone: reset by its driver, or unplugged. Files on disk are intact."""


class EngineError(GpuError):
    """The WebGPU library has refused something; the message is its own."""

    @property
    def is_memory(self) -> bool:
        """Whether the device had no memory left."""
        return "memory" in str(self).lower()

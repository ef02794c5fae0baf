"""The exceptions of rumus-gpu, all subclasses of `GpuError`."""

from __future__ import annotations


class GpuError(RuntimeError):
    """An error of the device, its memory or its kernels."""


class ForkedProcessError(GpuError):
    """This process was forked from one that had opened a GPU; no driver survives a fork."""


class NoAdapterError(GpuError):
    """No GPU was found, or none that matches the request."""


class LimitError(GpuError):
    """An array or a kernel is larger than the device allows."""


class OutOfMemoryError(GpuError):
    """The device is out of memory; the message lists the arrays that hold the most."""


class ShaderError(GpuError):
    """A kernel's WGSL does not compile; the message names the kernel and the line."""


class DeviceLostError(GpuError):
    """The device is gone: reset by its driver, or unplugged. Files on disk are intact."""


class EngineError(GpuError):
    """The WebGPU library rejected a call; the message is the library's."""

    @property
    def is_memory(self) -> bool:
        """Whether the device ran out of memory."""
        return "memory" in str(self).lower()

"""The GPU backend of rumus: Vulkan, Metal and DX12 through wgpu.

`default_backend()` is the backend of this machine's best GPU, used by `tensor.to_gpu()`;
`devices()` lists the GPUs, and `python -m rumus.gpu` prints them.
"""

from rumus.gpu.backend import GpuBackend, default_backend
from rumus.gpu.device.adapter import DeviceInfo, devices
from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu, Stats
from rumus.gpu.device.matrix_units import Precision
from rumus.gpu.device.memory import MemoryStats
from rumus.gpu.device.profile import Profile
from rumus.gpu.elementwise.wgsl import update_source
from rumus.gpu.engine.errors import (
    DeviceLostError,
    ForkedProcessError,
    GpuError,
    LimitError,
    NoAdapterError,
    OutOfMemoryError,
    ShaderError,
)

__version__ = "0.1.0"

__all__ = [
    "DeviceInfo",
    "DeviceLostError",
    "ForkedProcessError",
    "GPUArray",
    "Gpu",
    "GpuBackend",
    "GpuError",
    "LimitError",
    "MemoryStats",
    "NoAdapterError",
    "OutOfMemoryError",
    "Precision",
    "Profile",
    "ShaderError",
    "Stats",
    "default_backend",
    "devices",
    "update_source",
]

# The native library through cffi: pointers and structures, which have no static types.
from typing import Any

import wgpu

lib: Any
libf: Any
ffi: Any

def GPUShaderModule(label: str, internal: Any, device: wgpu.GPUDevice) -> wgpu.GPUShaderModule: ...

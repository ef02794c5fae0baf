"""WebGPU libraries behind one protocol: wgpu-native, and Dawn where it is installed.

`protocol` is what rumus asks of such a library. Both have the C functions of webgpu.h, so what is
written over those (`webgpu`) serves both; `wgpu_native` and `dawn` are what differs. Nothing else
in rumus-gpu knows which one runs. It imports nothing else of rumus-gpu.
"""

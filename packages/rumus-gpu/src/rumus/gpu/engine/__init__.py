"""WebGPU libraries behind one protocol: wgpu-native, and Dawn where it is installed.

`protocol` defines the interface. Both libraries export the C functions of webgpu.h, so `webgpu`
implements most of it once; `wgpu_native` and `dawn` add the differences. The rest of rumus-gpu
does not know which engine runs, and this package imports nothing from it.
"""

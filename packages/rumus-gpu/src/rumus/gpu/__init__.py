"""The GPU backend of rumus: Vulkan, Metal and DX12 through wgpu."""

__version__ = "0.1.0"

__all__: list[str] = []

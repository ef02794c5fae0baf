# The part of wgpu that rumus.gpu uses. wgpu itself ships no types.
from collections.abc import Mapping, Sequence
from typing import Any

class GPUError(Exception): ...
class GPUValidationError(GPUError): ...

class BufferUsage:
    MAP_READ: int
    COPY_SRC: int
    COPY_DST: int
    UNIFORM: int
    STORAGE: int
    QUERY_RESOLVE: int

class ShaderStage:
    COMPUTE: int

class GPUBuffer:
    _internal: Any
    size: int
    def destroy(self) -> None: ...

class GPUBindGroupLayout:
    _internal: Any

class GPUPipelineLayout:
    _internal: Any

class GPUShaderModule:
    _internal: Any

class GPUComputePipeline:
    _internal: Any

class GPUQuerySet:
    _internal: Any

class GPUQueue:
    _internal: Any
    def write_buffer(
        self,
        buffer: GPUBuffer,
        buffer_offset: int,
        data: Any,
        data_offset: int = 0,
        size: int | None = None,
    ) -> None: ...

class GPUDevice:
    _internal: Any
    queue: GPUQueue
    features: set[str]
    limits: Mapping[str, int]
    def create_buffer(
        self, *, label: str = "", size: int, usage: int, mapped_at_creation: bool = False
    ) -> GPUBuffer: ...
    def create_bind_group_layout(
        self, *, label: str = "", entries: Sequence[Mapping[str, object]]
    ) -> GPUBindGroupLayout: ...
    def create_pipeline_layout(
        self,
        *,
        label: str = "",
        bind_group_layouts: Sequence[GPUBindGroupLayout],
        immediate_size: int = 0,
    ) -> GPUPipelineLayout: ...
    def create_shader_module(self, *, label: str = "", code: str) -> GPUShaderModule: ...
    def create_compute_pipeline(
        self, *, label: str = "", layout: GPUPipelineLayout, compute: Mapping[str, object]
    ) -> GPUComputePipeline: ...
    def create_query_set(self, *, label: str = "", type: str, count: int) -> GPUQuerySet: ...
    def destroy(self) -> None: ...

class GPUAdapter:
    info: Mapping[str, object]
    features: set[str]
    limits: Mapping[str, int]
    def request_device_sync(
        self,
        *,
        label: str = "",
        required_features: Sequence[str] = ...,
        required_limits: Mapping[str, int] | None = None,
    ) -> GPUDevice: ...

class GPU:
    def enumerate_adapters_sync(self) -> list[GPUAdapter]: ...

gpu: GPU

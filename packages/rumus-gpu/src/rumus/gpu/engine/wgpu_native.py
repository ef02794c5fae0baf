"""wgpu-native through wgpu-py: the engine that is always installed.

Call no C functions beyond those used here and in `webgpu`: some of wgpu-native's are unimplemented
and abort the process.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Final

import wgpu
from wgpu.backends.wgpu_native import _api, extras

from rumus.gpu.engine import protocol
from rumus.gpu.engine.errors import GpuError
from rumus.gpu.engine.protocol import KINDS, EngineName, MatrixUnit, Usage
from rumus.gpu.engine.vulkan import device_uuids
from rumus.gpu.engine.webgpu import (
    INTERFACES,
    Buffer,
    Calls,
    Layout,
    Owned,
    QuerySet,
    Recorder,
    WebGpuDevice,
    lost,
    raising,
)
from rumus.tensor.memory.uninterrupted import Uninterrupted

_CALLS: Final = Calls(_api.lib, _api.libf, _api.ffi, wgpu.GPUError)
# Ours -> wgpu-native's. Adapters also list cooperative-matrix, but no device opens with it.
_FEATURES: Final = {
    "shader-f16": "shader-f16",
    "subgroups": "subgroup",
    "immediates": "immediates",
    "timestamp-query": "timestamp-query",
    "visible-buffers": "mappable-primary-buffers",
}
_EXTRAS: Final = ("subgroup-barrier", "timestamp-query-inside-passes")  # requested if present
_raising = raising(wgpu.GPUError)


@cache
def adapters() -> Sequence[WgpuAdapter]:
    """Return the GPUs that wgpu-native sees, except through OpenGL."""
    # No flags: they would validate indirect calls, which rumus never makes. If other code in this
    # process has already started wgpu, this raises, and that code's settings will do.
    with suppress(RuntimeError):
        extras.set_instance_extras(INTERFACES, ["Empty"])
    listed = [a for a in wgpu.gpu.enumerate_adapters_sync() if a.info["backend_type"] != "OpenGL"]
    uuids = device_uuids() if any(a.info["backend_type"] == "Vulkan" for a in listed) else {}
    seen = Counter[str]()
    found = []
    for adapter in listed:
        name = str(adapter.info["device"])
        known = uuids.get(name, ()) if adapter.info["backend_type"] == "Vulkan" else ()
        uuid = known[seen[name]] if seen[name] < len(known) else ""
        seen[name] += 1
        found.append(WgpuAdapter(adapter, uuid))
    return found


class WgpuAdapter:
    """One GPU as wgpu-native sees it."""

    engine: EngineName = "wgpu"
    matrix_units: tuple[MatrixUnit, ...] = ()

    def __init__(self, adapter: wgpu.GPUAdapter, uuid: str) -> None:
        info = adapter.info
        self._adapter = adapter
        self.name = str(info["device"])
        kind = str(info["adapter_type"])
        self.kind = kind if kind in KINDS else "Unknown"
        self.interface = str(info["backend_type"])
        self.driver = str(info["description"])
        self.uuid = uuid
        self.features = frozenset(
            ours for ours, theirs in _FEATURES.items() if theirs in adapter.features
        )

    def open(self, trusted: bool) -> WgpuDevice:
        """Return a device with every supported feature. `trusted` is set per kernel instead."""
        wanted = [_FEATURES[name] for name in self.features]
        wanted += [name for name in _EXTRAS if name in self._adapter.features]
        device = self._adapter.request_device_sync(required_features=wanted, required_limits={})
        return WgpuDevice(device, self.features)


def _release_nothing() -> None:
    """Disable the finalizers of wgpu's objects, which call into its library."""
    for kind in vars(import_module("wgpu._classes")).values():
        if isinstance(kind, type) and "__del__" in vars(kind):
            kind.__del__ = lambda _: None  # type: ignore[attr-defined]


class WgpuDevice(WebGpuDevice):
    """A device of wgpu-native."""

    def __init__(self, device: wgpu.GPUDevice, features: frozenset[str]) -> None:
        super().__init__(_CALLS, device, features)
        self._queue = device.queue
        self.is_destroyed = False
        self.tick = float(_api.lib.wgpuQueueGetTimestampPeriod(device.queue._internal))

    def abandon(self) -> None:
        """Never release anything; see `Device.abandon`."""
        super().abandon()
        _release_nothing()

    @property
    def host_alignment(self) -> int:
        """0: wgpu-native has no buffers over host memory."""
        return 0

    def host_buffer(self, memory: memoryview, usage: Usage) -> Buffer | None:
        """None: wgpu-native has no buffers over host memory."""
        return None

    @_raising
    def visible_buffer(self, size: int, usage: Usage) -> Buffer | None:
        """Return a new buffer; being mappable places it in host-visible memory."""
        if "visible-buffers" not in self.features:
            return None
        return self._make_buffer(size, usage | Usage.MAP_READ)

    @_raising
    def buffer(self, size: int, usage: Usage) -> Buffer:
        """Return a new buffer."""
        return self._make_buffer(size, usage)

    @_raising
    def layout(self, access: str, uniform: bool, immediates: int) -> Layout:
        """Return a layout of storage buffers."""
        return self._make_layout(access, uniform, immediates)

    def preamble(self, features: Sequence[str]) -> str:
        """Return no directives: naga enables subgroups without one, and rejects it."""
        return ""

    @_raising
    def pipeline(self, name: str, text: str, layout: protocol.Layout, trusted: bool) -> Owned:
        """Compile WGSL with the entry point `main`."""
        if trusted and hasattr(_api.lib, "wgpuDeviceCreateShaderModuleTrusted"):
            module = _trusted_module(self.library_device, name, text)
        else:
            module = self.library_device.create_shader_module(label=name, code=text)
        return self._make_pipeline(name, module, layout)

    @_raising
    def queries(self, count: int) -> QuerySet:
        """Return a query set for `count` timestamps."""
        return self._make_queries(count)

    @_raising
    def submit(self, recorder: protocol.Recorder) -> int:
        """Submit recorded commands and pending writes; return the submission's number."""
        assert isinstance(recorder, Recorder)
        try:
            commands = recorder.finish()
            if commands is None:
                return self._submit(0, self.null)
            index = self._submit(1, _api.ffi.new("WGPUCommandBuffer[1]", [commands]))
        except wgpu.GPUError:
            # After a device loss, this error only calls an object invalid; a new buffer raises the
            # real cause.
            self._make_buffer(4, Usage.COPY_DST).destroy()
            raise
        _api.lib.wgpuCommandBufferRelease(commands)
        return index

    def _submit(self, count: int, commands: protocol.Handle) -> int:
        return int(_api.libf.wgpuQueueSubmitForIndex(self._queue._internal, count, commands))

    def poll(self, wait: bool = False, index: int | None = None) -> bool:
        """Process completed work; return whether everything is done."""
        wanted = self.null if index is None else _api.ffi.new("WGPUSubmissionIndex *", index)
        with Uninterrupted():  # what a handler raised in a callback would be lost, and the answer
            return bool(_api.lib.wgpuDevicePoll(self.library_device._internal, wait, wanted))

    @_raising
    def write(self, buffer: protocol.Buffer, data: Any) -> None:
        """Copy `data` to the start of `buffer`, ahead of all commands not yet submitted."""
        memory = _api.ffi.from_buffer(data)
        write = _api.libf.wgpuQueueWriteBuffer
        write(self._queue._internal, buffer.handle, 0, memory, memoryview(data).nbytes)

    def map(self, buffer: protocol.Buffer, size: int, *, write: bool = False) -> _Mapped:
        """Start mapping the first `size` bytes of a staging buffer."""
        return _Mapped(self, buffer, size, write)

    def destroy(self) -> None:
        """Destroy the device."""
        self.is_destroyed = True
        self.library_device.destroy()


def _trusted_module(device: wgpu.GPUDevice, label: str, text: str) -> Any:
    """A module without the run-time checks that rumus's kernels do not need."""
    ffi, raw = _api.ffi, text.encode()
    characters = ffi.new("char[]", raw)  # must live until the call returns
    source = ffi.new("WGPUShaderSourceWGSL *")
    source.code.data, source.code.length = characters, len(raw)
    source.chain.sType = _api.lib.WGPUSType_ShaderSourceWGSL
    descriptor = ffi.new("WGPUShaderModuleDescriptor *")
    descriptor.nextInChain = ffi.cast("WGPUChainedStruct *", source)
    handle = _api.libf.wgpuDeviceCreateShaderModuleTrusted(device._internal, descriptor, 0)
    return _api.GPUShaderModule(label, handle, device)


_requests = itertools.count(1)
_answers: dict[int, int] = {}  # request number -> status, set by the callback


@_api.ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")  # type: ignore[untyped-decorator]
def _on_mapped(status: int, message: Any, request: Any, _: Any) -> None:
    _answers[int(_api.ffi.cast("intptr_t", request))] = int(status)


class _Mapped:
    """A buffer being mapped.

    wgpuBufferGetMapState aborts the process, so the callback records the status.
    """

    def __init__(self, device: WgpuDevice, buffer: protocol.Buffer, size: int, write: bool) -> None:
        lib, ffi = _api.lib, _api.ffi
        self._device, self._buffer, self._size, self._write = device, buffer, size, write
        self._request = next(_requests)
        info = ffi.new("WGPUBufferMapCallbackInfo *")
        info.mode = lib.WGPUCallbackMode_AllowProcessEvents
        info.callback = _on_mapped
        info.userdata1 = ffi.cast("void *", self._request)
        mode = lib.WGPUMapMode_Write if write else lib.WGPUMapMode_Read
        lib.wgpuBufferMapAsync(buffer.handle, mode, 0, size, info[0])

    def is_ready(self) -> bool:
        """Whether the callback has run."""
        return self._request in _answers

    def memory(self) -> memoryview:
        """Return the bytes. Raises GpuError if mapping failed."""
        status = _answers.pop(self._request, None)
        if status != _api.lib.WGPUMapAsyncStatus_Success:
            raise GpuError(f"reading from the GPU failed (status {status}); the device may be lost")
        if self._device.is_destroyed:  # so are its buffers, and using one aborts the process
            raise lost("it was destroyed while its memory was being read")
        return self._device._mapped_memory(self._buffer.handle, self._size, self._write)

    def close(self) -> None:
        """Unmap the buffer."""
        if not self._device.is_destroyed:
            _api.lib.wgpuBufferUnmap(self._buffer.handle)

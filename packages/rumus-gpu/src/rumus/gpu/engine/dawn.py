"""Google's Dawn through wgpudawn: matrix units, and memory that the host and the device share.

wgpudawn is an optional dependency, so `engines` imports this module only if it is installed. Two
mistakes would abort the process: a NULL callback, which Dawn calls anyway, and waiting for another
instance's future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Final

from rumus.gpu.engine import protocol
from rumus.gpu.engine.errors import EngineError, GpuError
from rumus.gpu.engine.protocol import KINDS, EngineName, MatrixUnit, Usage
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

_wgpudawn: Any = import_module("wgpudawn")  # it ships no types
_api: Any = import_module("wgpudawn.backends.dawn._api")
_extras: Any = import_module("wgpudawn.backends.dawn.extras")
_CALLS: Final = Calls(_api.lib, _api.libf, _api.ffi, _wgpudawn.GPUError)
# The first enables experimental features, the second 16-bit floats on NVIDIA GPUs.
_TOGGLES: Final = ("allow_unsafe_apis", "vulkan_enable_f16_on_nvidia")
# Run-time checks and zero-initialization that rumus's kernels do not need.
_TRUSTED_ON: Final = ("disable_robustness", "disable_workgroup_init")
_TRUSTED_OFF: Final = ("enable_spirv_validation", "lazy_clear_resource_on_first_use")
# Rumus validates its own calls. WebGPU also rejects overlapping writable bindings of one buffer,
# and a binding here always extends to the end of its arena, however little of it a kernel uses.
_ON: Final = ("skip_validation",)
_OFF: Final = ("timestamp_quantization",)  # to 0.1 ms
_FEATURES: Final = {  # ours -> Dawn's
    "shader-f16": "shader-f16",
    "subgroups": "subgroups",
    "timestamp-query": "timestamp-query",
    "matrix-units": "chromium-experimental-subgroup-matrix",
    "host-memory": "host-mapped-pointer",
}
# Python frees bind groups and buffers on any thread.
_ALSO: Final = ("implicit-device-synchronization",)
_PREAMBLE: Final = {
    "subgroups": "enable subgroups;\n",
    "matrix-units": "enable chromium_experimental_subgroup_matrix;\n"
    "diagnostic(off, chromium.subgroup_matrix_uniformity);\n",
}
_FOREVER: Final = 2**63 - 1  # ns
_raising = raising(_wgpudawn.GPUError)


@cache
def adapters() -> Sequence[DawnAdapter]:
    """Return the GPUs that Dawn sees, including identical ones, which wgpudawn's own list omits."""
    with suppress(RuntimeError):  # other code in this process has already started Dawn
        _extras.set_instance_extras(INTERFACES, enable_toggles=_TOGGLES)
    listed = enumerate(_wgpudawn.gpu._enumerate_all_adapters())
    known = ("Vulkan", "Metal", "D3D12")
    return [DawnAdapter(a, place) for place, a in listed if a.info["backend_type"] in known]


class DawnAdapter:
    """One GPU as Dawn sees it."""

    engine: EngineName = "dawn"

    def __init__(self, adapter: Any, place: int) -> None:
        info: Mapping[str, Any] = adapter.info
        properties: Mapping[str, Any] = _extras.get_adapter_properties(adapter)
        self._adapter = adapter
        self._place = place  # in the library's list
        self._is_used = False
        self.name = str(info["device"])
        self.kind = str(info["adapter_type"]) if info["adapter_type"] in KINDS else "Unknown"
        self.interface = str(info["backend_type"])
        self.driver = str(info["description"])
        self.uuid = bytes(properties.get("vulkan_uuids", {}).get("device_uuid", b"")).hex()
        units = properties.get("subgroup_matrix_configs", ())
        self.matrix_units = tuple(_matrix_unit(unit) for unit in units)
        found = {ours for ours, theirs in _FEATURES.items() if theirs in adapter.features}
        if not self.matrix_units:
            found.discard("matrix-units")
        if adapter.limits["max-immediate-size"]:
            found.add("immediates")
        self.features = frozenset(found)

    def open(self, trusted: bool) -> DawnDevice:
        """Return a device with every supported feature."""
        wanted = [_FEATURES[name] for name in self.features if name in _FEATURES]
        wanted += [name for name in _ALSO if name in self._adapter.features]
        if self._is_used:  # an adapter can open only one device
            self._adapter = _wgpudawn.gpu._enumerate_all_adapters()[self._place]
        self._is_used = True
        device = _extras.request_device_sync(
            self._adapter,
            required_features=wanted,
            required_limits={},
            enable_toggles=(*_ON, *(_TRUSTED_ON if trusted else ())),
            disable_toggles=(*_OFF, *(_TRUSTED_OFF if trusted else ())),
        )
        return DawnDevice(device, self.features)


def _matrix_unit(found: Mapping[str, Any]) -> MatrixUnit:
    subgroup = int(found["min_subgroup_size"]), int(found["max_subgroup_size"])
    operands, result = str(found["component_type"]), str(found["result_component_type"])
    return MatrixUnit(found["m"], found["n"], found["k"], operands, result, subgroup)


class DawnDevice(WebGpuDevice):
    """A device of Dawn.

    Dawn silently accepts calls to a lost device, so each method checks first.
    """

    tick = 1.0  # Dawn's timestamps are in nanoseconds

    def __init__(self, device: Any, features: frozenset[str]) -> None:
        super().__init__(_CALLS, device, features)
        self._queue = device.queue
        self._instance = _api.get_wgpu_instance()
        self._gone: Any = device._lost_promise
        self._last = 0  # the future of the newest submission
        has_host_memory = "host-memory" in features
        self._alignment = _extras.get_host_memory_alignment(device) if has_host_memory else 0
        self._done = _api.ffi.new("WGPUQueueWorkDoneCallbackInfo *")
        self._done.mode = _api.lib.WGPUCallbackMode_WaitAnyOnly
        # Dawn would call NULL. wgpudawn's callback does nothing if its userdata is 0, as here.
        self._done.callback = _api.lib._wgpu_dawn_WGPUQueueWorkDoneCallback

    def _check(self) -> None:
        """Raise DeviceLostError if the device is gone."""
        if self._gone._state != "pending":
            raise lost(f"Dawn: {getattr(self._gone._value, 'message', 'the device was lost')}")

    @property
    def host_alignment(self) -> int:
        """The required alignment of `host_buffer`'s memory, in bytes."""
        return int(self._alignment)

    @_raising
    def host_buffer(self, memory: memoryview, usage: Usage) -> Buffer | None:
        """Return a buffer over host memory; None if the driver refuses it."""
        self._check()
        if not self._alignment:
            return None
        try:
            owner = _extras.create_buffer_from_host_memory(
                self.library_device, memory, usage=int(usage)
            )
        except (_wgpudawn.GPUError, ValueError):
            return None
        return Buffer(owner, memory.nbytes)

    def visible_buffer(self, size: int, usage: Usage) -> Buffer | None:
        """None: Dawn has `host_buffer` for this."""
        return None

    @_raising
    def buffer(self, size: int, usage: Usage) -> Buffer:
        """Return a new buffer."""
        self._check()
        return self._make_buffer(size, usage)

    @_raising
    def layout(self, access: str, uniform: bool, immediates: int) -> Layout:
        """Return a layout of storage buffers."""
        self._check()
        return self._make_layout(access, uniform, immediates)

    def preamble(self, features: Sequence[str]) -> str:
        """Return the directives for these features."""
        return "".join(_PREAMBLE.get(feature, "") for feature in features)

    @_raising
    def pipeline(self, name: str, text: str, layout: protocol.Layout, trusted: bool) -> Owned:
        """Compile WGSL with the entry point `main`. `trusted` has no effect: see `open`."""
        self._check()
        module = self.library_device.create_shader_module(label=name, code=text)
        return self._make_pipeline(name, module, layout)

    @_raising
    def queries(self, count: int) -> QuerySet:
        """Return a query set for `count` timestamps."""
        self._check()
        return self._make_queries(count)

    @_raising
    def submit(self, recorder: protocol.Recorder) -> int:
        """Submit recorded commands and pending writes; return the submission's number."""
        assert isinstance(recorder, Recorder)
        self._check()
        commands, queue = recorder.finish(), self._queue._internal
        if commands is None:
            _api.libf.wgpuQueueSubmit(queue, 0, self.null)
        else:
            array = _api.ffi.new("WGPUCommandBuffer[1]", [commands])
            try:
                _api.libf.wgpuQueueSubmit(queue, 1, array)
            finally:
                _api.lib.wgpuCommandBufferRelease(commands)
        self._last = int(_api.lib.wgpuQueueOnSubmittedWorkDone(queue, self._done[0]).id)
        return self._last

    def poll(self, wait: bool = False, index: int | None = None) -> bool:
        """Process completed work; return whether submission `index`, or everything, is done."""
        wanted = index or self._last
        is_done = not wanted or self._is_done(wanted, _FOREVER if wait else 0)
        _api.lib.wgpuInstanceProcessEvents(self._instance)
        if wait:
            self._check()
        return is_done

    def _is_done(self, future: int, nanoseconds: int) -> bool:
        """Whether a future is complete within this time."""
        info = _api.ffi.new("WGPUFutureWaitInfo *")
        info.future.id = future
        status = _api.lib.wgpuInstanceWaitAny(self._instance, 1, info, nanoseconds)
        return bool(status == _api.lib.WGPUWaitStatus_Success)

    @_raising
    def write(self, buffer: protocol.Buffer, data: Any) -> None:
        """Copy `data` to the start of `buffer`, ahead of all commands not yet submitted."""
        self._check()
        memory, size = _api.ffi.from_buffer(data), memoryview(data).nbytes
        _api.libf.wgpuQueueWriteBuffer(self._queue._internal, buffer.handle, 0, memory, size)

    @_raising
    def map(self, buffer: protocol.Buffer, size: int, *, write: bool = False) -> _Mapped:
        """Start mapping the first `size` bytes of a staging buffer."""
        self._check()
        return _Mapped(self, buffer, size, write)

    def destroy(self) -> None:
        """Destroy the device."""
        self.library_device.destroy()
        _api.lib.wgpuInstanceProcessEvents(self._instance)


class _Mapped:
    """A buffer being mapped."""

    def __init__(self, device: DawnDevice, buffer: protocol.Buffer, size: int, write: bool) -> None:
        lib, ffi = _api.lib, _api.ffi
        self._device, self._buffer, self._size, self._write = device, buffer, size, write
        info = ffi.new("WGPUBufferMapCallbackInfo *")
        info.mode = lib.WGPUCallbackMode_WaitAnyOnly
        info.callback = lib._wgpu_dawn_WGPUBufferMapCallback  # Dawn would call NULL
        mode = lib.WGPUMapMode_Write if write else lib.WGPUMapMode_Read
        map_async = _api.libf.wgpuBufferMapAsync
        self._future = int(map_async(buffer.handle, mode, 0, size, info[0]).id)

    def is_ready(self) -> bool:
        """Whether mapping has finished."""
        return self._device._is_done(self._future, 0)

    def memory(self) -> memoryview:
        """Return the bytes. Raises GpuError if mapping failed."""
        self._device._is_done(self._future, _FOREVER)
        state = _api.lib.wgpuBufferGetMapState(self._buffer.handle)
        if state != _api.lib.WGPUBufferMapState_Mapped:
            self._device.poll()
            self._device._check()
            raise GpuError("reading from the GPU failed: the buffer could not be mapped")
        return self._device._mapped_memory(self._buffer.handle, self._size, self._write)

    def close(self) -> None:
        """Unmap the buffer, canceling a mapping still under way."""
        _api.lib.wgpuBufferUnmap(self._buffer.handle)


def compiles(text: str) -> str:
    """Return Tint's errors for a kernel, or "" if it compiles; needs no driver.

    Dawn's null device runs nothing but still compiles.
    """
    device = _null_device()
    try:
        device.create_shader_module(code=text)
    except _wgpudawn.GPUError as error:
        return str(error)
    return ""


@cache
def _null_device() -> Any:
    adapters()  # starts Dawn with the toggles that the features need
    listed = _wgpudawn.gpu._enumerate_all_adapters()
    adapter = next((each for each in listed if each.info["backend_type"] == "Null"), None)
    if adapter is None:
        raise EngineError("this build of Dawn has no null device to compile with")
    features = [name for name in _FEATURES.values() if name in adapter.features]
    return adapter.request_device_sync(required_features=features, required_limits={})

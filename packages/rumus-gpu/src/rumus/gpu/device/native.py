"""The hot path, below wgpu's Python classes: recording, submitting and reading through cffi.

wgpu's objects stay the owners of everything; only what happens thousands of times a second goes
around them. The functions called here are all there are: others of the library are unimplemented
and end the process. What they are given was checked before, by whoever calls this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

import wgpu
from wgpu.backends.wgpu_native import _api

from rumus.gpu.device.errors import DeviceLostError, GpuError

P = ParamSpec("P")
R = TypeVar("R")
Handle = Any  # a pointer of the native library
# One prepared dispatch: pipeline (None: that of the dispatch before), bind group, dynamic offsets
# and their count, immediates and their size, and the grid.
Command: TypeAlias = "tuple[Handle | None, Handle, Handle, int, Handle, int, int, int]"

lib, libf, ffi = _api.lib, _api.libf, _api.ffi  # libf raises what lib only logs
NULL: Final = ffi.NULL

_create_bind_group = lib.wgpuDeviceCreateBindGroup
_release_bind_group = lib.wgpuBindGroupRelease
_set_pipeline = lib.wgpuComputePassEncoderSetPipeline
_set_bind_group = lib.wgpuComputePassEncoderSetBindGroup
_set_immediates = lib.wgpuComputePassEncoderSetImmediates
_dispatch = lib.wgpuComputePassEncoderDispatchWorkgroups
_pass_descriptor = ffi.new("WGPUComputePassDescriptor *")


def has_trusted_modules() -> bool:
    """Whether modules can be made without the run-time checks that rumus's kernels do not need."""
    return hasattr(lib, "wgpuDeviceCreateShaderModuleTrusted")


def shader_module(device: wgpu.GPUDevice, label: str, text: str, trusted: bool) -> Any:
    """Return a shader module; GPUValidationError if the text does not compile."""
    if not (trusted and has_trusted_modules()):
        return device.create_shader_module(label=label, code=text)
    raw = text.encode()
    characters = ffi.new("char[]", raw)  # must live until the call returns
    source = ffi.new("WGPUShaderSourceWGSL *")
    source.code.data, source.code.length = characters, len(raw)
    source.chain.sType = lib.WGPUSType_ShaderSourceWGSL
    descriptor = ffi.new("WGPUShaderModuleDescriptor *")
    descriptor.nextInChain = ffi.cast("WGPUChainedStruct *", source)
    handle = libf.wgpuDeviceCreateShaderModuleTrusted(device._internal, descriptor, 0)
    return _api.GPUShaderModule(label, handle, device)


def lost_device_said(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function turn the error of a device that is gone into a DeviceLostError."""

    @wraps(function)
    def said(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        except wgpu.GPUError as error:
            if "lost" not in str(error):
                raise
            reason = " ".join(str(error).split())
            raise DeviceLostError(
                f"the GPU is lost: its driver reset it, or it was unplugged ({reason}). Start the "
                "process again from the last checkpoint; what is on disk is intact"
            ) from None

    return said


class BindGroups:
    """Makes bind groups of one layout from a structure that is filled in anew each time."""

    __slots__ = ("_descriptor", "_device", "_entries", "_layout")

    def __init__(self, device: wgpu.GPUDevice, layout: wgpu.GPUBindGroupLayout, count: int) -> None:
        self._device = device._internal
        self._layout = layout  # kept alive: a handle of what is gone ends the process
        self._entries = ffi.new("WGPUBindGroupEntry[]", count)
        for number in range(count):
            self._entries[number].binding = number
        self._descriptor = ffi.new("WGPUBindGroupDescriptor *")
        self._descriptor.layout = layout._internal
        self._descriptor.entryCount = count
        self._descriptor.entries = self._entries

    def bind(self, number: int, buffer: Handle, offset: int, size: int) -> None:
        """Say what entry `number` of the next bind group is."""
        entry = self._entries[number]
        entry.buffer = buffer
        entry.offset = offset
        entry.size = size

    def make(self) -> Handle:
        """Return a new bind group; whoever gets it must `release` it."""
        return _create_bind_group(self._device, self._descriptor)


def release(group: Handle) -> None:
    """Give up a bind group; commands that were recorded with it keep it alive."""
    _release_bind_group(group)


class TimedPass:
    """How to begin a pass that writes the timestamps `first` and `first` + 1 of a set."""

    __slots__ = ("_queries", "_writes", "descriptor")

    def __init__(self, queries: wgpu.GPUQuerySet, first: int) -> None:
        self._queries = queries  # kept alive
        self._writes = ffi.new("WGPUPassTimestampWrites *")
        self._writes.querySet = queries._internal
        self._writes.beginningOfPassWriteIndex = first
        self._writes.endOfPassWriteIndex = first + 1
        self.descriptor = ffi.new("WGPUComputePassDescriptor *")
        self.descriptor.timestampWrites = self._writes


def timestamp_period(queue: wgpu.GPUQueue) -> float:
    """Return the nanoseconds of one tick of the device's clock."""
    return float(lib.wgpuQueueGetTimestampPeriod(queue._internal))


class Recorder:
    """One command encoder with at most one open compute pass.

    What is wrong with a command is said when the encoder is finished.
    """

    __slots__ = ("_encoder", "_pass", "_pipeline", "commands", "device")

    def __init__(self, device: wgpu.GPUDevice) -> None:
        self.device = device
        self._encoder: Handle = None
        self._pass: Handle = None
        self._pipeline: Handle = None
        self.commands = 0

    def _open(self) -> Handle:
        if self._encoder is None:
            self._encoder = libf.wgpuDeviceCreateCommandEncoder(self.device._internal, NULL)
        self._pass = lib.wgpuCommandEncoderBeginComputePass(self._encoder, _pass_descriptor)
        self._pipeline = None
        return self._pass

    def dispatch(
        self,
        pipeline: Handle,
        group: Handle,
        immediates: bytes,
        grid: tuple[int, int],
        offset: int = -1,
    ) -> None:
        """Record one dispatch. `offset`: of the scalars in a uniform buffer, -1 for immediates."""
        encoder = self._pass or self._open()
        if pipeline is not self._pipeline:
            _set_pipeline(encoder, pipeline)
            self._pipeline = pipeline
        if offset < 0:
            _set_bind_group(encoder, 0, group, 0, NULL)
            if immediates:
                _set_immediates(encoder, 0, ffi.from_buffer(immediates), len(immediates))
        else:
            _set_bind_group(encoder, 0, group, 1, ffi.new("uint32_t[1]", [offset]))
        _dispatch(encoder, grid[0], grid[1], 1)
        self.commands += 1

    def replay(self, commands: Sequence[Command]) -> None:
        """Record dispatches that were prepared: see `Command`."""
        encoder = self._pass or self._open()
        set_pipeline, set_group = _set_pipeline, _set_bind_group
        set_immediates, dispatch = _set_immediates, _dispatch
        for pipeline, group, offsets, count, scalars, size, x, y in commands:
            if pipeline is not None:
                set_pipeline(encoder, pipeline)
            set_group(encoder, 0, group, count, offsets)
            if size:
                set_immediates(encoder, 0, scalars, size)
            dispatch(encoder, x, y, 1)
        self._pipeline = None
        self.commands += len(commands)

    def open_timed(self, timed: TimedPass) -> None:
        """Open a pass that writes timestamps; `close_pass` ends it."""
        self.close_pass()
        if self._encoder is None:
            self._encoder = libf.wgpuDeviceCreateCommandEncoder(self.device._internal, NULL)
        self._pass = lib.wgpuCommandEncoderBeginComputePass(self._encoder, timed.descriptor)
        self._pipeline = None

    def resolve(
        self,
        queries: wgpu.GPUQuerySet,
        count: int,
        resolved: wgpu.GPUBuffer,
        staging: wgpu.GPUBuffer,
    ) -> None:
        """Record that `count` timestamps become readable in `staging`."""
        self.close_pass()
        encoder, buffer = self._encoder, resolved._internal
        lib.wgpuCommandEncoderResolveQuerySet(encoder, queries._internal, 0, count, buffer, 0)
        self.copy(buffer, 0, staging._internal, 0, 8 * count)

    def copy(self, source: Handle, start: int, target: Handle, at: int, size: int) -> None:
        """Record a copy of `size` bytes between two buffers; all numbers multiples of 4."""
        if self._pass is not None:
            self.close_pass()
        if self._encoder is None:
            self._encoder = libf.wgpuDeviceCreateCommandEncoder(self.device._internal, NULL)
        lib.wgpuCommandEncoderCopyBufferToBuffer(self._encoder, source, start, target, at, size)
        self.commands += 1

    def close_pass(self) -> None:
        """End the open pass, if there is one."""
        if self._pass is not None:
            open_pass, self._pass = self._pass, None
            lib.wgpuComputePassEncoderEnd(open_pass)
            lib.wgpuComputePassEncoderRelease(open_pass)

    def submit(self, queue: wgpu.GPUQueue) -> int:
        """Submit what was recorded, and what was written to the queue; return its number."""
        self.close_pass()
        self.commands = 0
        if self._encoder is None:
            return int(libf.wgpuQueueSubmitForIndex(queue._internal, 0, NULL))
        encoder, self._encoder = self._encoder, None
        try:
            commands = libf.wgpuCommandEncoderFinish(encoder, NULL)
        finally:
            lib.wgpuCommandEncoderRelease(encoder)
        array = ffi.new("WGPUCommandBuffer[1]", [commands])
        index = int(libf.wgpuQueueSubmitForIndex(queue._internal, 1, array))
        lib.wgpuCommandBufferRelease(commands)
        return index


def poll(device: wgpu.GPUDevice, wait: bool = False, index: int | None = None) -> bool:
    """Let finished work be noticed; with `wait`, until submission `index`, or everything, is done.

    Return whether the device has nothing left to do. The interpreter lock is free meanwhile.
    """
    wanted = NULL if index is None else ffi.new("WGPUSubmissionIndex *", index)
    return bool(lib.wgpuDevicePoll(device._internal, wait, wanted))


_mapped: dict[int, int] = {}  # request number -> status, set by the callback


@ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")  # type: ignore[untyped-decorator]
def _on_mapped(status: int, message: Any, request: Any, _: Any) -> None:
    _mapped[int(ffi.cast("intptr_t", request))] = int(status)


def request_map(buffer: Handle, size: int, request: int) -> None:
    """Ask for the first `size` bytes of a staging buffer; `is_mapped` says when they are there.

    request: a number that no other request in flight has.
    """
    info = ffi.new("WGPUBufferMapCallbackInfo *")
    info.mode = lib.WGPUCallbackMode_AllowProcessEvents
    info.callback = _on_mapped
    info.userdata1 = ffi.cast("void *", request)
    lib.wgpuBufferMapAsync(buffer, lib.WGPUMapMode_Read, 0, size, info[0])


def is_mapped(request: int) -> bool:
    """Whether a requested buffer can be taken, or will never be."""
    return request in _mapped


def take_mapped(buffer: Handle, size: int, request: int, into: Any) -> None:
    """Copy a mapped buffer to `into` and unmap it. GpuError if it could not be mapped."""
    status = _mapped.pop(request, None)
    if status != lib.WGPUMapAsyncStatus_Success:
        raise GpuError(f"reading from the GPU failed (status {status}); the device may be lost")
    memory = lib.wgpuBufferGetConstMappedRange(buffer, 0, size)
    ffi.memmove(into, memory, into.nbytes)
    lib.wgpuBufferUnmap(buffer)


def read_mapped(
    device: wgpu.GPUDevice, buffer: Handle, size: int, index: int, request: int, into: Any
) -> None:
    """Copy `size` bytes of a staging buffer to `into`, once submission `index` has filled it."""
    request_map(buffer, size, request)
    poll(device, True, index)
    take_mapped(buffer, size, request, into)

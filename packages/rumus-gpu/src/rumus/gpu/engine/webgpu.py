"""The part that both engines share: webgpu.h's functions, called through cffi.

The libraries' Python objects own every resource; only calls made thousands of times a second bypass
them. Callers must pass valid arguments: a wrong pointer crashes the process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from rumus.gpu.engine import protocol
from rumus.gpu.engine.errors import DeviceLostError, EngineError
from rumus.gpu.engine.protocol import Command, Handle, Usage
from rumus.tensor.memory.uninterrupted import Uninterrupted

P = ParamSpec("P")
R = TypeVar("R")

# The interfaces of this system to its GPUs that rumus uses.
INTERFACES: Final[Sequence[str]] = {"darwin": ("Metal",), "win32": ("Vulkan", "DX12")}.get(
    sys.platform, ("Vulkan",)
)


@dataclass(frozen=True, slots=True)
class Calls:
    """A library's functions. `libf` raises the errors that `lib` only logs; errors: their type."""

    lib: Any
    libf: Any
    ffi: Any
    errors: type[Exception]


def lost(reason: str) -> DeviceLostError:
    """Return the error for a lost device."""
    return DeviceLostError(
        "the GPU is lost: its driver reset it, or it was unplugged "
        f"({' '.join(reason.split())}). Restart the process from the last checkpoint; files on "
        "disk are intact"
    )


def raising(errors: type[Exception]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that turns a library's `errors` into EngineError or DeviceLostError."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def translated(*args: P.args, **options: P.kwargs) -> R:
            try:
                return function(*args, **options)
            except errors as error:
                if "lost" in str(error):
                    raise lost(str(error)) from None
                raise EngineError(str(error)) from None

        return translated

    return decorate


class Buffer:
    """A buffer owned by one of the library's objects."""

    __slots__ = ("_owner", "handle", "size")

    def __init__(self, owner: Any, size: int) -> None:
        self._owner = owner
        self.handle: Handle = owner._internal
        self.size = size

    def destroy(self) -> None:
        """Free the memory."""
        self._owner.destroy()


class Owned:
    """A handle kept alive by one of the library's objects."""

    __slots__ = ("_owner", "handle")

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self.handle: Handle = owner._internal


class BindGroups:
    """The factory of bind groups of one layout; it refills one descriptor for each."""

    __slots__ = ("_create", "_descriptor", "_device", "_entries", "_layout")

    def __init__(self, calls: Calls, device: Any, layout: Any, count: int) -> None:
        self._device = device._internal
        self._layout = layout  # kept alive: using a freed handle crashes the process
        self._create = calls.lib.wgpuDeviceCreateBindGroup
        self._entries = calls.ffi.new("WGPUBindGroupEntry[]", count)
        for number in range(count):
            self._entries[number].binding = number
        self._descriptor = calls.ffi.new("WGPUBindGroupDescriptor *")
        self._descriptor.layout = layout._internal
        self._descriptor.entryCount = count
        self._descriptor.entries = self._entries

    def bind(self, number: int, buffer: Handle, offset: int, size: int) -> None:
        """Set entry `number` of the next bind group."""
        entry = self._entries[number]
        entry.buffer = buffer
        entry.offset = offset
        entry.size = size

    def make(self) -> Handle:
        """Return a new bind group; the caller must `release` it."""
        return self._create(self._device, self._descriptor)


@dataclass(frozen=True, slots=True)
class Layout:
    """The library's pipeline layout, and the factory of its bind groups."""

    owner: Any
    groups: BindGroups


class TimedPass:
    """The descriptor of a pass that writes timestamps `first` and `first` + 1 of a query set."""

    __slots__ = ("_queries", "_writes", "descriptor")

    def __init__(self, calls: Calls, queries: Any, first: int) -> None:
        self._queries = queries  # kept alive
        self._writes = calls.ffi.new("WGPUPassTimestampWrites *")
        self._writes.querySet = queries._internal
        self._writes.beginningOfPassWriteIndex = first
        self._writes.endOfPassWriteIndex = first + 1
        self.descriptor: Handle = calls.ffi.new("WGPUComputePassDescriptor *")
        self.descriptor.timestampWrites = self._writes


class QuerySet(Owned):
    """A set of timestamp queries."""

    __slots__ = ("_calls",)

    def __init__(self, calls: Calls, owner: Any) -> None:
        super().__init__(owner)
        self._calls = calls

    def timed(self, first: int) -> TimedPass:
        """Return the descriptor of a pass that writes timestamps `first` and `first` + 1."""
        return TimedPass(self._calls, self._owner, first)


class Recorder:
    """One command encoder with at most one open compute pass.

    Errors in commands surface when the encoder is finished.
    """

    __slots__ = ("_calls", "_device", "_dispatch", "_encoder", "_from_buffer", "_null", "_pass",
                 "_pass_descriptor", "_pipeline", "_set_bind_group", "_set_immediates",
                 "_set_pipeline", "commands")  # fmt: skip

    def __init__(self, calls: Calls, device: Any) -> None:
        lib, ffi = calls.lib, calls.ffi
        self._calls = calls
        self._device = device
        self._set_pipeline = lib.wgpuComputePassEncoderSetPipeline
        self._set_bind_group = lib.wgpuComputePassEncoderSetBindGroup
        self._set_immediates = lib.wgpuComputePassEncoderSetImmediates
        self._dispatch = lib.wgpuComputePassEncoderDispatchWorkgroups
        self._from_buffer = ffi.from_buffer
        self._null = ffi.NULL
        self._pass_descriptor = ffi.new("WGPUComputePassDescriptor *")
        self._encoder: Handle = None
        self._pass: Handle = None
        self._pipeline: Handle = None
        self.commands = 0

    def _begin(self) -> Handle:
        """The command encoder, created on first use."""
        if self._encoder is None:
            create = self._calls.libf.wgpuDeviceCreateCommandEncoder
            self._encoder = create(self._device._internal, self._null)
        return self._encoder

    def _open(self, descriptor: Handle) -> Handle:
        begin = self._calls.lib.wgpuCommandEncoderBeginComputePass
        with Uninterrupted():  # an open pass that is not known would spoil all that is recorded
            self._pass = begin(self._begin(), descriptor)
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
        encoder = self._pass or self._open(self._pass_descriptor)
        if pipeline is not self._pipeline:
            self._pipeline = None  # if a signal's handler raises here, neither counts
            self._set_pipeline(encoder, pipeline)
            self._pipeline = pipeline
        if offset < 0:
            self._set_bind_group(encoder, 0, group, 0, self._null)
            if immediates:
                self._set_immediates(encoder, 0, self._from_buffer(immediates), len(immediates))
        else:
            offsets = self._calls.ffi.new("uint32_t[1]", [offset])
            self._set_bind_group(encoder, 0, group, 1, offsets)
        self._dispatch(encoder, grid[0], grid[1], 1)
        self.commands += 1

    def replay(self, commands: Sequence[Command]) -> None:
        """Record prepared dispatches; see `Command`."""
        encoder = self._pass or self._open(self._pass_descriptor)
        set_pipeline, set_group = self._set_pipeline, self._set_bind_group
        set_immediates, dispatch = self._set_immediates, self._dispatch
        self._pipeline = None
        for pipeline, group, offsets, count, scalars, size, x, y in commands:
            if pipeline is not None:
                set_pipeline(encoder, pipeline)
            set_group(encoder, 0, group, count, offsets)
            if size:
                set_immediates(encoder, 0, scalars, size)
            dispatch(encoder, x, y, 1)
        self.commands += len(commands)

    def open_timed(self, timed: protocol.TimedPass) -> None:
        """Open a pass that writes timestamps; `close_pass` ends it."""
        self.close_pass()
        self._open(timed.descriptor)

    def resolve(
        self,
        queries: protocol.QuerySet,
        count: int,
        resolved: protocol.Buffer,
        staging: protocol.Buffer,
    ) -> None:
        """Record copying `count` timestamps to `staging`, where the host can read them."""
        self.close_pass()
        resolve = self._calls.lib.wgpuCommandEncoderResolveQuerySet
        resolve(self._begin(), queries.handle, 0, count, resolved.handle, 0)
        self.copy(resolved.handle, 0, staging.handle, 0, 8 * count)

    def copy(self, source: Handle, start: int, target: Handle, at: int, size: int) -> None:
        """Record a copy of `size` bytes between two buffers; offsets and size: multiples of 4."""
        self.close_pass()
        copy = self._calls.lib.wgpuCommandEncoderCopyBufferToBuffer
        copy(self._begin(), source, start, target, at, size)
        self.commands += 1

    def close_pass(self) -> None:
        """End the open pass, if there is one."""
        if self._pass is not None:
            with Uninterrupted():
                open_pass, self._pass = self._pass, None
                self._calls.lib.wgpuComputePassEncoderEnd(open_pass)
                self._calls.lib.wgpuComputePassEncoderRelease(open_pass)

    def finish(self) -> Handle | None:
        """Return the recorded commands, which the caller must release; None if there are none."""
        self.close_pass()
        self.commands = 0
        if self._encoder is None:
            return None
        encoder, self._encoder = self._encoder, None
        try:
            return self._calls.libf.wgpuCommandEncoderFinish(encoder, self._null)
        finally:
            self._calls.lib.wgpuCommandEncoderRelease(encoder)


class WebGpuDevice:
    """The part of a device that both libraries share: creating objects, and recording."""

    def __init__(self, calls: Calls, device: Any, features: frozenset[str]) -> None:
        self.calls = calls
        self.library_device = device
        self.features = features
        self.limits: Mapping[str, int] = device.limits
        self.null: Handle = calls.ffi.NULL
        self._release = calls.lib.wgpuBindGroupRelease

    def _make_layout(self, access: str, uniform: bool, immediates: int) -> Layout:
        kinds = {"r": "read-only-storage", "w": "storage"}
        buffers: list[dict[str, object]] = [{"type": kinds[letter]} for letter in access]
        if uniform:
            buffers.append({"type": "uniform", "has_dynamic_offset": True})
        compute = 4  # WGPUShaderStage_Compute
        group = self.library_device.create_bind_group_layout(
            entries=[
                {"binding": number, "visibility": compute, "buffer": buffer}
                for number, buffer in enumerate(buffers)
            ]
        )
        owner = self.library_device.create_pipeline_layout(
            bind_group_layouts=[group], immediate_size=immediates
        )
        return Layout(owner, BindGroups(self.calls, self.library_device, group, len(buffers)))

    def _make_buffer(self, size: int, usage: Usage) -> Buffer:
        return Buffer(self.library_device.create_buffer(size=size, usage=int(usage)), size)

    def _make_pipeline(self, name: str, module: Any, layout: protocol.Layout) -> Owned:
        assert isinstance(layout, Layout)
        compute = {"module": module, "entry_point": "main"}
        return Owned(
            self.library_device.create_compute_pipeline(
                label=name, layout=layout.owner, compute=compute
            )
        )

    def _make_queries(self, count: int) -> QuerySet:
        owner = self.library_device.create_query_set(type="timestamp", count=count)
        return QuerySet(self.calls, owner)

    def recorder(self) -> Recorder:
        """Return a recorder for this device."""
        return Recorder(self.calls, self.library_device)

    def address(self, memory: bytearray) -> Handle:
        """Return a pointer to `memory`; it keeps the memory alive."""
        return self.calls.ffi.from_buffer(memory)

    def offsets(self, offset: int) -> Handle:
        """Return one dynamic offset as a `Command` takes it."""
        return self.calls.ffi.new("uint32_t[1]", [offset])

    def release(self, group: Handle) -> None:
        """Release a bind group, on any thread; commands recorded with it keep it alive."""
        self._release(group)

    def abandon(self) -> None:
        """Never release anything: this process was forked, and releasing would hang."""
        self._release = lambda _: None

    def _mapped_memory(self, buffer: Handle, size: int, write: bool) -> memoryview:
        lib, ffi = self.calls.lib, self.calls.ffi
        get = lib.wgpuBufferGetMappedRange if write else lib.wgpuBufferGetConstMappedRange
        memory = ffi.buffer(ffi.cast("char *", get(buffer, 0, size)), size)
        return memoryview(memory)

"""The interface to a WebGPU library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Final, Literal, Protocol, TypeAlias

EngineName: TypeAlias = Literal["wgpu", "dawn"]
Handle: TypeAlias = Any  # a pointer of the native library
# One prepared dispatch: pipeline (None: the previous dispatch's), bind group, dynamic offsets and
# their count, immediates and their size, and the grid.
Command: TypeAlias = "tuple[Handle | None, Handle, Handle, int, Handle, int, int, int]"

KINDS: Final = ("DiscreteGPU", "IntegratedGPU", "VirtualGPU", "CPU", "Unknown")

# Optional features of a device, under rumus's names.
Feature: TypeAlias = Literal[
    "shader-f16",  # 16-bit floats in kernels
    "subgroups",
    "immediates",  # scalars passed directly with a dispatch
    "timestamp-query",
    "matrix-units",  # small matrix products computed by a subgroup; see `MatrixUnit`
    "host-memory",  # buffers over the process's own memory
    "visible-buffers",  # host-visible buffers of any usage
]


class Usage(IntFlag):
    """The uses of a buffer, with webgpu.h's values."""

    MAP_READ = 1
    MAP_WRITE = 2
    COPY_SRC = 4
    COPY_DST = 8
    UNIFORM = 64
    STORAGE = 128
    QUERY_RESOLVE = 512


@dataclass(frozen=True, slots=True)
class MatrixUnit:
    """A product that a subgroup computes in one call: result[m, n] += left[m, k] @ right[k, n].

    operands, result: their element types, by WGSL's names (f16, f32, i8 ...).
    subgroup: the smallest and largest subgroup size that supports it.
    """

    m: int
    n: int
    k: int
    operands: str
    result: str
    subgroup: tuple[int, int]


class Buffer(Protocol):
    """Device memory, or host memory that the device can access."""

    handle: Handle
    size: int

    def destroy(self) -> None:
        """Free the memory. Do not submit commands that use it afterwards."""
        ...


class Adapter(Protocol):
    """One GPU as one engine sees it.

    kind: one of `KINDS`. interface: Vulkan, Metal or D3D12. uuid: the card's UUID from its driver,
    in hexadecimal; "" if the interface has none.
    """

    engine: EngineName
    name: str
    kind: str
    interface: str
    driver: str
    uuid: str
    features: frozenset[str]
    matrix_units: tuple[MatrixUnit, ...]

    def open(self, trusted: bool) -> Device:
        """Return a device with every supported `Feature` and the highest limits.

        trusted: compile kernels without run-time checks, if the engine can.
        """
        ...


class Pipeline(Protocol):
    """A compiled kernel."""

    handle: Handle


class BindGroups(Protocol):
    """The factory of bind groups of one layout."""

    def bind(self, number: int, buffer: Handle, offset: int, size: int) -> None:
        """Set entry `number` of the next bind group."""
        ...

    def make(self) -> Handle:
        """Return a new bind group; the caller must `release` it."""
        ...


class Layout(Protocol):
    """The bindings of a kernel, shared by all kernels with the same bindings."""

    @property
    def groups(self) -> BindGroups:
        """The factory of its bind groups."""
        ...


class TimedPass(Protocol):
    """The descriptor of a pass that writes two timestamps."""

    descriptor: Handle


class QuerySet(Protocol):
    """A set of timestamp queries."""

    handle: Handle

    def timed(self, first: int) -> TimedPass:
        """Return the descriptor of a pass that writes timestamps `first` and `first` + 1."""
        ...


class Recorder(Protocol):
    """One command encoder with at most one open compute pass."""

    commands: int

    def dispatch(
        self,
        pipeline: Handle,
        group: Handle,
        immediates: bytes,
        grid: tuple[int, int],
        offset: int = -1,
    ) -> None:
        """Record one dispatch. `offset`: of the scalars in a uniform buffer, -1 for immediates."""
        ...

    def replay(self, commands: Sequence[Command]) -> None:
        """Record prepared dispatches; see `Command`."""
        ...

    def copy(self, source: Handle, start: int, target: Handle, at: int, size: int) -> None:
        """Record a copy of `size` bytes between two buffers; offsets and size: multiples of 4."""
        ...

    def open_timed(self, timed: TimedPass) -> None:
        """Open a pass that writes timestamps; `close_pass` ends it."""
        ...

    def close_pass(self) -> None:
        """End the open pass, if there is one."""
        ...

    def resolve(self, queries: QuerySet, count: int, resolved: Buffer, staging: Buffer) -> None:
        """Record copying `count` timestamps to `staging`, where the host can read them."""
        ...


class Mapped(Protocol):
    """A request to map a buffer. Call `close` before the device uses the buffer again."""

    def is_ready(self) -> bool:
        """Whether the request has succeeded or failed. Does not wait; `Device.poll` does."""
        ...

    def memory(self) -> memoryview:
        """Return the bytes, valid until `close`. Raises GpuError if mapping failed."""
        ...

    def close(self) -> None:
        """Unmap the buffer."""
        ...


class Device(Protocol):
    """An open device with its queue.

    Every method raises DeviceLostError if the device is lost, and EngineError with the library's
    message if it rejects a call. Not thread-safe, except for `release` and `Buffer.destroy`.
    limits: by WebGPU's names. tick: nanoseconds per tick of the device's clock.
    """

    features: frozenset[str]
    limits: Mapping[str, int]
    null: Handle
    tick: float

    def buffer(self, size: int, usage: Usage) -> Buffer:
        """Return a new buffer of `size` > 0 bytes, a multiple of 4."""
        ...

    def host_buffer(self, memory: memoryview, usage: Usage) -> Buffer | None:
        """Return a buffer over host memory; None if the device does not support it.

        memory: writable; its address and size are multiples of `host_alignment`. The buffer keeps
            it alive.
        """
        ...

    @property
    def host_alignment(self) -> int:
        """The required alignment of `host_buffer`'s memory, in bytes; 0 if it is unsupported."""
        ...

    def visible_buffer(self, size: int, usage: Usage) -> Buffer | None:
        """Return a new buffer in host-visible memory; None if the engine cannot make one."""
        ...

    def layout(self, access: str, uniform: bool, immediates: int) -> Layout:
        """Return a layout of storage buffers.

        access: "r" or "w" for each buffer. uniform: add a uniform buffer of scalars with a dynamic
        offset. immediates: bytes of scalars passed directly with a dispatch.
        """
        ...

    def preamble(self, features: Sequence[str]) -> str:
        """Return the WGSL directives that a kernel with these features must start with."""
        ...

    def pipeline(self, name: str, text: str, layout: Layout, trusted: bool) -> Pipeline:
        """Compile WGSL with the entry point `main`. Raises EngineError if it does not compile."""
        ...

    def queries(self, count: int) -> QuerySet:
        """Return a query set for `count` timestamps."""
        ...

    def recorder(self) -> Recorder:
        """Return a recorder for this device."""
        ...

    def submit(self, recorder: Recorder) -> int:
        """Submit recorded commands and pending writes; return the submission's number."""
        ...

    def poll(self, wait: bool = False, index: int | None = None) -> bool:
        """Process completed work; with `wait`, block until submission `index`, or all, is done.

        Returns whether that submission, or everything, is done; an engine that cannot track single
        submissions answers for all of them. Releases the GIL while it waits.
        """
        ...

    def write(self, buffer: Buffer, data: Any) -> None:
        """Copy `data` (a multiple of 4 bytes) to the start of `buffer`.

        The copy precedes all commands not yet submitted. The caller may then change `data`.
        """
        ...

    def map(self, buffer: Buffer, size: int, *, write: bool = False) -> Mapped:
        """Start mapping the first `size` bytes of a staging buffer, for reading or writing."""
        ...

    def address(self, memory: bytearray) -> Handle:
        """Return a pointer to `memory`, for a `Command`; it keeps the memory alive."""
        ...

    def offsets(self, offset: int) -> Handle:
        """Return one dynamic offset as a `Command` takes it."""
        ...

    def release(self, group: Handle) -> None:
        """Release a bind group, on any thread; commands recorded with it keep it alive."""
        ...

    def abandon(self) -> None:
        """Never release anything: this process was forked, and releasing would hang."""
        ...

    def destroy(self) -> None:
        """Destroy the device; every later call raises DeviceLostError."""
        ...

"""What rumus asks of a WebGPU library, as types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Final, Literal, Protocol, TypeAlias

EngineName: TypeAlias = Literal["wgpu", "dawn"]
Handle: TypeAlias = Any  # a pointer of the native library
# One prepared dispatch: pipeline (None: that of the dispatch before), bind group, dynamic offsets
# and their count, immediates and their size, and the grid.
Command: TypeAlias = "tuple[Handle | None, Handle, Handle, int, Handle, int, int, int]"

KINDS: Final = ("DiscreteGPU", "IntegratedGPU", "VirtualGPU", "CPU", "Unknown")

# What a device may have, by the names of this program.
Feature: TypeAlias = Literal[
    "shader-f16",  # 16-bit floats in kernels
    "subgroups",
    "immediates",  # scalars that are part of a dispatch
    "timestamp-query",
    "matrix-units",  # products of small matrices by a subgroup, see `MatrixUnit`
    "host-memory",  # buffers over the process's own memory
    "visible-buffers",  # buffers in the host's memory, whatever they are for
]


class Usage(IntFlag):
    """What a buffer is for; the numbers are those of webgpu.h."""

    MAP_READ = 1
    MAP_WRITE = 2
    COPY_SRC = 4
    COPY_DST = 8
    UNIFORM = 64
    STORAGE = 128
    QUERY_RESOLVE = 512


@dataclass(frozen=True, slots=True)
class MatrixUnit:
    """A product that a subgroup does at once: result[m, n] += left[m, k] @ right[k, n].

    operands, result: their elements, as WGSL names them (f16, f32, i8 ...).
    subgroup: the smallest and the largest subgroup that can do it.
    """

    m: int
    n: int
    k: int
    operands: str
    result: str
    subgroup: tuple[int, int]


class Buffer(Protocol):
    """Memory of the device, or of the host where the device sees it."""

    handle: Handle
    size: int

    def destroy(self) -> None:
        """Give the memory back. Nothing that uses it may be submitted from here on."""
        ...


class Adapter(Protocol):
    """One GPU as one engine sees it.

    kind: of `KINDS`. interface: Vulkan, Metal or D3D12. uuid: the driver's own for this card, in
    hexadecimal digits; "" where the interface has none.
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
        """Return a device with all features of `Feature` that there are, and the widest limits.

        trusted: kernels are compiled without run-time checks, where the engine can.
        """
        ...


class Pipeline(Protocol):
    """A compiled kernel."""

    handle: Handle


class BindGroups(Protocol):
    """Makes bind groups of one layout."""

    def bind(self, number: int, buffer: Handle, offset: int, size: int) -> None:
        """Set entry `number` of the next bind group."""
        ...

    def make(self) -> Handle:
        """Return a new bind group; whoever gets it must `release` it."""
        ...


class Layout(Protocol):
    """The bindings of a kernel: shared by all that bind alike."""

    @property
    def groups(self) -> BindGroups:
        """What makes its bind groups."""
        ...


class TimedPass(Protocol):
    """How to begin a pass that writes two timestamps."""

    descriptor: Handle


class QuerySet(Protocol):
    """Places for timestamps."""

    handle: Handle

    def timed(self, first: int) -> TimedPass:
        """Return how to begin a pass that writes timestamps `first` and `first` + 1."""
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
        """Record dispatches that were prepared: see `Command`."""
        ...

    def copy(self, source: Handle, start: int, target: Handle, at: int, size: int) -> None:
        """Record a copy of `size` bytes between two buffers; all numbers multiples of 4."""
        ...

    def open_timed(self, timed: TimedPass) -> None:
        """Open a pass that writes timestamps; `close_pass` ends it."""
        ...

    def close_pass(self) -> None:
        """End the open pass, if there is one."""
        ...

    def resolve(self, queries: QuerySet, count: int, resolved: Buffer, staging: Buffer) -> None:
        """Record that `count` timestamps become readable in `staging`."""
        ...


class Mapped(Protocol):
    """A request to see a buffer from the host. `close` must end it before the buffer is used."""

    def is_ready(self) -> bool:
        """Whether `memory` can be had, or never will be. Does not wait; `Device.poll` does."""
        ...

    def memory(self) -> memoryview:
        """Return the bytes, valid until `close`. GpuError if they could not be mapped."""
        ...

    def close(self) -> None:
        """Let the device have the buffer back."""
        ...


class Device(Protocol):
    """An open device with its queue.

    Every method raises DeviceLostError when the device is gone, and EngineError with the library's
    own message for what it refuses. Not thread-safe, except for `release` and `Buffer.destroy`.
    limits: by WebGPU's names. tick: nanoseconds of one tick of the device's clock.
    """

    features: frozenset[str]
    limits: Mapping[str, int]
    null: Handle
    tick: float

    def buffer(self, size: int, usage: Usage) -> Buffer:
        """Return a new buffer of `size` > 0 bytes, a multiple of 4."""
        ...

    def host_buffer(self, memory: memoryview, usage: Usage) -> Buffer | None:
        """Return a buffer over the host's own memory; None where the device cannot have it.

        memory: writable; its address and size are multiples of `host_alignment`. It is kept alive.
        """
        ...

    @property
    def host_alignment(self) -> int:
        """Of the memory of `host_buffer`, in bytes; 0 where there is no such memory."""
        ...

    def visible_buffer(self, size: int, usage: Usage) -> Buffer | None:
        """Return a new buffer in memory that the host sees; None where there is none such."""
        ...

    def layout(self, access: str, uniform: bool, immediates: int) -> Layout:
        """Return a layout of storage buffers.

        access: for each "r" or "w". uniform: one more, of scalars, with a dynamic offset.
        immediates: the bytes of scalars that a dispatch brings along.
        """
        ...

    def preamble(self, features: Sequence[str]) -> str:
        """Return the WGSL that must stand in front of a kernel which uses these features."""
        ...

    def pipeline(self, name: str, text: str, layout: Layout, trusted: bool) -> Pipeline:
        """Compile WGSL with the entry point `main`. EngineError if it does not compile."""
        ...

    def queries(self, count: int) -> QuerySet:
        """Return places for `count` timestamps."""
        ...

    def recorder(self) -> Recorder:
        """Return a recorder for this device."""
        ...

    def submit(self, recorder: Recorder) -> int:
        """Submit what was recorded, and what was written; return the submission's number."""
        ...

    def poll(self, wait: bool = False, index: int | None = None) -> bool:
        """Let finished work be noticed; with `wait`, until submission `index`, or all, is done.

        Return whether submission `index`, or everything, is done; an engine that cannot tell of one
        submission tells of all. The interpreter's lock is free meanwhile.
        """
        ...

    def write(self, buffer: Buffer, data: Any) -> None:
        """Copy `data` (a multiple of 4 bytes) to the beginning of `buffer`.

        It happens before everything that is not submitted yet. The caller may change `data` then.
        """
        ...

    def map(self, buffer: Buffer, size: int, *, write: bool = False) -> Mapped:
        """Ask to see the first `size` bytes of a staging buffer, to read them or to write them."""
        ...

    def address(self, memory: bytearray) -> Handle:
        """Return a pointer to `memory`, for a `Command`; it keeps the memory alive."""
        ...

    def offsets(self, offset: int) -> Handle:
        """Return one dynamic offset as a `Command` takes it."""
        ...

    def release(self, group: Handle) -> None:
        """Give up a bind group, on any thread; commands recorded with it keep it alive."""
        ...

    def abandon(self) -> None:
        """Leave everything to the end of the process, which was forked: releasing would hang."""
        ...

    def destroy(self) -> None:
        """Give the device up; everything that is asked of it then raises DeviceLostError."""
        ...

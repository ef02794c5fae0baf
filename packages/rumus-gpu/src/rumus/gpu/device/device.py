"""`Gpu`: the single owner of a device, its queue and the commands being recorded.

Dispatches are recorded into one open pass and submitted in batches, so that the device starts early
and the host rarely waits. Every access to the device holds one lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.device.adapter import choose
from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.forks import FORKS
from rumus.gpu.device.host_memory import HostPool, MappedStorage
from rumus.gpu.device.limits import DeviceLimits
from rumus.gpu.device.matrix_units import PRECISIONS, Precision, Units, units_of
from rumus.gpu.device.memory import MemoryStats, Pool, Region, Storage
from rumus.gpu.device.on_host import HostArrays
from rumus.gpu.device.pipelines import SLOT, Pipeline, Pipelines, Program
from rumus.gpu.device.profile import Clock, Profile, profiling
from rumus.gpu.device.staging import HostStaging, MappedStaging, Staging, take
from rumus.gpu.device.upload import UploadRing
from rumus.gpu.engine.protocol import (
    Command,
    Device,
    EngineName,
    Handle,
    MatrixUnit,
    TimedPass,
    Usage,
)
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.memory.uninterrupted import Uninterrupted, displaced

BATCH: Final = 64  # dispatches, or writes, of one submission
MANY: Final = 2**18  # workgroups that keep the device busy for a while, hence worth a submission
AS_LONG: Final = 2**18  # products of two numbers that take as long as an elementwise workgroup
PENDING_BYTES: Final = 256 * 2**20  # of writes in one submission
QUICK: Final = 1e-3  # seconds
ENOUGH: Final = 48  # dispatches worth a submission, however quickly they come
IN_FLIGHT: Final = 16  # maximum submissions that the host is ahead of the device
LENT: Final = 2**18  # bytes; larger arrays are read into memory that the result keeps
PIECE: Final = 2**24  # bytes read at a time if they must be copied
PLANS: Final = 4096  # kept before all are dropped, in programs whose shapes never repeat
_NEW: Final = object()

T = TypeVar("T")


_Known: TypeAlias = "WeakKeyDictionary[Storage, tuple[int, dict[Any, Any]]]"


@dataclass(slots=True)
class Stats:
    """Counts since the device was opened.

    submits: submissions of commands.
    dispatches: kernels started.
    bytes_up: sent to the device.
    bytes_down: read while the host waited.
    bytes_late: read without waiting.
    pipelines: programs compiled.
    """

    submits: int = 0
    dispatches: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_late: int = 0
    pipelines: int = 0


class Watcher(Protocol):
    """An observer of dispatches."""

    def takes(
        self, pipeline: Pipeline, arrays: Sequence[GPUArray], scalars: bytes, grid: tuple[int, int]
    ) -> bool:
        """Note a dispatch; return whether to skip its recording."""
        ...

    def index_checked(self, index: GPUArray, length: int) -> None:
        """Note that numbers are used as an index into `length` rows."""
        ...

    def refuse_transfer(self, what: str, instead: str) -> None:
        """Raise CaptureError if nothing may be read or uploaded now."""
        ...


class _Watched(threading.local):
    """The observer of one thread's dispatches, the region of its new arrays, and what it found.

    known: of memory, after a number of writes to it.
    """

    def __init__(self) -> None:
        self.watcher: Watcher | None = None
        self.region: Region | None = None
        self.known: _Known = WeakKeyDictionary()


class Prepared:
    """A dispatch that runs repeatedly on the same arrays: its bind group is made once."""

    def __init__(
        self, gpu: Gpu, pipeline: Pipeline, arrays: Sequence[GPUArray], groups: int
    ) -> None:
        self._gpu = gpu
        self._pipeline = pipeline
        self._device = gpu.device
        self._arrays = tuple(arrays)
        self._groups, self._grid = groups, gpu.limits.grid(groups)
        self._blocks = tuple({array.storage.block for array in arrays})
        self._written = tuple(
            array.storage
            for array, access in zip(arrays, pipeline.access, strict=True)
            if access == "w"
        )
        with gpu.lock:
            self._group = gpu._bind(pipeline, self._arrays)

    def __del__(self) -> None:
        if hasattr(self, "_group"):
            self._device.release(self._group)

    def run(self, values: tuple[float, ...]) -> None:
        """Record it with these scalars; see `Gpu.dispatch`."""
        gpu = self._gpu
        with gpu.lock:
            if gpu._watched.watcher is not None:
                gpu.dispatch(self._pipeline, self._arrays, values, self._groups)
                return
            for block in self._blocks:
                block.batch = gpu.batch
            for storage in self._written:
                storage.writes += 1
            scalars = self._pipeline.pack(values)
            gpu._record(self._pipeline, self._group, scalars, self._grid)


class Gpu:
    """One device.

    which: an index, a UUID or part of the name, as in `devices()`; by default the best GPU.
    engine: the library that drives it, "wgpu" or "dawn"; by default Dawn if it is installed and the
        GPU has matrix units, otherwise wgpu-native.
    trusted: compile rumus's kernels without run-time checks.
    immediates: pass scalars to kernels directly; otherwise, or if unsupported, through a uniform
        buffer.
    max_array_bytes: a lower limit on the size of an array than the device's.
    precision: of products of float32 arrays, see `precision`; products of float16 are always exact.

    Raises NoAdapterError if there is no such GPU; ValueError for an unknown precision;
    ForkedProcessError, like every use of a device, in a process forked from one that had opened a
    GPU.
    """

    def __init__(
        self,
        which: int | str | None = None,
        *,
        engine: EngineName | None = None,
        trusted: bool = True,
        immediates: bool = True,
        max_array_bytes: int | None = None,
        precision: Precision = "highest",
    ) -> None:
        self.precision = precision
        FORKS.check()
        self.adapter = choose(which, engine)
        self.device = self.adapter.open(trusted)
        self.limits = DeviceLimits.of(self.device, immediates, max_array_bytes)
        self.units: Units | None = units_of(self.adapter)
        self.stats = Stats()
        self.lock: Any = FORKS.lock(self)
        self.batch = 0  # the number of the batch being recorded
        self.counts_on: bool | None = None  # whether long loops run to their end; see `turns.py`
        self._watched = _Watched()
        self.clock: Clock | None = None  # times each dispatch, while profiling
        self._recorder = self.device.recorder()
        self._pipelines = Pipelines(self.device, self.limits, trusted)
        self._plans: dict[Hashable, Any] = {}
        self._pool = Pool(self.device, self.limits.binding, self.synchronize)
        self._writes = self._written = self._groups = 0
        self._in_flight: deque[int] = deque()
        self._started = 0.0
        self._host_memory = HostPool(self.device)
        self._on_host = HostArrays(self.device, self._pool, self.synchronize)
        self._uploads = UploadRing(self.device, self._host_memory, self.flush)
        self._staging: dict[tuple[int, int], Staging] = {}
        self._uniforms = _UniformRing(self.device)

    @property
    def name(self) -> str:
        """The device's name, from its driver."""
        return self.adapter.name

    @property
    def precision(self) -> Precision:
        """The precision of products of float32 arrays, with PyTorch's names.

        "highest": in float32. "high": each number as two float16, three products on matrix units, a
        relative error of about 1e-6. "medium": rounded to 11 bits, like TF32; 3e-4. On a device
        without matrix units, the last two equal `highest`.
        """
        return self._precision

    @precision.setter
    def precision(self, level: Precision) -> None:
        check_choice("precision", level, PRECISIONS)
        self._precision: Precision = level

    @contextmanager
    def at_precision(self, level: Precision) -> Iterator[None]:
        """Within this block, compute products at another precision.

        level: "highest", "high" or "medium".
        """
        with displaced(self, "precision", level):
            yield

    @property
    def watcher(self) -> Watcher | None:
        """The observer of this thread's dispatches."""
        return self._watched.watcher

    @property
    def is_software(self) -> bool:
        """Whether the GPU is emulated by the CPU."""
        return self.adapter.kind == "CPU"

    def has(self, feature: str) -> bool:
        """Whether the device was opened with a feature of `Feature`.

        feature: its WebGPU name.
        """
        return feature in self.device.features

    @property
    def engine(self) -> EngineName:
        """The library that drives the device."""
        return self.adapter.engine

    @property
    def matrix_units(self) -> tuple[MatrixUnit, ...]:
        """The shapes of small matrix products in hardware; () if there are none."""
        return self.adapter.matrix_units

    def allocate(self, size: int, label: str) -> Storage:
        """Allocate `size` bytes. Raises LimitError or OutOfMemoryError.

        size: in bytes.
        label: for error messages and captures.
        """
        with self.lock:
            return self._pool.allocate(size, label, self._watched.region)

    def mapped(self, memory: memoryview) -> Storage | None:
        """Return storage over host memory; None if the device does not support it.

        memory: in the host.
        """
        with self.lock:
            return MappedStorage.of(self.device, self._pool, memory)

    def allocate_on_host(self, size: int, label: str) -> Storage | None:
        """Return host memory that kernels access over the bus; None if unsupported.

        size: in bytes.
        label: for error messages.
        """
        with self.lock:
            return self._on_host.allocate(size, label)

    @property
    def bytes_on_host(self) -> int:
        """The host memory held by arrays."""
        with self.lock:
            self._on_host.collect()
            return self._on_host.used

    def memory_stats(self) -> MemoryStats:
        """Return the bytes held by arrays, kept for reuse, and at the peak."""
        with self.lock:
            return self._pool.stats()

    def trim(self) -> None:
        """Return unused memory to the driver."""
        with self.lock:
            self._pool.trim()
            self._host_memory.trim()
            self._on_host.collect()

    def pipeline(self, key: Hashable, make: Callable[[], Program]) -> Pipeline:
        """Return the pipeline of this key; `make` writes its program if it is new.

        key: identifies the pipeline.
        make: returns its WGSL; called if it is new.
        """
        with self.lock:
            found = self._pipelines.get(key, make)
            self.stats.pipelines = len(self._pipelines)
            return found

    def plan(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was planned for this key.

        key: identifies the plan: how the arrays of a kernel lie, and what else it depends on.
        make: returns the plan; called if it is new.
        """
        found = self._plans.get(key, _NEW)
        if found is _NEW:
            found = make()
            if len(self._plans) >= PLANS:
                self._plans.clear()
            self._plans[key] = found
        planned: T = found
        return planned

    def dispatch(
        self,
        pipeline: Pipeline,
        arrays: Sequence[GPUArray],
        values: tuple[float, ...],
        groups: int,
        multiplied: int = 0,
    ) -> None:
        """Record one dispatch of `groups` > 0 workgroups.

        pipeline: the pipeline to run.
        arrays: the array of each binding.
        values: the members of `k`.
        groups: the number of workgroups.
        multiplied: how many pairs of numbers they multiply, if that is what takes their time; a
            large product is submitted at once, so that the device need not wait for the host.
        """
        scalars = pipeline.pack(values)
        grid = self.limits.grid(groups)
        with self.lock:
            watcher = self._watched.watcher
            if watcher is not None and watcher.takes(pipeline, arrays, scalars, grid):
                return
            for array, access in zip(arrays, pipeline.access, strict=True):
                storage = array.storage
                storage.block.batch = self.batch
                if access == "w":
                    storage.writes += 1
            group = self._bind(pipeline, arrays)
            self._groups += multiplied // AS_LONG
            self._record(pipeline, group, scalars, grid)
            self.device.release(group)

    def _bind(self, pipeline: Pipeline, arrays: Sequence[GPUArray]) -> Handle:
        """Return a bind group; the caller must release it."""
        groups = pipeline.groups
        for number, array in enumerate(arrays):
            storage = array.storage
            groups.bind(number, storage.handle, array.base, storage.size - array.base)
        if pipeline.is_uniform:
            groups.bind(len(arrays), self._uniforms.handle, 0, SLOT)
        return groups.make()

    def _record(
        self, pipeline: Pipeline, group: Handle, scalars: bytes, grid: tuple[int, int]
    ) -> None:
        offset = -1
        if pipeline.is_uniform:
            offset = self._uniforms.put(self._recorder.commands, scalars)
        record = self._recorder.dispatch
        if self.clock is None:
            record(pipeline.handle, group, scalars, grid, offset)
        else:
            dispatch = partial(record, pipeline.handle, group, scalars, grid, offset)
            self.clock.around(pipeline.program.name, dispatch)
        self.stats.dispatches += 1
        self._groups += grid[0] * grid[1]
        if self._recorder.commands >= BATCH or self._groups >= MANY:
            self.flush()

    def replay(
        self, commands: Sequence[Command], pipelines: Sequence[Pipeline], groups: int
    ) -> None:
        """Record prepared dispatches, in chunks of one submission.

        commands: the prepared commands.
        pipelines: the pipeline of each.
        groups: their total number of workgroups. The caller holds the lock.
        """
        if self.clock is None:
            self._recorder.replay(commands)
        else:
            for command, pipeline in zip(commands, pipelines, strict=True):
                one = [(pipeline.handle, *command[1:])]
                self.clock.around(pipeline.program.name, partial(self._recorder.replay, one))
        self.stats.dispatches += len(commands)
        self._groups += groups
        if self._recorder.commands >= BATCH or self._groups >= MANY:
            self.flush()

    def copy(self, source: GPUArray, target: GPUArray) -> None:
        """Record a copy between two arrays of equal dtype that are both `is_flat`.

        source: the array to read.
        target: the array to write.
        """
        size = -(-source.nbytes // 4) * 4
        with self.lock:
            storage = source.storage
            self._recorder.copy(
                storage.handle, source.base, target.storage.handle, target.base, size
            )
            storage.block.batch = target.storage.block.batch = self.batch
            target.storage.writes += 1
            if self._recorder.commands >= BATCH:
                self.flush()

    def profile(self) -> AbstractContextManager[Profile]:
        """Time every kernel dispatched in a `with` block, which slows it down.

        Raises RuntimeError inside another profile.
        """
        return profiling(self)

    @contextmanager
    def timed_pass(self, timed: TimedPass) -> Iterator[None]:
        """Record the following dispatches in a separate pass with timestamps.

        timed: receives its timestamps.
        """
        self._recorder.open_timed(timed)
        yield
        self._recorder.close_pass()

    @contextmanager
    def watched_by(self, watcher: Watcher | None, region: Region | None = None) -> Iterator[None]:
        """Let `watcher` observe this thread's dispatches; its new arrays are made in `region`.

        watcher: the observer of dispatches; None for none.
        region: where arrays are made; None for the usual place.
        """
        watched = self._watched
        with (
            displaced(watched, "watcher", watcher),
            displaced(watched, "region", region),
            displaced(watched, "known", WeakKeyDictionary()),
        ):
            yield

    def known(self, storage: Storage) -> dict[Any, Any]:
        """Return what kernels found in `storage` since it was last written, to be added to.

        Watched dispatches begin with nothing: a replay could not rely on what was found before.

        storage: the memory that it is about.
        """
        if not self.counts_writes(storage):
            return {}
        writes, facts = self._watched.known.get(storage, (-1, {}))
        if writes != storage.writes:
            facts = {}
            self._watched.known[storage] = storage.writes, facts
        return facts

    def counts_writes(self, storage: Storage) -> bool:
        """Return whether every write to `storage` is counted, so that nothing known of it is old.

        The host's memory is written without notice, and that of a captured step by its replays.

        storage: the memory that it is about.
        """
        return type(storage) is Storage and storage.block.region in (None, self._watched.region)

    def forget(self) -> None:
        """Drop what `known` returned to this thread, with the arrays that hold it."""
        self._watched.known.clear()

    def give_up(self, region: Region) -> None:
        """Free the memory of a captured step, at any moment and on any thread.

        region: the memory of the step.
        """
        self._pool.given_up.append(region)

    def start(self) -> None:
        """Submit the recorded commands if the device is waiting for work.

        A submission costs the host as much as many dispatches, so calls in quick succession, as
        after small steps, are combined.
        """
        before, self._started = self._started, time.perf_counter()
        is_quick = self._started - before < QUICK
        with self.lock:
            if is_quick and self._recorder.commands < ENOUGH:
                return
            with Uninterrupted():
                if self._recorder.commands and self.device.poll():
                    self._in_flight.clear()
                    self._submit()

    def flush(self) -> int:
        """Submit the recorded commands; return the number of the submission."""
        # A signal's handler may raise in a forward pass; what is recorded may be an update before.
        with self.lock, Uninterrupted():
            index = self._submit()
            waits = len(self._in_flight) > IN_FLIGHT
            self.device.poll(waits, self._in_flight.popleft() if waits else None)
            return index

    def _submit(self) -> int:
        self._uniforms.write(self.device)
        if self.clock is not None:
            self.clock.before_submit(self._recorder)
        index = self.device.submit(self._recorder)
        self._uploads.submitted(index)
        if self.clock is not None:
            self.clock.after_submit(index)
        self.batch += 1
        self._writes = self._written = self._groups = 0
        self.stats.submits += 1
        self._in_flight.append(index)
        return index

    def synchronize(self) -> None:
        """Submit the recorded commands and wait until the device has finished."""
        with self.lock:
            self.device.poll(True, self.flush())
            self._in_flight.clear()

    def write(self, storage: Storage, host: NDArray[Any]) -> None:
        """Copy a contiguous array to the start of `storage`. The host's array may then be reused.

        storage: the destination.
        host: the source.
        """
        with self.lock:
            if self.watcher:
                self.watcher.refuse_transfer("it uploads an array", "create it before the step")
            if self._uploads.exists():
                self._upload(storage, host.reshape(-1).view(np.uint8))
            else:
                self._write(storage, host)
            storage.writes += 1
            self.stats.bytes_up += host.nbytes

    def _upload(self, storage: Storage, data: NDArray[np.uint8]) -> None:
        """Record copies from host memory, in order with all other commands."""
        for buffer, start, at, size in self._uploads.put(data):
            self._recorder.copy(buffer.handle, start, storage.handle, at, -(-size // 4) * 4)
            storage.block.batch = self.batch
            if self._recorder.commands >= BATCH:
                self.flush()

    def _write(self, storage: Storage, host: NDArray[Any]) -> None:
        """Let the engine copy an array, ahead of everything recorded."""
        size = host.nbytes
        if size % 4:
            host = np.concatenate([host.reshape(-1).view(np.uint8), np.zeros(-size % 4, np.uint8)])
        if storage.block.batch == self.batch:
            self.flush()  # recorded commands may read the old contents
        self.device.write(storage.block.buffer, host)
        self._writes += 1
        self._written += size
        if self._writes >= BATCH or self._written >= PENDING_BYTES:
            self.flush()

    def read(self, array: GPUArray) -> NDArray[Any]:
        """Return the bytes of a contiguous array that starts at a multiple of 4 bytes.

        array: the array to read.
        """
        size = -(-array.nbytes // 4) * 4
        with self.lock:
            if self.watcher:
                instead = "read it after the step"
                self.watcher.refuse_transfer("it reads a value from the GPU", instead)
            memory = self._host_memory.take(size) if size >= LENT else None
            if memory is not None:
                staging = HostStaging(self.device, memory)
                self.stage(array, staging)
                staging.read()
                result = self._host_memory.lend(memory, array.shape, array.stored.memory)
            else:
                result = np.empty(array.shape, array.stored.memory)
                self._read_pieces(array, result.reshape(-1).view(np.uint8))
            self.stats.bytes_down += result.nbytes
        return result

    def _read_pieces(self, array: GPUArray, into: NDArray[np.uint8]) -> None:
        """Copy an array through two buffers: the device fills one while the host empties the other.

        After an interruption a buffer may stay mapped, and using it would abort the process.
        """
        waiting: deque[tuple[Staging, NDArray[np.uint8]]] = deque()
        try:
            for number, at in enumerate(range(0, into.size, PIECE)):
                part = into[at : at + PIECE]
                staging = self._staging_for(part.size, number % 2)
                self.stage(array, staging, at, part.size)
                waiting.append((staging, part))
                if len(waiting) == 2:
                    take(*waiting.popleft())
            while waiting:
                take(*waiting.popleft())
        except BaseException:
            self._staging.clear()
            raise

    def stage(
        self, array: GPUArray, staging: Staging, first: int = 0, size: int | None = None
    ) -> None:
        """Copy `size` bytes of an array, from byte `first` on; by default all.

        array: the array to read.
        staging: the destination.
        first: the first byte.
        size: in bytes.
        """
        length = -(-(array.nbytes - first if size is None else size) // 4) * 4
        with self.lock:
            start = array.offset * array.stored.itemsize + first
            storage = array.storage
            self._recorder.copy(storage.handle, start, staging.buffer.handle, 0, length)
            storage.block.batch = self.batch
            staging.expect(self.flush(), length)

    def staging(self, size: int) -> Staging:
        """Return a staging buffer for `size` bytes read to the host.

        size: in bytes.
        """
        with self.lock:
            memory = self._host_memory.take(size)
            if memory is not None:
                return HostStaging(self.device, memory)
            return MappedStaging(self.device, size)

    def _staging_for(self, size: int, turn: int) -> Staging:
        """A staging buffer kept for the next read of this size."""
        wanted = max(4096, 1 << (size - 1).bit_length())
        found = self._staging.get((wanted, turn))
        if found is None:
            found = self._staging[wanted, turn] = self.staging(wanted)
        return found


class _UniformRing:
    """The scalars of one batch of dispatches, written to the device just before its submission."""

    def __init__(self, device: Device) -> None:
        self._buffer = device.buffer(SLOT * (BATCH + 1), Usage.UNIFORM | Usage.COPY_DST)
        self.handle = self._buffer.handle
        self._host = bytearray(SLOT * (BATCH + 1))
        self._used = 0

    def put(self, slot: int, scalars: bytes) -> int:
        """Store the scalars of dispatch `slot` of the batch; return their offset."""
        start = slot * SLOT
        self._host[start : start + len(scalars)] = scalars
        self._used = max(self._used, start + SLOT)
        return start

    def write(self, device: Device) -> None:
        """Upload the scalars stored since the last call."""
        if self._used:
            device.write(self._buffer, memoryview(self._host)[: self._used])
            self._used = 0

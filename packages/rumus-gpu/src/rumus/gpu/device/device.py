"""`Gpu`: the one owner of a device, its queue and the commands being recorded.

Dispatches are recorded into one open pass and submitted in batches, so that the device starts
early and the host seldom waits. Everything that touches the device holds one lock.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import wgpu
from numpy.typing import NDArray

from rumus.gpu.device.adapter import choose
from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.limits import WANTED, Limits
from rumus.gpu.device.memory import MemoryStats, Pool, Region, Storage, size_class
from rumus.gpu.device.native import (
    Command,
    Handle,
    Recorder,
    TimedPass,
    lost_device_said,
    poll,
    read_mapped,
    release,
)
from rumus.gpu.device.pipelines import SLOT, Pipeline, Pipelines, Program
from rumus.gpu.device.profile import Clock, Profile, profiling

BATCH: Final = 64  # dispatches, or writes, of one submission
MANY: Final = 2**18  # workgroups from which a submission keeps the device busy for a while
PENDING_BYTES: Final = 256 * 2**20  # of writes in one submission
IN_FLIGHT: Final = 16  # submissions that the host may be ahead
_requests = itertools.count(1)


@dataclass(slots=True)
class Stats:
    """What went over to the device since it was opened.

    bytes_down: what the host waited for. bytes_late: what came without anybody waiting.
    """

    submits: int = 0
    dispatches: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_late: int = 0
    pipelines: int = 0


class Watcher(Protocol):
    """What wants to see each dispatch."""

    def takes(
        self, pipeline: Pipeline, arrays: Sequence[GPUArray], scalars: bytes, grid: tuple[int, int]
    ) -> bool:
        """Note a dispatch; return whether it is not to be recorded."""
        ...

    def index_checked(self, index: GPUArray, length: int) -> None:
        """Note that numbers are used as an index into `length` rows."""
        ...

    def refuse_transfer(self, what: str, instead: str) -> None:
        """Raise CaptureError if nothing may be read or uploaded now."""
        ...


class _Watched(threading.local):
    """What sees the dispatches of one thread, and where its new arrays are made."""

    watcher: Watcher | None = None
    region: Region | None = None


class Prepared:
    """A dispatch that runs again and again on the same arrays: its bind group is made once."""

    def __init__(
        self, gpu: Gpu, pipeline: Pipeline, arrays: Sequence[GPUArray], groups: int
    ) -> None:
        self._gpu = gpu
        self._pipeline = pipeline
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

    def __del__(self, release: Callable[[Handle], None] = release) -> None:
        if hasattr(self, "_group"):
            release(self._group)

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

    which: an index or a part of the name, as in `devices()`; by default the best there is.
    trusted: compile rumus's kernels without run-time checks. immediates: give scalars to kernels
    directly; otherwise, or where the device cannot, through a uniform buffer. max_array_bytes: a
    lower limit for the size of one array than the device's own.
    NoAdapterError where there is no such GPU.
    """

    def __init__(
        self,
        which: int | str | None = None,
        *,
        trusted: bool = True,
        immediates: bool = True,
        max_array_bytes: int | None = None,
    ) -> None:
        adapter = choose(which)
        features = [name for name in WANTED if name in adapter.features]
        self.adapter = adapter
        self.device = adapter.request_device_sync(required_features=features, required_limits={})
        self.queue = self.device.queue
        self.limits = Limits.of(self.device, immediates, max_array_bytes)
        self.stats = Stats()
        self.lock = threading.RLock()
        self.batch = 0  # the number of the batch being recorded
        self._watched = _Watched()
        self.clock: Clock | None = None  # what times each dispatch
        self._recorder = Recorder(self.device)
        self._pipelines = Pipelines(self.device, self.limits, trusted)
        self._pool = Pool(self.device, self.limits.binding, self.synchronize)
        self._writes = self._written = self._groups = 0
        self._in_flight: deque[int] = deque()
        self._staging: dict[int, wgpu.GPUBuffer] = {}
        self._uniforms = _UniformRing(self.device) if not self.limits.immediates else None

    @property
    def name(self) -> str:
        """The device's name as its driver gives it."""
        return str(self.adapter.info["device"])

    @property
    def watcher(self) -> Watcher | None:
        """What sees each dispatch of this thread."""
        return self._watched.watcher

    @property
    def is_software(self) -> bool:
        """Whether the CPU plays the GPU."""
        return bool(self.adapter.info["adapter_type"] == "CPU")

    def has(self, feature: str) -> bool:
        """Whether the device was opened with a feature."""
        return feature in self.device.features

    @lost_device_said
    def allocate(self, size: int, label: str) -> Storage:
        """Return `size` bytes. LimitError or OutOfMemoryError if they cannot be had."""
        with self.lock:
            return self._pool.allocate(size, label, self._watched.region)

    def memory_stats(self) -> MemoryStats:
        """Return the bytes that arrays hold, that are kept for reuse, and the peak."""
        with self.lock:
            return self._pool.stats()

    def trim(self) -> None:
        """Give memory that no array holds back to the driver."""
        with self.lock:
            self._pool.trim()

    @lost_device_said
    def pipeline(self, key: Hashable, make: Callable[[], Program]) -> Pipeline:
        """Return the pipeline of this key; `make` writes its program if it is new."""
        with self.lock:
            found = self._pipelines.get(key, make)
            self.stats.pipelines = len(self._pipelines)
            return found

    def dispatch(
        self,
        pipeline: Pipeline,
        arrays: Sequence[GPUArray],
        values: tuple[float, ...],
        groups: int,
    ) -> None:
        """Record one dispatch of `groups` > 0 workgroups.

        arrays: for each binding what is bound there. values: the members of `k`.
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
            self._record(pipeline, group, scalars, grid)
            release(group)

    def _bind(self, pipeline: Pipeline, arrays: Sequence[GPUArray]) -> Handle:
        """Return a bind group; whoever gets it must release it."""
        groups = pipeline.groups
        for number, array in enumerate(arrays):
            storage = array.storage
            groups.bind(number, storage.handle, array.base, storage.size - array.base)
        if self._uniforms is not None:
            groups.bind(len(arrays), self._uniforms.handle, 0, SLOT)
        return groups.make()

    def _record(
        self, pipeline: Pipeline, group: Handle, scalars: bytes, grid: tuple[int, int]
    ) -> None:
        offset = -1
        if self._uniforms is not None:
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
        """Record dispatches that were prepared, as many as one submission takes at a time.

        pipelines: what each of them runs. groups: the workgroups of all of them. The lock is held.
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
        """Record a copy between two arrays of one type that are both flat, as `is_flat` says."""
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
        """Time every kernel that is dispatched in a `with` block; slower than without.

        RuntimeError inside of another profile.
        """
        return profiling(self)

    @contextmanager
    def timed_pass(self, timed: TimedPass) -> Iterator[None]:
        """Record what follows in a pass of its own with timestamps."""
        self._recorder.open_timed(timed)
        yield
        self._recorder.close_pass()

    @contextmanager
    def watched_by(self, watcher: Watcher, region: Region | None = None) -> Iterator[None]:
        """Let `watcher` see what this thread dispatches; its new arrays are made in `region`."""
        watched = self._watched
        before = watched.watcher, watched.region
        watched.watcher, watched.region = watcher, region
        try:
            yield
        finally:
            watched.watcher, watched.region = before

    def give_up(self, region: Region) -> None:
        """Take the memory of a captured step back, at any moment and on any thread."""
        self._pool.given_up.append(region)

    def start(self) -> None:
        """Submit what was recorded, if the device is waiting for work."""
        with self.lock:
            if self._recorder.commands and poll(self.device):
                self._in_flight.clear()
                self._submit()

    def flush(self) -> int:
        """Submit what was recorded; return the number of the submission."""
        with self.lock:
            index = self._submit()
            waits = len(self._in_flight) > IN_FLIGHT
            poll(self.device, waits, self._in_flight.popleft() if waits else None)
            return index

    @lost_device_said
    def _submit(self) -> int:
        if self._uniforms is not None:
            self._uniforms.write(self.queue)
        if self.clock is not None:
            self.clock.before_submit(self._recorder)
        try:
            index = self._recorder.submit(self.queue)
        except wgpu.GPUError:
            # Of a lost device it only says that something is invalid; this says what happened.
            self.device.create_buffer(size=4, usage=wgpu.BufferUsage.COPY_DST).destroy()
            raise
        if self.clock is not None:
            self.clock.after_submit(index)
        self.batch += 1
        self._writes = self._written = self._groups = 0
        self.stats.submits += 1
        self._in_flight.append(index)
        return index

    def synchronize(self) -> None:
        """Submit what was recorded and wait until the device has done everything."""
        with self.lock:
            poll(self.device, True, self.flush())
            self._in_flight.clear()

    @lost_device_said
    def write(self, storage: Storage, host: NDArray[Any]) -> None:
        """Copy a contiguous array to the beginning of `storage`. The host's array is free then."""
        size = host.nbytes
        if size % 4:
            host = np.concatenate([host.reshape(-1).view(np.uint8), np.zeros(-size % 4, np.uint8)])
        with self.lock:
            if self.watcher:
                self.watcher.refuse_transfer("an array is uploaded inside of it", "make it before")
            if storage.block.batch == self.batch:
                self.flush()  # a write comes before all that is recorded, also what reads the old
            self.queue.write_buffer(storage.block.buffer, 0, host)
            storage.writes += 1
            self.stats.bytes_up += size
            self._writes += 1
            self._written += size
            if self._writes >= BATCH or self._written >= PENDING_BYTES:
                self.flush()

    def read(self, array: GPUArray) -> NDArray[Any]:
        """Return the bytes of an array that lies contiguous from a multiple of 4 bytes on."""
        result = np.empty(array.shape, array.stored.memory)
        size = -(-result.nbytes // 4) * 4
        with self.lock:
            if self.watcher:
                instead = "read it after the step"
                self.watcher.refuse_transfer("a value is read inside of it", instead)
            staging = self._staging_for(size)
            index = self.stage(array, staging, size)
            try:
                self.read_staging(staging, size, index, result)
            except BaseException:  # an interrupt as well
                self._staging.clear()  # it may stay mapped, and using it would end the process
                raise
            self.stats.bytes_down += result.nbytes
        return result

    def read_staging(
        self, staging: wgpu.GPUBuffer, size: int, index: int, into: NDArray[Any]
    ) -> None:
        """Copy what submission `index` writes to a buffer for the host; waits for it."""
        read_mapped(self.device, staging._internal, size, index, next(_requests), into)

    def stage(self, array: GPUArray, staging: wgpu.GPUBuffer, size: int) -> int:
        """Copy `size` bytes to a buffer that the host can map; return the submission's number."""
        with self.lock:
            start = array.offset * array.stored.itemsize
            storage = array.storage
            self._recorder.copy(storage.handle, start, staging._internal, 0, size)
            storage.block.batch = self.batch
            return self.flush()

    @lost_device_said
    def _staging_for(self, size: int) -> wgpu.GPUBuffer:
        """A buffer that the host can read; the small ones are kept."""
        wanted = max(4096, 1 << (size - 1).bit_length()) if size <= 2**24 else size_class(size)
        found = self._staging.get(wanted)
        if found is None:
            usage = wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST
            found = self.device.create_buffer(size=wanted, usage=usage)
            if wanted <= 2**24:
                self._staging[wanted] = found
        return found


class _UniformRing:
    """The scalars of one batch of dispatches, written to the device just before its submission."""

    def __init__(self, device: wgpu.GPUDevice) -> None:
        usage = wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST
        self._buffer = device.create_buffer(size=SLOT * (BATCH + 1), usage=usage)
        self.handle = self._buffer._internal
        self._host = bytearray(SLOT * (BATCH + 1))
        self._used = 0

    def put(self, slot: int, scalars: bytes) -> int:
        """Keep the scalars of the dispatch number `slot` of the batch; return their offset."""
        start = slot * SLOT
        self._host[start : start + len(scalars)] = scalars
        self._used = max(self._used, start + SLOT)
        return start

    def write(self, queue: wgpu.GPUQueue) -> None:
        """Send what was put since the last time."""
        if self._used:
            queue.write_buffer(self._buffer, 0, memoryview(self._host)[: self._used])
            self._used = 0

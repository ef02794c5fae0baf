"""`Commands`: dispatches in the native library's form, recorded many times.

Everything possible is done once: bind groups are made, grids computed, scalars placed where a
command reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import BATCH, Gpu
from rumus.gpu.device.pipelines import SLOT, Pipeline
from rumus.gpu.engine.protocol import Command, Handle, Usage

# A pipeline, its bindings, scalars and workgroups.
Call: TypeAlias = tuple[Pipeline, tuple[GPUArray, ...], tuple[int, ...], int]


@dataclass(slots=True)
class Dispatched:
    """One observed dispatch. is_live: its scalars may differ the next time."""

    pipeline: Pipeline
    bound: tuple[tuple[Handle, int, int], ...]  # for each binding the buffer, its offset and size
    scalars: bytes
    grid: tuple[int, int]
    is_live: bool = False

    def written(self) -> Iterator[Handle]:
        """Yield the buffers that it may write to."""
        for (handle, _, _), access in zip(self.bound, self.pipeline.access, strict=True):
            if access == "w":
                yield handle


class Commands:
    """Dispatches, prepared for recording. The holder must keep their memory alive."""

    def __init__(self, gpu: Gpu, dispatches: Sequence[Dispatched]) -> None:
        self.gpu = gpu
        self._scalars = _Scalars(gpu, dispatches)
        self._groups: list[Handle] = []
        self._device = gpu.device
        self._parts = list(self._prepare(dispatches))

    def _prepare(
        self, dispatches: Sequence[Dispatched]
    ) -> Iterator[tuple[list[Command], list[Pipeline], int]]:
        """The commands, in chunks of one submission; see `Gpu.replay`."""
        for first in range(0, len(dispatches), BATCH):
            part = dispatches[first : first + BATCH]
            commands: list[Command] = []
            current = None
            for number, seen in enumerate(part, first):
                changed = None if seen.pipeline is current else seen.pipeline.handle
                current = seen.pipeline
                group = self._group(seen)
                commands.append((changed, group, *self._scalars.command(number), *seen.grid))
            groups = sum(seen.grid[0] * seen.grid[1] for seen in part)
            yield commands, [seen.pipeline for seen in part], groups

    def _group(self, seen: Dispatched) -> Handle:
        groups = seen.pipeline.groups
        for place, bound in enumerate(seen.bound):
            groups.bind(place, *bound)
        if seen.pipeline.is_uniform:
            groups.bind(len(seen.bound), self._scalars.uniform, 0, SLOT)
        group = groups.make()
        self._groups.append(group)
        return group

    def __del__(self) -> None:
        for group in getattr(self, "_groups", ()):
            self._device.release(group)

    def put(self, number: int, scalars: bytes) -> None:
        """Replace the scalars of one dispatch."""
        self._scalars.put(number, scalars)

    def record(self) -> None:
        """Record them all. The caller holds the device's lock."""
        self._scalars.send()
        for commands, pipelines, groups in self._parts:
            self.gpu.replay(commands, pipelines, groups)
        self._scalars.used()


class _Scalars:
    """The scalars of all dispatches, where the device reads them."""

    def __init__(self, gpu: Gpu, dispatches: Sequence[Dispatched]) -> None:
        self.gpu = gpu
        self.sizes = [len(seen.scalars) for seen in dispatches]
        self.uniform: Handle | None = None
        self._host = bytearray(SLOT * len(dispatches))
        self._memory = gpu.device.address(self._host)
        self._is_uniform = [seen.pipeline.is_uniform for seen in dispatches]
        for number, seen in enumerate(dispatches):
            self.put(number, seen.scalars)
        if any(self._is_uniform):
            self._buffer = gpu.device.buffer(len(self._host), Usage.UNIFORM | Usage.COPY_DST)
            self.uniform = self._buffer.handle
        self._is_changed = True
        self._batch = -1  # the last batch of commands that reads the buffer

    def put(self, number: int, scalars: bytes) -> None:
        """Replace the scalars of one dispatch."""
        start = number * SLOT
        self._host[start : start + len(scalars)] = scalars
        self._is_changed = True

    def command(self, number: int) -> tuple[Handle, int, Handle, int]:
        """Return dynamic offsets and their count, immediates and their size."""
        device = self.gpu.device
        if self._is_uniform[number]:
            return device.offsets(number * SLOT), 1, device.null, 0
        return device.null, 0, self._memory + number * SLOT, self.sizes[number]

    def send(self) -> None:
        """Send changes to the device. Immediates are read when a command is recorded."""
        if self.uniform is None:
            return
        if self._is_changed:
            if self._batch == self.gpu.batch:
                self.gpu.flush()  # a write precedes everything recorded
            self.gpu.device.write(self._buffer, self._host)
            self._is_changed = False

    def used(self) -> None:
        """Note that commands which read the buffer may wait to be submitted."""
        self._batch = self.gpu.batch


class Series:
    """Dispatches that run in sequence, repeatedly, on the same arrays."""

    def __init__(self, gpu: Gpu, calls: Sequence[Call]) -> None:
        self._gpu = gpu
        self._calls = tuple(calls)
        bound = [(array.storage, access) for pipeline, arrays, _, _ in self._calls
                 for array, access in zip(arrays, pipeline.access, strict=True)]  # fmt: skip
        self._blocks = {storage.block for storage, _ in bound}
        self._written = {storage for storage, access in bound if access == "w"}
        with gpu.lock:
            self._commands = Commands(gpu, [self._dispatched(*call) for call in self._calls])

    def _dispatched(self, pipeline: Pipeline, arrays: Sequence[GPUArray],
                    values: tuple[float, ...], groups: int) -> Dispatched:  # fmt: skip
        bound = tuple([(a.storage.handle, a.base, a.storage.size - a.base) for a in arrays])
        return Dispatched(pipeline, bound, pipeline.pack(values), self._gpu.limits.grid(groups))

    def run(self) -> None:
        """Record them."""
        gpu = self._gpu
        with gpu.lock:
            if gpu.watcher is not None:
                for call in self._calls:
                    gpu.dispatch(*call)
                return
            self._commands.record()
            for block in self._blocks:
                block.batch = gpu.batch
            for storage in self._written:
                storage.writes += 1

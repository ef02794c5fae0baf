"""`UploadRing`: uploads arrays through memory that host and device share.

The host copies an array to a chunk, and the device copies it from there: two copies, each at the
speed of memory or the bus, and overlapping for a large array. The host's array may be reused after
the first.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.device.host_memory import HostMemory, HostPool
from rumus.gpu.engine.protocol import Buffer, Device

CHUNK: Final = 2**25  # bytes
CHUNKS: Final = 3  # being filled, or waiting for the device
_ALIGNMENT: Final = 16
_SHARE: Final = 2**20  # bytes worth a thread
_THREADS: Final = 8  # as many as it takes to fill a bus


@dataclass(slots=True)
class _Chunk:
    """A part of the ring. submission: the last one that reads it; None if not submitted yet."""

    memory: HostMemory
    used: int = 0
    submission: int | None = None


class UploadRing:
    """Chunks of host memory, filled and emptied in turn. Callers hold the device's lock.

    flush: submits the recorded commands, and calls `submitted`.
    """

    def __init__(self, device: Device, pool: HostPool, flush: Callable[[], object]) -> None:
        self._device = device
        self._pool = pool
        self._flush = flush
        self._chunks: deque[_Chunk] = deque()  # the last one is being filled

    def exists(self) -> bool:
        """Whether the device has host memory to upload from."""
        if self._chunks and self._chunks[-1].memory.is_shared:
            self._flush()  # a child of this process has them: see `host_memory`
            self._chunks.clear()
        return bool(self._chunks) or self._add_chunk()

    def put(self, data: NDArray[np.uint8]) -> Iterator[tuple[Buffer, int, int, int]]:
        """Copy `data` to the ring in pieces, and yield the place of each.

        A place is a buffer, the offset there, the offset in `data`, and the size. The device's
        copy of it must be recorded before the next piece is requested.
        """
        at = 0
        while at < data.size:
            chunk = self._with_room(data.size - at)
            start, room = chunk.used, chunk.memory.bytes.size - chunk.used
            size = min(data.size - at, room)
            chunk.used += -(-size // _ALIGNMENT) * _ALIGNMENT
            chunk.submission = None
            _copy(data[at : at + size], chunk.memory.bytes[start : start + size])
            yield chunk.memory.buffer, start, at, size
            if size == room:
                self._flush()  # the device need not wait for the rest
            at += size

    def submitted(self, submission: int) -> None:
        """Note that this submission is the last to read the data so far."""
        for chunk in self._chunks:
            if chunk.submission is None:
                chunk.submission = submission

    def _with_room(self, size: int) -> _Chunk:
        """The chunk to fill next; data that fits one chunk stays in one piece."""
        chunk = self._chunks[-1]
        is_full = chunk.used + size > chunk.memory.bytes.size
        if is_full and (len(self._chunks) >= CHUNKS or not self._add_chunk()):
            self._reuse_oldest()
        return self._chunks[-1]

    def _add_chunk(self) -> bool:
        memory = self._pool.take(CHUNK)
        if memory is not None:
            self._chunks.append(_Chunk(memory))
        return memory is not None

    def _reuse_oldest(self) -> None:
        chunk = self._chunks[0]
        if chunk.submission is None:
            self._flush()
        self._device.poll(True, chunk.submission)
        self._chunks.popleft()
        chunk.used = 0
        self._chunks.append(chunk)


def _copy(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Copy bytes, with several threads if there are many."""
    parts = min(_THREADS, _processors(), source.size // _SHARE)
    if parts < 2:
        target[:] = source
        return
    cuts = [source.size * n // parts for n in range(parts + 1)]
    slices = [slice(a, b) for a, b in itertools.pairwise(cuts)]
    list(_threads().map(lambda part: np.copyto(target[part], source[part]), slices))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "rumus upload")


@cache
def _processors() -> int:
    counted = getattr(os, "sched_getaffinity", None)
    return len(counted(0)) if counted else os.cpu_count() or 1

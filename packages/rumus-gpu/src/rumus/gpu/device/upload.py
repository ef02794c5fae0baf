"""`UploadRing`: uploads arrays through memory that host and device share.

The host copies an array to a chunk, and the device copies it from there: two copies, each at the
speed of memory or the bus, and overlapping for a large array. The host's array may be reused after
the first.

A thread takes a while to wake up, as long as it takes to copy megabytes on some machines. So the
next chunks of a large array are given to the threads before they are done with this one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.device.host_memory import HostMemory, HostPool
from rumus.gpu.engine.protocol import Buffer, Device
from rumus.tensor.memory.uninterrupted import Uninterrupted

CHUNK: Final = 2**24  # bytes
CHUNKS: Final = 6  # being filled, or waiting for the device
_AHEAD: Final = 4  # of these, being filled
_ALIGNMENT: Final = 16
_SHARE: Final = 2**20  # bytes worth a thread
_SHARES: Final = 4  # of a chunk: threads that begin another one too often wait for each other
_THREADS: Final = 8  # as many as it takes to fill a bus


@dataclass(slots=True)
class _Chunk:
    """A part of the ring. submission: the last one that reads it; None if not submitted yet."""

    memory: HostMemory
    used: int = 0
    submission: int | None = None

    @property
    def room(self) -> int:
        """The bytes that are not used."""
        return self.memory.bytes.size - self.used


class _Piece:
    """A piece of an array on its way to a chunk."""

    def __init__(self, chunk: _Chunk, data: NDArray[np.uint8], at: int) -> None:
        self.chunk, self.start, self.at = chunk, chunk.used, at
        self._source = data[at : at + chunk.room]
        self.size: int = self._source.size
        self._target = chunk.memory.bytes[self.start : self.start + self.size]
        self._parts: list[tuple[slice, Future[None]]] = []
        chunk.used += min(chunk.room, -(-self.size // _ALIGNMENT) * _ALIGNMENT)

    def begin(self) -> None:
        """Give its parts to threads, if there are several."""
        if self.size < 2 * _SHARE or _processors() == 1:
            return
        share = max(_SHARE, self.size // _SHARES)
        for first in range(0, self.size, share):
            part = slice(first, first + share)
            with Uninterrupted():  # what is not known here would be copied after `end`
                self._parts.append((part, _threads().submit(self._copy, part)))

    def finish(self) -> None:
        """Copy what no thread has begun, and wait for the rest."""
        if not self._parts:
            self._copy(slice(None))
        for part, copied in reversed(self._parts):
            if copied.cancel():
                self._copy(part)
        self.end()

    def end(self) -> None:
        """Let no thread write to the chunk any more."""
        for _, copied in self._parts:
            if not copied.cancel():
                copied.result()

    def _copy(self, part: slice) -> None:
        np.copyto(self._target[part], self._source[part])


class UploadRing:
    """Chunks of host memory, filled and emptied in turn. Callers hold the device's lock.

    flush: submits the recorded commands, and calls `submitted`.
    """

    def __init__(self, device: Device, pool: HostPool, flush: Callable[[], object]) -> None:
        self._device = device
        self._pool = pool
        self._flush = flush
        self._chunks: deque[_Chunk] = deque()  # the last one is being filled
        self._pieces: deque[_Piece] = deque()  # not known to the device yet

    def exists(self) -> bool:
        """Whether the device has host memory to upload from."""
        if self._chunks and self._chunks[-1].memory.is_shared:
            self._flush()  # a child of this process has them: see `host_memory`
            self._chunks.clear()
        return bool(self._chunks) or self._add_chunk()

    def put(self, data: NDArray[np.uint8]) -> Generator[tuple[Buffer, int, int, int], None, None]:
        """Copy `data` to the ring in pieces, and yield the place of each.

        A place is a buffer, the offset there, the offset in `data`, and the size. The device's
        copy of it must be recorded before the next piece is requested.
        """
        pieces, at = self._pieces, 0
        try:
            while at < data.size or pieces:
                if at < data.size and len(pieces) < _AHEAD and self._has_room(data.size - at):
                    pieces.append(_Piece(self._chunks[-1], data, at))
                    pieces[-1].begin()
                    at += pieces[-1].size
                    continue
                piece, chunk = pieces[0], pieces[0].chunk
                piece.finish()
                pieces.popleft()
                chunk.submission = None
                yield chunk.memory.buffer, piece.start, piece.at, piece.size
                if not chunk.room:
                    self._flush()  # the device need not wait for the rest
        finally:
            for piece in pieces:
                piece.end()
            pieces.clear()

    def submitted(self, submission: int) -> None:
        """Note that this submission is the last to read the data so far."""
        for chunk in self._chunks:
            if chunk.submission is None:
                chunk.submission = submission

    def _has_room(self, size: int) -> bool:
        """Make the last chunk one to fill next; False if the device does not know of any yet.

        Data that fits one chunk stays in one piece.
        """
        if size <= self._chunks[-1].room:
            return True
        return (len(self._chunks) < CHUNKS and self._add_chunk()) or self._reuse_oldest()

    def _add_chunk(self) -> bool:
        memory = self._pool.take(CHUNK)
        if memory is not None:
            self._chunks.append(_Chunk(memory))
        return memory is not None

    def _reuse_oldest(self) -> bool:
        chunk = self._chunks[0]
        if any(piece.chunk is chunk for piece in self._pieces):
            return False
        if chunk.submission is None:
            self._flush()
        self._device.poll(True, chunk.submission)
        self._chunks.popleft()
        chunk.used = 0
        self._chunks.append(chunk)
        return True


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_THREADS, _processors()), "rumus upload")


@cache
def _processors() -> int:
    counted = getattr(os, "sched_getaffinity", None)
    return len(counted(0)) if counted else os.cpu_count() or 1

"""Host memory that the device accesses directly, if the engine has such buffers.

Pages used by a device must not move. A fork shares them with the child until either writes, and the
writer gets a copy unknown to the device: data from before a fork stays valid, but the device never
uses it again.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rumus.gpu.device.memory import USAGE, Block, Pool, Storage, size_class
from rumus.gpu.engine.protocol import Buffer, Device, Usage
from rumus.tensor.memory.uninterrupted import suppressed

KEPT: Final = 2**29  # maximum bytes kept for reuse
_USAGE: Final = Usage.COPY_SRC | Usage.COPY_DST
_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_forked)


class HostMemory:
    """Pages of this process, and the device's buffer for them."""

    __slots__ = ("_forks", "buffer", "bytes")

    def __init__(self, pages: NDArray[np.uint8], buffer: Buffer) -> None:
        self.bytes = pages
        self.buffer = buffer
        self._forks = _forks

    @classmethod
    def of(cls, device: Device, size: int, usage: Usage = _USAGE) -> HostMemory | None:
        """Return memory of `size` bytes; None if the driver rejects it."""
        alignment = device.host_alignment
        length = size + max(0, alignment - mmap.PAGESIZE)
        pages = _pages(length)
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        start = -address % alignment
        aligned = memoryview(pages)[start : start + size]
        buffer = device.host_buffer(aligned, usage)
        return None if buffer is None else cls(np.frombuffer(aligned, np.uint8), buffer)

    @property
    def is_shared(self) -> bool:
        """Whether a child of this process has these pages as well."""
        return self._forks != _forks


def _pages(size: int) -> mmap.mmap:
    """Separate pages, huge ones if available: these are faster to pass to the driver."""
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, size)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppressed(OSError):  # a system built without huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


class _Lent:
    """The owner of a host array's memory, which returns to the pool with the last view."""

    def __init__(self, pool: HostPool, memory: HostMemory) -> None:
        self._pool, self._memory = pool, memory
        self.__array_interface__ = memory.bytes.__array_interface__

    def __del__(self) -> None:
        self._pool.returned.append(self._memory)  # atomic: it may happen on any thread


class MappedStorage(Storage):
    """Memory that the program has, perhaps with other processes, and that kernels use as well.

    It is not the pool's, and does not return to it.
    """

    __slots__ = ()

    @classmethod
    def of(cls, device: Device, pool: Pool, memory: memoryview) -> MappedStorage | None:
        """Return storage over `memory`; None if the device does not support it."""
        alignment = device.host_alignment
        if not alignment or memory.nbytes > pool.largest:
            return None
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        if address % alignment or memory.nbytes % alignment:
            return None
        buffer = device.host_buffer(memory, USAGE)
        return (
            None if buffer is None else cls(Block(buffer, buffer.handle, memory.nbytes), pool, "")
        )


class HostPool:
    """Host memory by size, kept for reuse. Callers hold the device's lock."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._free: dict[int, list[HostMemory]] = {}
        self._kept = 0
        self.returned: deque[HostMemory] = deque()

    def take(self, size: int) -> HostMemory | None:
        """Return uninitialized memory of at least `size` bytes, or None."""
        self._collect()
        alignment = self._device.host_alignment
        if not alignment:
            return None
        wanted = -(-size_class(size) // alignment) * alignment
        free = self._free.get(wanted, [])
        while free:
            found = free.pop()
            self._kept -= wanted
            if not found.is_shared:
                return found
        return HostMemory.of(self._device, wanted)

    def lend(self, memory: HostMemory, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return memory as an exclusive array, until its last view is gone."""
        array: NDArray[Any] = np.asarray(_Lent(self, memory))
        count = int(np.prod(shape, dtype=np.int64))
        return array[: count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)

    def trim(self) -> None:
        """Release the memory kept for reuse."""
        self._collect()
        self._free.clear()
        self._kept = 0

    def _collect(self) -> None:
        while self.returned:
            memory = self.returned.popleft()
            size = memory.bytes.size
            if not memory.is_shared and self._kept + size <= KEPT:
                self._free.setdefault(size, []).append(memory)
                self._kept += size

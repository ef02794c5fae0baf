"""`BatchMemory`: memory shared by a worker process and its loader to pass batches.

A batch of images takes megabytes, while a pipe carries 64 KiB at a time, each with a context
switch. The memory is an unnamed file that disappears with the last process that holds it: nothing
is left behind, however the processes end, and the size of /dev/shm is no limit.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.train.base.fields import Names, fields_of, names_of, values_in
from rumus.train.data.dataset import AnyBatch

_SMALL: Final = 1 << 16  # bytes; a pipe is as fast up to here
_ALIGNED: Final = 64  # bytes; arrays are aligned to it


@dataclass(frozen=True, slots=True)
class Place:
    """The layout of a batch: the names of its fields, and the dtype, shape and first byte of each.

    size: the memory's size in bytes.
    """

    names: Names
    fields: tuple[tuple[np.dtype[Any], tuple[int, ...], int], ...]
    size: int


class BatchMemory:
    """Shared memory for one batch at a time; it grows to the largest.

    descriptor: of the file; each process has its own.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    def __getstate__(self) -> Any:
        """A descriptor to pass to a starting process."""
        from multiprocessing.reduction import DupFd

        return DupFd(self.descriptor)

    def __setstate__(self, sent: Any) -> None:
        self.descriptor, self._map = sent.detach(), None

    @staticmethod
    def create(count: int) -> list[BatchMemory]:
        """Return `count` new memories, or none if the system has no unnamed files."""
        if not hasattr(os, "memfd_create"):
            return []
        return [BatchMemory(os.memfd_create("rumus-batch")) for _ in range(count)]

    def write(self, batch: AnyBatch) -> Place | None:
        """Store a batch; None if it is too small to be worth it or is not made of plain arrays."""
        values = values_in(batch)
        if not all(type(value) is np.ndarray and value.dtype.kind in "biufc" for value in values):
            return None
        if sum(value.nbytes for value in values) < _SMALL:
            return None
        starts, size = _laid_out(values)
        if self._map is None or len(self._map) < size:
            os.ftruncate(self.descriptor, size)
        for value, start in zip(values, starts, strict=True):
            self._array(value.dtype, value.shape, start, size)[...] = value
        fields = [(v.dtype, v.shape, start) for v, start in zip(values, starts, strict=True)]
        return Place(names_of(batch), tuple(fields), size)

    def read(self, place: Place) -> AnyBatch:
        """Return a copy of the stored batch."""
        arrays = [self._array(*field, place.size).copy() for field in place.fields]
        batch: AnyBatch = fields_of(place.names, arrays)
        return batch

    def close(self) -> None:
        """Release it."""
        self._map = None
        os.close(self.descriptor)

    def _array(
        self, dtype: np.dtype[Any], shape: tuple[int, ...], start: int, size: int
    ) -> NDArray[Any]:
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self.descriptor, size)
        return np.ndarray(shape, dtype, self._map, start)


def _laid_out(values: Sequence[NDArray[Any]]) -> tuple[list[int], int]:
    """The offset of each array, and the total size."""
    starts, size = [], 0
    for value in values:
        starts.append(size)
        size += -(-value.nbytes // _ALIGNED) * _ALIGNED
    return starts, size

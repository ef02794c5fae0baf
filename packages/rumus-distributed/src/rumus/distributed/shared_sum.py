"""`SharedSum`: sums between the ranks of one machine, through shared memory.

MPI would copy a rank's data into such memory and out of it. Here a rank's device, or its processor,
accesses it directly: half the cost of a message, and on a GPU without the host.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from rumus.distributed.link import Link, bounds
from rumus.distributed.tree import add_rows_into
from rumus.tensor import Backend, DType
from rumus.tensor.memory.backend import Array

FOLDER: Final = Path("/dev/shm")
GRAIN: Final = 1 << 16  # bytes: devices need host memory aligned to such pages
LEAST: Final = 1 << 16  # bytes below which a message is as fast


class SharedSum:
    """A region of shared memory for each rank, as large as the arrays to add up.

    `of` makes one on all ranks, or on none.
    """

    def __init__(self, link: Link, backend: Backend, regions: list[Array]) -> None:
        self._link, self._backend, self._regions = link, backend, regions
        self._was_collected = False  # since all have met: the contents may still be read
        self._posted: Array = None  # already available to the others

    @classmethod
    def of(cls, link: Link, backend: Backend, length: int, dtype: DType) -> SharedSum | None:
        """Return one for flat arrays of this length; None if there is no such memory."""
        if link.local_size < link.size:
            return None
        size = -(-length * dtype.itemsize // GRAIN) * GRAIN
        memory = _shared(link, size * link.size)
        regions: list[Array] = []
        if memory is not None:
            parts = [memory[rank * size : (rank + 1) * size] for rank in range(link.size)]
            regions = [_array(backend, part, dtype) for part in parts]
        usable = bool(regions) and all(region is not None for region in regions)
        if not all(link.gather(usable)):
            return None
        return cls(link, backend, [region[:length] for region in regions])

    def post(self, flat: Array) -> None:
        """See `Link.post`: it is the part of a sum that a rank can do without the others."""
        if self._posted is not None:
            return  # that of another array of this size, which comes first
        self._posted = flat
        for other, part in enumerate(self._parts(flat)):
            if other != self._link.rank:
                self._publish(flat, part)
        if self._backend.runs_ahead:
            gpu: Any = self._backend
            gpu.gpu.flush()

    def forget(self) -> None:
        """Post the next array, whatever was posted before."""
        self._posted = None

    def add_up(self, flat: Array) -> None:
        """See `Link.add_up`."""
        if not _is_same(self._posted, flat):
            self._posted = None
            self.post(flat)
        self._posted = None
        self._meet()
        self._was_collected = False
        self._sum_part(flat)
        self._take(flat)

    def collect(self, flat: Array) -> None:
        """See `Link.collect`."""
        if self._was_collected:
            self._meet()
        self._publish(flat, self._parts(flat)[self._link.rank])
        self._take(flat)

    def _sum_part(self, flat: Array) -> None:
        """Add up this rank's part, and publish the sum."""
        rank = self._link.rank
        part = self._parts(flat)[rank]
        if part.start < part.stop:
            own = flat[part]
            rows = [own if r == rank else region[part] for r, region in enumerate(self._regions)]
            add_rows_into(self._backend, rows, (own, self._regions[rank][part]))
            self._link.sent += own.size * flat.dtype.itemsize

    def _take(self, flat: Array) -> None:
        """Copy the others' parts, once all have published them."""
        self._meet()
        self._was_collected = True
        for other, part in enumerate(self._parts(flat)):
            if other != self._link.rank and part.start < part.stop:
                self._backend.copy(self._regions[other][part], flat[part])

    def _publish(self, flat: Array, part: slice) -> None:
        """Copy a part to the shared region."""
        if part.start < part.stop:
            self._backend.copy(flat[part], self._regions[self._link.rank][part])
            self._link.sent += (part.stop - part.start) * flat.dtype.itemsize

    def _parts(self, flat: Array) -> list[slice]:
        cuts = bounds(flat.size, self._link.size)
        return [slice(start, stop) for start, stop in pairwise(cuts)]

    def _meet(self) -> None:
        """Wait for this rank's device, and then for the other ranks."""
        if self._backend.runs_ahead:
            gpu: Any = self._backend
            gpu.gpu.synchronize()
        self._link.meet("a sum")


def _is_same(posted: Array, flat: Array) -> bool:
    """Whether an array, or an identical view of it, was posted."""
    if posted is None or type(posted) is not type(flat):
        return False
    if isinstance(flat, np.ndarray):
        return bool(posted.ctypes.data == flat.ctypes.data)
    return posted.storage is flat.storage and bool(posted.offset == flat.offset)


def _shared(link: Link, size: int) -> memoryview | None:
    """Memory that all ranks map; its file is removed at once."""
    path = link.first(_reserved(size) if link.rank == 0 else None)
    if path is None:
        return None
    memory: memoryview | None = None
    with suppress(OSError):
        file = os.open(path, os.O_RDWR)
        memory = memoryview(mmap.mmap(file, size))
        os.close(file)
    link.gather(None)  # all have mapped it, or never will
    if link.rank == 0:
        os.unlink(path)
    return memory


def _reserved(size: int) -> str | None:
    """A fully allocated file: a missing page would kill the process."""
    if not FOLDER.is_dir() or not hasattr(os, "posix_fallocate"):
        return None
    file, path = tempfile.mkstemp(prefix="rumus-", dir=FOLDER)
    try:
        os.posix_fallocate(file, 0, size)
    except OSError:
        os.unlink(path)
        return None
    finally:
        os.close(file)
    return path


def _array(backend: Backend, memory: memoryview, dtype: DType) -> Array | None:
    """Shared memory as an array of a backend; None if the backend has no such arrays."""
    if not backend.runs_ahead:
        return np.frombuffer(memory, dtype)
    mapped: Any = getattr(backend, "mapped", None)
    return None if mapped is None else mapped(memory, dtype)

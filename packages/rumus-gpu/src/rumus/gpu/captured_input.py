"""`CapturedInput`: memory of a captured step for one array of the batch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.device.array import GPUArray
from rumus.gpu.device.device import Gpu
from rumus.gpu.elementwise.copying import contiguous
from rumus.tensor import CaptureError

if TYPE_CHECKING:
    from rumus.gpu.backend import GpuBackend


def _nothing() -> None:
    """The value of a dead reference to an array."""


@dataclass(slots=True)
class CapturedInput:
    """Memory for one array of the batch, and known facts about its numbers.

    limit: the number of rows that they index, if any. decisions: whether they may include a number,
        for each number that the step branched on. is_kept: whether the step never writes to it.
    """

    array: GPUArray
    limit: int | None = None
    decisions: dict[int, bool] = field(default_factory=dict)
    is_kept: bool = False
    # The device array it is a copy of, if any, and the write counts of both at that time.
    _source: Callable[[], GPUArray | None] = _nothing
    _writes: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, backend: GpuBackend, value: GPUArray | NDArray[Any]) -> Self:
        """Return a copy of an array of the batch."""
        if not isinstance(value, GPUArray):
            return cls(backend.upload(value))
        copy = backend.allocate(value.shape, value.dtype)
        if copy.size:
            backend.gpu.copy(contiguous(value), copy)
        found = cls(copy)
        found.learn(value)
        return found

    def learn(self, value: GPUArray) -> None:
        """Take over the known bounds of an array's numbers, which were copied here."""
        bounds = value.known_bounds()
        self.array.bounds = None if bounds is None else (self.array.storage.writes, *bounds)

    def holds(self, value: GPUArray | NDArray[Any]) -> bool:
        """Whether it already holds an array's elements: the same array, unchanged since."""
        if self._source() is not value or not isinstance(value, GPUArray):
            return False
        return self._writes == (value.storage.writes, self.array.storage.writes)

    def fits(self, value: GPUArray | NDArray[Any]) -> bool:
        """Whether the known facts hold for another array."""
        if self.limit is None and not self.decisions:
            return True
        if self.holds(value):
            return True
        if self.limit is not None and not _is_in_range(value, self.limit):
            return False
        return all(_may_hold(value, n) == found for n, found in self.decisions.items())

    def fill(self, gpu: Gpu, value: GPUArray | NDArray[Any]) -> None:
        """Copy an array here, unless it is already here. The caller holds the device's lock."""
        if self.array.size == 0 or self.holds(value):
            return
        if not isinstance(value, GPUArray):
            gpu.write(self.array.storage, np.ascontiguousarray(value, self.array.stored.memory))
            self._source = _nothing
            return
        gpu.copy(contiguous(value), self.array)
        if self.is_kept and gpu.counts_writes(value.storage):
            self._source = weakref.ref(value)
            self._writes = value.storage.writes, self.array.storage.writes


def _is_in_range(index: GPUArray | NDArray[Any], length: int) -> bool:
    """Whether all numbers are in [0, length). Raises CaptureError if that needs a read."""
    if index.size == 0:
        return True
    if not isinstance(index, GPUArray):
        return int(index.min()) >= 0 and int(index.max()) < length
    bounds = index.known_bounds()
    if bounds is None:
        raise CaptureError(
            f"indices {index.shape} computed on the device cannot be checked without reading them; "
            "pass them as a NumPy array, or train with Trainer(optimizer, capture=False)"
        )
    return bounds[0] >= 0 and bounds[1] < length


def _may_hold(index: GPUArray | NDArray[Any], number: int) -> bool:
    """Whether an element may equal `number`, as far as known without reading."""
    if index.size == 0:
        return True
    if not isinstance(index, GPUArray):
        return bool(index.min() <= number <= index.max())
    low, high = index.known_bounds() or (number, number)
    return low <= number <= high

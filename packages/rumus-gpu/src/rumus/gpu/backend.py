"""`GpuBackend`: what rumus.tensor asks of a device, answered by a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.array import GPUArray, Shape, contiguous_strides
from rumus.gpu.copying import contiguous, copy_strided
from rumus.gpu.device import Gpu, Stats
from rumus.gpu.elementwise import IDENTITY, Elementwise
from rumus.gpu.layout import layout_of
from rumus.gpu.memory import MemoryStats
from rumus.gpu.storage import stored_types
from rumus.tensor import DType, Expr, Kernel

_FILL: Final = Kernel("fill", {"out": Expr.scalar("value")}, ())


class GpuBackend:
    """Arrays in the memory of one `Gpu`. See `Backend` for what each method does.

    gpu: by default, the best device there is. NoAdapterError where there is none.
    """

    def __init__(self, gpu: Gpu | None = None) -> None:
        self.gpu = Gpu() if gpu is None else gpu
        self.alignment = self.gpu.limits.alignment
        self._stored = stored_types(self.gpu.has("shader-f16"))
        self._elementwise = Elementwise(self.gpu)

    def __repr__(self) -> str:
        return f"GpuBackend({self.gpu.name!r})"

    @property
    def name(self) -> str:
        """What messages call it."""
        return "gpu"

    @property
    def stats(self) -> Stats:
        """What went over to the device."""
        return self.gpu.stats

    def memory_stats(self) -> MemoryStats:
        """Return the bytes that arrays hold, that are kept for reuse, and the peak."""
        return self.gpu.memory_stats()

    def allocate(self, shape: Shape, dtype: DType) -> GPUArray:
        """Return a new array. LimitError if it is larger than the device can bind."""
        stored = self._stored.get(dtype)
        if stored is None:
            raise TypeError(f"a GPU has no {dtype}; convert to float32, or stay on the CPU backend")
        size = math.prod(shape) * stored.itemsize
        storage = self.gpu.allocate(size, f"{stored.name}{list(shape)}")
        return GPUArray(self, storage, stored, shape, contiguous_strides(shape))

    def upload(self, host: NDArray[Any]) -> GPUArray:
        """Return a new array with a copy of `host`."""
        array = self.allocate(host.shape, host.dtype)
        if array.size:
            self.gpu.write(array.storage, np.ascontiguousarray(host, array.stored.memory))
            if array.stored.kind == "i":
                array.storage.bounds = int(host.min()), int(host.max())
        return array

    def download(self, array: GPUArray) -> NDArray[Any]:
        """Return a copy of `array` in NumPy; waits for the device."""
        if array.size == 0:
            return np.empty(array.shape, array.dtype)
        start = array.offset * array.stored.itemsize
        source = array if array.is_contiguous and start % 4 == 0 else self.contiguous(array)
        return self.gpu.read(source).astype(array.dtype, copy=False)

    def contiguous(self, array: GPUArray) -> GPUArray:
        """Return `array` itself if it lies dense and aligned, else a copy that does."""
        return contiguous(array)

    def fill(self, value: float, out: GPUArray) -> None:
        """Set every element to `value`."""
        if out.size:
            self._elementwise.run(_FILL, (), (float(value),), (out,))

    def copy(self, source: GPUArray, out: GPUArray) -> None:
        """Write `source` into `out`, broadcasting and casting as needed."""
        if out.size == 0:
            return
        is_apart = source.storage is not out.storage
        if is_apart and out.is_flat and layout_of(source, out.shape) is not None:
            self._elementwise.run(IDENTITY, (source,), (), (out,))
        else:
            copy_strided(self.gpu, source, out)

    def elementwise(
        self,
        kernel: Kernel,
        arrays: Sequence[GPUArray],
        scalars: Sequence[float],
        out: Sequence[GPUArray],
    ) -> None:
        """Run `kernel`; see `Backend.elementwise`."""
        if out[0].size:
            self._elementwise.run(kernel, arrays, scalars, out)


@lru_cache(maxsize=1)
def default_backend() -> GpuBackend:
    """Return the backend of this process's GPU, always the same object.

    NoAdapterError says what to install where there is no GPU.
    """
    return GpuBackend()

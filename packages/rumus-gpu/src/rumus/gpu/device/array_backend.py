"""`ArrayBackend`: the backend's interface for arrays and kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from rumus.tensor import DType, Kernel

if TYPE_CHECKING:
    from rumus.gpu.device.array import GPUArray
    from rumus.gpu.device.device import Gpu


class ArrayBackend(Protocol):
    """The memory of one device; `GpuBackend`, above all kernels, implements it.

    alignment: the start of a binding is a multiple of it, in bytes.
    """

    gpu: Gpu
    alignment: int

    def allocate(self, shape: tuple[int, ...], dtype: DType) -> GPUArray:
        """Return a new array. Raises LimitError if it is larger than the device can bind."""

    def upload(self, host: NDArray[Any]) -> GPUArray:
        """Return a new array with a copy of `host`."""

    def contiguous(self, array: GPUArray) -> GPUArray:
        """Return `array` itself if it is dense and aligned, otherwise a copy that is."""

    def fill(self, value: float, out: GPUArray) -> None:
        """Set every element to `value`."""

    def elementwise(
        self,
        kernel: Kernel,
        arrays: Sequence[GPUArray],
        scalars: Sequence[float],
        out: Sequence[GPUArray],
    ) -> None:
        """Run `kernel`; inputs broadcast to the outputs."""

    def copy(self, source: GPUArray, out: GPUArray) -> None:
        """Write `source` into `out`, broadcasting and casting as needed."""

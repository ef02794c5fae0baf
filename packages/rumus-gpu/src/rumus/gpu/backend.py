"""`GpuBackend`: the interface `Backend` of rumus.tensor on a GPU."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property, lru_cache, partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.gpu.attention.attention import ATTENTION
from rumus.gpu.capture import Capture, Nobody, Notes, observe, record
from rumus.gpu.comparison import Comparison, compare
from rumus.gpu.convolutions.convolution import CONVOLUTIONS
from rumus.gpu.device.array import GPUArray, Shape, contiguous_strides
from rumus.gpu.device.device import Gpu, Stats
from rumus.gpu.device.host_memory import MappedStorage
from rumus.gpu.device.late_download import read_beside
from rumus.gpu.device.late_read import LateRead
from rumus.gpu.device.layout import layout_of
from rumus.gpu.device.matrix_units import Precision
from rumus.gpu.device.memory import MemoryStats, Storage
from rumus.gpu.device.on_host import HostStorage
from rumus.gpu.device.profile import Profile
from rumus.gpu.device.stored import Stored, stored_types
from rumus.gpu.elementwise.copying import contiguous, copy_strided, is_writable, writable
from rumus.gpu.elementwise.elementwise import IDENTITY, Elementwise
from rumus.gpu.engine.errors import LimitError, OutOfMemoryError
from rumus.gpu.optimizer.quantization import Quantization
from rumus.gpu.optimizer.slots import slot_parts, slot_sums
from rumus.gpu.optimizer.updater import DeviceUpdater
from rumus.gpu.products.epilogue import fits
from rumus.gpu.products.matmul import is_long, matmul
from rumus.gpu.rows.batch_norm import BATCH_NORM
from rumus.gpu.rows.ctc import CTC
from rumus.gpu.rows.indexing import check_index, gather, random_words, scatter_add
from rumus.gpu.rows.norms import NORMS
from rumus.gpu.rows.ordering import ORDERING
from rumus.gpu.rows.pooling import POOLS
from rumus.gpu.rows.recurrent import CELLS
from rumus.gpu.rows.reduction import Operation, reduce, scaled_sum
from rumus.gpu.rows.rows import ROW_KERNELS
from rumus.tensor import DType, Expr, Kernel, float16, float32, int32
from rumus.tensor.memory.backend import Epilogue, Reduction
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.late_array import LateArray
from rumus.tensor.memory.once import once
from rumus.tensor.memory.quantization import BlockTable, Code, Piece
from rumus.tensor.memory.recording import depends_on
from rumus.tensor.memory.section import Section
from rumus.tensor.memory.slot_table import SlotTable
from rumus.tensor.memory.updater import ImmediateUpdater, NonFinite, Updater

FUSED: Final[Mapping[FusedName, Callable[..., None]]] = {
    **ATTENTION,
    **BATCH_NORM,
    **CELLS,
    **CONVOLUTIONS,
    **CTC,
    **NORMS,
    **ORDERING,
    **POOLS,
    **ROW_KERNELS,
    "scaled_sum": scaled_sum,
}
IN_HALF: Final[Collection[FusedName]] = ("attention", "convolution", "layer_norm", "rms_norm")
_FILL: Final = Kernel("fill", {"out": Expr.scalar("value")}, ())
_SIZE: Final = Expr.array("x").abs()
_BOUNDED: Final = Kernel("bounded", {"out": _SIZE / (Expr.scalar("limit") > _SIZE)}, ("x",))


@lru_cache(maxsize=4096)
def _memory(name: str, itemsize: int, shape: Shape) -> tuple[int, str]:
    """The bytes of an array, and its label in messages."""
    return math.prod(shape) * itemsize, f"{name}{list(shape)}"


class GpuBackend:
    """Arrays in the memory of one `Gpu`. See `Backend` for the methods.

    gpu: by default, the best device.
    precision: of products of float32 arrays on that device, see `Gpu.precision`; by default, the
        device's. `with backend.at_precision("high"):` changes it for a block.

    Raises NoAdapterError if there is no GPU, ValueError for an unknown precision.
    """

    def __init__(self, gpu: Gpu | None = None, *, precision: Precision | None = None) -> None:
        self.gpu = Gpu() if gpu is None else gpu
        if precision is not None:
            self.gpu.precision = precision
        self.alignment = self.gpu.limits.alignment
        self._stored = stored_types(self.gpu.has("shader-f16"))
        self._elementwise = Elementwise(self.gpu)
        self.quantization = Quantization(self)
        self._updaters: weakref.WeakSet[DeviceUpdater] = weakref.WeakSet()
        self._cut: weakref.WeakKeyDictionary[SlotTable, GPUArray] = weakref.WeakKeyDictionary()
        self._ones: dict[DType, GPUArray] = {}

    def __repr__(self) -> str:
        return f"GpuBackend({self.gpu.name!r})"

    @property
    def name(self) -> str:
        """Its name in messages."""
        return "gpu"

    @property
    def runs_ahead(self) -> bool:
        """Whether the device works while the host continues."""
        return True

    @property
    def stats(self) -> Stats:
        """Counts of transfers and dispatches."""
        return self.gpu.stats

    @property
    def max_array_bytes(self) -> int:
        """The largest array: as much as a kernel can bind as one buffer."""
        return self.gpu.limits.binding

    @property
    def precision(self) -> Precision:
        """The precision of products of float32 arrays; see `Gpu.precision`."""
        return self.gpu.precision

    def at_precision(self, level: Precision) -> AbstractContextManager[None]:
        """Within a block, compute products at another precision.

        level: "highest", "high" or "medium".
        """
        return self.gpu.at_precision(level)

    def memory_stats(self) -> MemoryStats:
        """Return the bytes held by arrays, kept for reuse, and at the peak."""
        return self.gpu.memory_stats()

    def allocate(self, shape: Shape, dtype: DType) -> GPUArray:
        """Return a new array. Raises LimitError if it is larger than the device can bind."""
        stored = self._stored_as(dtype)
        storage = self.gpu.allocate(*_memory(stored.name, stored.itemsize, shape))
        return GPUArray(self, storage, stored, shape, contiguous_strides(shape))

    def allocate_on_host(self, shape: Shape, dtype: DType) -> GPUArray | None:
        """Return a new array in host memory that kernels access over the bus.

        None if the engine has no such memory. Raises TypeError and LimitError like `allocate`,
        OutOfMemoryError if the host is full.

        shape: of the array.
        dtype: of its elements.
        """
        stored = self._stored_as(dtype)
        storage = self.gpu.allocate_on_host(*_memory(stored.name, stored.itemsize, shape))
        if storage is None:
            return None
        return GPUArray(self, storage, stored, shape, contiguous_strides(shape))

    def _stored_as(self, dtype: DType) -> Stored:
        stored = self._stored.get(dtype)
        if stored is None:
            raise TypeError(f"a GPU has no {dtype}; convert to float32, or stay on the CPU backend")
        return stored

    def mapped(self, memory: memoryview, dtype: DType) -> GPUArray | None:
        """Return a flat array over host memory, which several processes may share.

        memory: writable; its address and length are multiples of `device.host_alignment`. Kernels
            access it over the bus. Processes that share it must coordinate: `synchronize` waits
            until this device has finished. None if the engine has no such buffers.
        dtype: of its elements.
        """
        stored = self._stored.get(dtype)
        storage = self.gpu.mapped(memory)
        if stored is None or storage is None:
            return None
        return GPUArray(self, storage, stored, (memory.nbytes // stored.itemsize,), (1,))

    def upload(self, host: NDArray[Any]) -> GPUArray:
        """Return a new array with a copy of `host`."""
        array = self.allocate(host.shape, host.dtype)
        if array.size:
            self.gpu.write(array.storage, np.ascontiguousarray(host, array.stored.memory))
            if array.stored.kind == "i":
                array.bounds = array.storage.writes, int(host.min()), int(host.max())
        return array

    def download(self, array: GPUArray) -> NDArray[Any]:
        """Return a NumPy copy of `array`; waits for the device.

        Raises an optimizer's pending error for a step that the device has refused.
        """
        if array.size == 0:
            return np.empty(array.shape, array.dtype)
        start = array.offset * array.stored.itemsize
        source = array if array.is_contiguous and start % 4 == 0 else self.contiguous(array)
        asked = [updater for updater in list(self._updaters) if updater.ask()]
        host = self.gpu.read(source).astype(array.dtype, copy=False)
        for updater in asked:
            updater.poll(wait=True)
            updater.heard()
        return host

    def snapshot(self, array: GPUArray) -> LateArray | None:
        """Return the current contents of `array`, copied on the device and read on first use.

        array: of this backend.

        Any thread may read them without holding up others. None if the device has no room for the
        copy, if `array` is empty, and for arrays in host memory.
        """
        if array.size == 0 or type(array.storage) is not Storage:
            return None
        try:
            kept = self.allocate(array.shape, array.dtype)
        except (OutOfMemoryError, LimitError):
            return None
        self.copy(array, kept)

        def fetch() -> NDArray[Any]:
            return read_beside(self.gpu, kept).astype(array.dtype, copy=False)

        return LateArray(array.shape, array.dtype, fetch)

    def contiguous(self, array: GPUArray) -> GPUArray:
        """Return `array` itself if it is dense and aligned, otherwise a copy that is.

        array: of this backend.
        """
        return contiguous(array)

    def read_later(self, array: GPUArray) -> LateRead:
        """Return a reader that reads an array repeatedly while the host continues.

        array: the array, with its contents at the start of each read.
        """
        return LateRead(self.gpu, array)

    def fill(self, value: float, out: GPUArray) -> None:
        """Set every element to `value`."""
        if out.size:
            self._elementwise.run(_FILL, (), (float(value),), (out,))

    def copy(self, source: GPUArray, out: GPUArray) -> None:
        """Write `source` into `out`, broadcasting and casting as needed."""
        if out.size == 0:
            return
        is_apart = source.storage is not out.storage
        if is_apart and _is_transfer(source, out):
            self.gpu.copy(source, out)  # faster over a bus than a kernel
            return
        if is_apart and out.is_flat and layout_of(source, out.shape) is not None:
            self._elementwise.run(IDENTITY, (source,), (), (out,))
        else:
            copy_strided(self.gpu, source, out)
        out.was_copied_from(source)

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

    def reduce(self, operation: Reduction, array: GPUArray, axes: Shape, out: GPUArray) -> None:
        """Reduce over `axes`; NaN propagates."""
        if out.size == 0:
            return
        if array.size == 0:
            self.fill(1 if operation == "prod" else 0, out)  # the empty product or sum
            return
        with writable(out, array) as target:
            reduce(self.gpu, operation, array, axes, target)

    def matmul(
        self,
        a: GPUArray,
        b: GPUArray,
        out: GPUArray,
        bias: GPUArray | None = None,
        *,
        sums: GPUArray | None = None,
        epilogue: Epilogue | None = None,
        symmetric: bool = False,
    ) -> None:
        """Compute out = a @ b + bias, with broadcast batches, row sums of a, and the epilogue."""
        if out.size == 0 or a.shape[-1] == 0:
            self._multiply_nothing(a, out, bias, sums, epilogue)
            return
        operands = [a, b] if bias is None else [a, b, bias]
        read = operands if epilogue is None else [*operands, *epilogue.arrays]
        if not is_writable(out, *read) or not (sums is None or is_writable(sums, *read)):
            with ExitStack() as stack:
                target = stack.enter_context(writable(out, *read))
                summed = None if sums is None else stack.enter_context(writable(sums, *read))
                self.matmul(a, b, target, bias, sums=summed, epilogue=epilogue, symmetric=symmetric)
        elif epilogue is None or (
            fits(self.gpu.limits, epilogue, operands, out) and not is_long(self.gpu, a)
        ):
            matmul(self.gpu, a, b, out, bias, sums, epilogue, symmetric)
        else:
            matmul(self.gpu, a, b, out, bias, sums, symmetric=symmetric)
            epilogue.run(self, out)

    def product_dtype(self, dtype: DType) -> DType:
        """Return float16 for float32 at "medium" on matrix units, else `dtype`."""
        if dtype != float32 or self.gpu.units is None:
            return dtype
        depends_on(self.gpu, "precision")
        return float16 if self.gpu.precision == "medium" else dtype

    def _multiply_nothing(
        self,
        a: GPUArray,
        out: GPUArray,
        bias: GPUArray | None,
        sums: GPUArray | None,
        epilogue: Epilogue | None,
    ) -> None:
        """The product where it is empty, or sums over no elements."""
        if out.size:
            self.fill(0, out) if bias is None else self.copy(bias, out)
        if sums is not None:
            self.reduce("sum", a, (1,), sums)
        if epilogue is not None:
            epilogue.run(self, out)

    def gather(self, table: GPUArray, index: GPUArray, out: GPUArray) -> None:
        """out[i...] = table[index[i...]]. IndexError before anything is written."""
        check_index(self.gpu, index, table.shape[0])
        if out.size:
            with writable(out, table, index) as target:
                gather(self.gpu, table, index, target)

    def scatter_add(self, source: GPUArray, index: GPUArray, out: GPUArray) -> None:
        """out[index[i...]] += source[i...]. IndexError before anything is written."""
        check_index(self.gpu, index, out.shape[0])
        if source.size:
            with writable(out, source, index, keeps=True) as target:
                scatter_add(self.gpu, source, index, target)

    def random_words(
        self, key: int, counter: int, out: GPUArray, behind: GPUArray | None = None
    ) -> None:
        """Fill int32 `out` with Philox4x32-10 words, those of every other backend."""
        if out.size:
            with writable(out) as target:
                at = self._not_behind if behind is None else self.contiguous(behind)
                random_words(self.gpu, key, counter, target, at)

    @cached_property
    def _not_behind(self) -> GPUArray:
        """A `behind` of 0: random words start at the counter given by the host."""
        return self.upload(np.zeros(2, np.int32))

    def fused(self, name: FusedName) -> Callable[..., None] | None:
        """Return the kernel of a composite, or None."""
        found = FUSED.get(name)
        return None if found is None else partial(found, self.gpu)

    @property
    def fused_in_half(self) -> Collection[FusedName]:
        """The composites whose kernels take float16 too."""
        return IN_HALF

    def memory_of(self, array: GPUArray) -> Storage | None:
        """Return an array's memory as an object; see `rumus.tensor.memory.last_use.Sharing`.

        array: of this backend.
        """
        return array.storage if array.is_contiguous else None

    def profile(self) -> AbstractContextManager[Profile]:
        """Time every kernel dispatched in a `with` block."""
        return self.gpu.profile()

    def observe(self) -> AbstractContextManager[Notes]:
        """Observe a step; see `rumus.tensor.memory.recording`."""
        return observe(self)

    def record(
        self, batch: Sequence[GPUArray | NDArray[Any]], observed: Notes
    ) -> AbstractContextManager[Capture]:
        """Record a step, so that it can be replayed without its code.

        batch: the arrays that differ in each step.
        observed: the observation of an earlier step.
        """
        return record(self, batch, observed)

    def compare(
        self, step: Capture, batch: Sequence[GPUArray]
    ) -> AbstractContextManager[Comparison]:
        """Compare the execution of a step's code with its recording.

        step: the recorded step.
        batch: the arrays of this step.
        """
        return compare(step, batch)

    def prepare(
        self, kernel: Kernel, arrays: Sequence[GPUArray], out: Sequence[GPUArray]
    ) -> Callable[[Sequence[float]], None]:
        """Return a function of the scalars that runs an elementwise kernel on these arrays.

        kernel: computed for each element.
        arrays: its inputs.
        out: its output.
        """
        return self._elementwise.prepare(kernel, arrays, out)

    def step_finished(self) -> None:
        """Submit the recorded commands if the device is idle."""
        self.gpu.start()

    def one(self, dtype: DType) -> GPUArray:
        """Return a shared 0-dimensional array that holds 1; never write to it.

        dtype: of the array.
        """
        found = self._ones.get(dtype)
        if found is None:
            with self.gpu.watched_by(Nobody()):  # it belongs to no captured step
                found = self._ones[dtype] = self.upload(np.ones((), dtype))
        return found

    def sum_of_squares(self, array: GPUArray) -> GPUArray:
        """Return the sum of the squares of all elements, in float32."""
        if array.size == 0:
            return self.upload(np.zeros((), np.float32))
        return self._whole("squares", array, float32)

    def slot_sums(
        self,
        array: GPUArray,
        table: SlotTable,
        out: GPUArray,
        *,
        squared: bool = False,
        added: bool = False,
    ) -> None:
        """Write the sum of each slot of a flat array to each of its rows, or the total of all."""
        if not table.rows:
            if not out.shape and not added:
                self.fill(0.0, out)
            return
        with writable(out, array, keeps=added) as target:
            for call in slot_sums(self.gpu, array, self.cut(table), target, squared, added):
                self.gpu.dispatch(*call)

    def cut(self, table: SlotTable) -> GPUArray:
        """Return the parts that a table's slots are split into, uploaded once per table.

        table: where the slots begin and end.
        """
        found = self._cut.get(table)
        if found is None:
            found = self._cut[table] = self.upload(slot_parts(table))
        return found

    def quantize(
        self,
        values: GPUArray,
        code: Code,
        table: BlockTable,
        piece: Piece,
        codes: GPUArray,
        scales: GPUArray,
    ) -> None:
        """Write 8-bit codes, and a scale for each block, of a piece of flat memory."""
        if table.number:
            call = self.quantization.quantize(values, code, table, piece, codes, scales)
            self.gpu.dispatch(*call)

    def dequantize(
        self,
        codes: GPUArray,
        scales: GPUArray,
        code: Code,
        table: BlockTable,
        piece: Piece,
        out: GPUArray,
    ) -> None:
        """Write the values that a piece's codes represent."""
        if table.number:
            call = self.quantization.dequantize(codes, scales, code, table, piece, out)
            self.gpu.dispatch(*call)

    def first_not_finite(self, array: GPUArray, limit: float = math.inf) -> int | None:
        """Return the flat index of the first element that is NaN or infinite; reads it.

        limit: a magnitude that counts as infinite.
        """
        if array.size == 0:
            return None
        if limit < math.inf:
            bounded = self.allocate(array.shape, float32)
            self.elementwise(_BOUNDED, (array,), _BOUNDED.bind({"limit": limit}), (bounded,))
            array = bounded
        found = int(self.gpu.read(self._whole("first_not_finite", array, int32)))
        return None if found < 0 else found

    def updater(
        self,
        kernel: Kernel,
        sections: Sequence[Section],
        counts: Sequence[int],
        nonfinite: NonFinite,
    ) -> Updater:
        """Return the updater that applies an optimizer's steps to `sections`."""
        if nonfinite == "propagate":  # every step is applied, so the device decides nothing
            return ImmediateUpdater(kernel, sections, counts, nonfinite)
        return DeviceUpdater(self, kernel, sections, counts, nonfinite)

    def watch(self, updater: DeviceUpdater) -> None:
        """Notify an updater of reads, which wait for the device anyway.

        updater: the updater to notify.
        """
        self._updaters.add(updater)

    def _whole(self, operation: Operation, array: GPUArray, dtype: DType) -> GPUArray:
        """All elements, reduced to one."""
        out = self.allocate((), dtype)
        reduce(self.gpu, operation, array, tuple(range(array.ndim)), out)
        return out


def _is_transfer(source: GPUArray, out: GPUArray) -> bool:
    """Whether one side is host memory and the bytes can be copied unchanged."""
    return (
        any(isinstance(each.storage, (MappedStorage, HostStorage)) for each in (source, out))
        and source.stored is out.stored
        and source.shape == out.shape
        and source.is_flat
        and out.is_flat
        and source.nbytes % 4 == 0
    )


@once
def default_backend() -> GpuBackend:
    """Return the backend of this process's GPU, always the same object.

    Raises NoAdapterError, which says what to install, if there is no GPU.
    """
    return GpuBackend()

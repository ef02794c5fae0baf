"""The CPU backend with numba: a large elementwise kernel runs as one compiled loop.

Kernels that are small, have mixed layouts, or spend their time in functions that NumPy vectorizes
and numba does not stay with `NumpyBackend`. The choice depends only on a kernel's text and its
shapes, so two runs of a program give the same bits. The first call that needs numba imports it,
which takes half a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from functools import cache, partial
from struct import Struct
from struct import error as StructError
from typing import Any, Final, TypeAlias

import numpy as np

from rumus.tensor.backends import (
    numba_attention,
    numba_batch_norm,
    numba_convolution,
    numba_pooling,
    numba_quantization,
    numba_recurrent,
    numba_rows,
    numba_small_convolution,
)
from rumus.tensor.backends.numba_flushing import flushed, flushed_entry
from rumus.tensor.backends.numba_looks import BoundLook, can_look
from rumus.tensor.backends.numba_products import bound_product, row_sums
from rumus.tensor.backends.numpy_backend import NumpyBackend, flatten, share_blocks
from rumus.tensor.backends.numpy_rows import check_index
from rumus.tensor.backends.numpy_sums import has_many_repeats
from rumus.tensor.compiled import numba_blas, numba_math
from rumus.tensor.compiled.numba_blas import ALONE, SHARED
from rumus.tensor.compiled.numba_entries import BoundEntry, address_of
from rumus.tensor.compiled.numba_loops import (
    compiled_kernel,
    entry_source,
    has_loop,
    kernel_entry,
    numba_source,
)
from rumus.tensor.compiled.numba_shapes import reads
from rumus.tensor.compiled.shared_work import BLOCK, PARALLEL, run_parts, thread_count
from rumus.tensor.compiled.whole_numba import whole_numba
from rumus.tensor.expression.arguments import place_arguments
from rumus.tensor.expression.dtype import DType, float16, float32, float64
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.backend import Array, Epilogue
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.philox import ROUNDS
from rumus.tensor.memory.quantization import BlockTable, Code, Piece
from rumus.tensor.memory.watching import watched

SMALL: Final = 16_384  # below this many elements, NumPy calls cost less than compiling
COSTLY: Final = 65_536  # from this many `exp` or the like on, starting threads pays off
TINY: Final = 1.2e-38  # below this, float32 loses digits, and a flushed loop writes 0
FEW: Final = 512  # below this many elements, row sums are not computed as a product

Run: TypeAlias = Callable[[Sequence[float]], object]

_OWN: Final[Mapping[FusedName, Callable[..., None]]] = {
    **numba_recurrent.RECURRENT,
    **numba_rows.ROW_KERNELS,
    "attention": numba_attention.attention,
    "attention_gradient": numba_attention.attention_gradient,
    "avg_pool": numba_pooling.avg_pool,
    "avg_pool_gradient": numba_pooling.avg_pool_gradient,
    "batch_norm": numba_batch_norm.batch_norm,
    "batch_norm_gradient": numba_batch_norm.batch_norm_gradient,
    "columns": numba_convolution.columns,
    "convolution_bias": numba_convolution.convolution_bias,
    "from_columns": numba_convolution.from_columns,
    "small_convolution": numba_small_convolution.small_convolution,
    "small_convolution_weight": numba_small_convolution.small_convolution_weight,
    "max_pool": numba_pooling.max_pool,
    "max_pool_gradient": numba_pooling.max_pool_gradient,
}
FUSED: Final = {name: watched(function) for name, function in _OWN.items()}


def _philox(key: int, first: int, start: int, stop: int, out: Any) -> None:
    """For numba to compile: write words 4 * start .. 4 * stop, counted from block `first`."""
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    for block in range(start, stop):
        index = np.uint64(first + block)
        c0, c1, c2, c3 = index & low, index >> shift, np.uint64(0), np.uint64(0)
        k0, k1 = np.uint64(key) & low, np.uint64(key) >> shift
        for _ in range(ROUNDS):
            p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
            c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
            k0 = (k0 + np.uint64(0x9E3779B9)) & low
            k1 = (k1 + np.uint64(0xBB67AE85)) & low
        words = (c0, c1, c2, c3)
        for column in range(4):
            if 4 * block + column < out.size:
                out[4 * block + column] = np.int32(np.uint32(words[column]))


def _scatter(rows: Any, index: Any, out: Any) -> None:
    """For numba to compile: add each row to the row that its number selects, in order."""
    for n in range(index.size):
        to = index[n]
        for i in range(rows.shape[1]):
            k = np.uintp(i)
            out[to, k] += rows[n, k]


def _scatter_sorted(rows: Any, order: Any, index: Any, out: Any) -> None:
    """For numba to compile: like `_scatter`, but in float64. order: of rows, sorted by number."""
    total = np.zeros(rows.shape[1])
    for n in range(order.size):
        at = order[n]
        to = index[at]
        for i in range(total.size):
            k = np.uintp(i)
            total[k] += rows[at, k]
        if n + 1 == order.size or index[order[n + 1]] != to:
            for i in range(total.size):
                k = np.uintp(i)
                out[to, k] += total[k]
                total[k] = 0


@cache
def _compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    numba = whole_numba()

    compiled: Callable[..., Any] = numba.njit(nogil=True, cache=True)(loop)
    return compiled


class BoundLoop:
    """A compiled loop with its arrays, as one dimension each: inputs, then outputs.

    All are of the dtype that it computes in.
    """

    def __init__(self, entry: int, kernel: Kernel, dtype: DType, flat: Sequence[Array]) -> None:
        self._entry, self._dtype = entry, dtype
        self._operands, _ = _operands(kernel, flat)
        self._size = flat[0].size
        is_costly = any(node.operation in numba_math.NAMES for node in kernel.nodes)
        self._parts = thread_count() if self._size >= (COSTLY if is_costly else PARALLEL) else 1
        self._scalars: Array = np.empty(len(kernel.uniforms), dtype)
        self._form = Struct(f"{self._scalars.size}{dtype.char}")
        self._bound = self._bind(self._scalars)

    def _bind(self, scalars: Array) -> BoundEntry:
        arrays = [*self._operands, *([scalars] if scalars.size else [])]
        addresses = [*map(address_of, arrays)]
        return BoundEntry(self._entry, addresses, self._size, self._parts, arrays)

    def command(self, scalars: Sequence[float]) -> Callable[[], object]:
        """Return what runs it with these numbers."""
        with np.errstate(over="ignore"):
            return self._bind(np.array(scalars, self._dtype))

    def flushed(self) -> Run:
        """Return a function like `run` that writes 0 for results under 1.2e-38."""
        bound = flushed_entry(self._bound)
        return lambda scalars: self.run(scalars, bound)

    def run(self, scalars: Sequence[float], bound: BoundEntry | None = None) -> None:
        """Run it with these numbers. bound: itself in another form."""
        try:  # the same numbers as below, in a third of the time
            self._form.pack_into(self._scalars, 0, *scalars)
        except (OverflowError, StructError):
            with np.errstate(over="ignore"):
                self._scalars[:] = scalars
        (bound or self._bound)()


class BoundMixedLoop:
    """A compiled loop over arrays of several dtypes, as one dimension each: inputs, then outputs.

    It knows no float16: in and out by blocks.
    """

    def __init__(
        self, loop: Callable[..., None], kernel: Kernel, dtype: DType, flat: Sequence[Array]
    ) -> None:
        self._loop, self._dtype, self._outputs = loop, dtype, kernel.outputs
        self._split = len(kernel.arrays)
        self._operands, self._names = _operands(kernel, flat)
        self._size = flat[0].size
        self._work = self._run

    def command(self, scalars: Sequence[float]) -> Callable[[], object]:
        """Return a function that runs it with these scalars."""
        with np.errstate(over="ignore"):
            values = [self._dtype.type(scalar) for scalar in scalars]
        return partial(run_parts, partial(self._work, values), self._size, self._size >= PARALLEL)

    def flushed(self) -> Run:
        """Return a function like `run` that writes 0 for results under 1.2e-38."""
        other = copy(self)
        other._work = flushed(self._run)
        return other.run

    def run(self, scalars: Sequence[float]) -> None:
        """Run it with these scalars."""
        self.command(scalars)()

    def _run(self, values: Sequence[Any], start: int, stop: int) -> None:
        operands, split, dtype = self._operands, self._split, self._dtype
        for cut in range(start, stop, BLOCK):
            parts = [operand[cut : min(cut + BLOCK, stop)] for operand in operands]
            wide = [p.astype(dtype) if p.dtype == float16 else p for p in parts]
            self._loop(*wide[:split], *values, *wide[split:])
            with np.errstate(over="ignore"):
                for part, result, name in zip(parts, wide, self._names, strict=True):
                    if result is not part and name in self._outputs:
                        np.copyto(part, result, casting="unsafe")


def _operands(kernel: Kernel, flat: Sequence[Array]) -> tuple[list[Array], list[str]]:
    """The arrays that a loop is given, with their names: outputs that are no input come last."""
    split = len(kernel.arrays)
    outputs = zip(flat[split:], kernel.outputs, strict=True)
    extra = [(array, name) for array, name in outputs if name not in kernel.arrays]
    return (
        [*flat[:split], *(array for array, _ in extra)],
        [*kernel.arrays, *(name for _, name in extra)],
    )


@place_arguments
class NumbaBackend(NumpyBackend):
    """A `NumpyBackend` that uses compiled loops where they are faster."""

    name = "numba"

    def __init__(self) -> None:
        super().__init__()
        self._loops: dict[tuple[str, DType], int] = {}  # where they lie
        self._mixed: dict[tuple[str, DType], Callable[..., None]] = {}

    @watched
    def elementwise(
        self,
        kernel: Kernel,
        arrays: Sequence[Array],
        scalars: Sequence[float],
        out: Sequence[Array],
    ) -> None:
        loop = self.loop_of(kernel, arrays, out)
        if loop is None:
            super().elementwise(kernel, arrays, scalars, out)
        else:
            loop.run(scalars)

    def _prepared(
        self, kernel: Kernel, arrays: Sequence[Array], out: Sequence[Array]
    ) -> Callable[[Sequence[float]], object] | None:
        loop = self.loop_of(kernel, arrays, out)
        if loop is not None:
            return _but_with_tiny(loop.run, loop.flushed())
        run = super()._prepared(kernel, arrays, out)
        # What is broadcast, or one number, may be the square of a norm: its factor may be tiny.
        (size, *others) = {array.size for array in (*arrays, *out)}
        is_flat = size > 1 and not others
        return _but_with_tiny(run, flushed(run)) if run is not None and is_flat else run

    def loop_of(
        self, kernel: Kernel, arrays: Sequence[Array], out: Sequence[Array]
    ) -> BoundLoop | BoundMixedLoop | None:
        """Return a compiled loop on these arrays, None where NumPy's calls cost less.

        kernel: what is computed for each element.
        arrays: what it reads.
        out: what it writes.
        """
        if out[0].size <= SMALL or len(kernel.nodes) <= 1:
            return None
        flat = flatten([*arrays, *out], out[0].shape)
        dtype = kernel.types(tuple([array.dtype for array in arrays])).compute
        loaded = (dtype, float16) if dtype == float32 else (dtype,)
        plain = has_loop(kernel, dtype) and all(a.dtype in loaded for a in arrays)
        if flat is None or not plain or not all(array.ndim for array in flat):
            return None
        key = kernel.key, dtype
        if any(array.dtype != dtype for array in flat):
            loop = self._mixed.get(key)
            if loop is None:
                loop = self._mixed[key] = compiled_kernel(numba_source(kernel), dtype)
            return BoundMixedLoop(loop, kernel, dtype, flat)
        entry = self._loops.get(key)
        if entry is None:
            entry = self._loops[key] = kernel_entry(entry_source(kernel, dtype), dtype)
        return BoundLoop(entry, kernel, dtype, flat)

    @watched
    def quantize(
        self,
        values: Array,
        code: Code,
        table: BlockTable,
        piece: Piece,
        codes: Array,
        scales: Array,
    ) -> None:
        numba_quantization.quantize(values, code, table, piece, codes, scales, share_blocks)

    @watched
    def dequantize(
        self,
        codes: Array,
        scales: Array,
        code: Code,
        table: BlockTable,
        piece: Piece,
        out: Array,
    ) -> None:
        numba_quantization.dequantize(codes, scales, code, table, piece, out, share_blocks)

    @watched
    def fused(self, name: FusedName) -> Callable[..., None] | None:
        if name.startswith("recurrence") and numba_blas.single() is None:
            return None
        return FUSED.get(name) or super().fused(name)

    @watched
    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array,
        bias: Array | None = None,
        *,
        sums: Array | None = None,
        epilogue: Epilogue | None = None,
        symmetric: bool = False,
    ) -> None:
        product = bound_product(a, b, out, bias, sums, epilogue)
        if product is None:
            super().matmul(a, b, out, bias, sums=sums, epilogue=epilogue)
            return
        with numba_blas.alone(), np.errstate(all="ignore"):
            product()

    def _sum_rows(self, a: Array, out: Array) -> None:
        if a.size < FEW or out.dtype != float32 or numba_blas.single() is None:
            super()._sum_rows(a, out)
            return
        with numba_blas.alone(), np.errstate(all="ignore"):
            row_sums(a, out)()

    def is_one_product(self, a: Array, out: Array) -> bool:
        """a: the first factor.
        out: what is written.
        """
        is_known = out.dtype in (float32, float64) and numba_blas.single() is not None
        return out.size * a.shape[-1] < SHARED or not is_known

    def undisturbed(self) -> AbstractContextManager[None]:
        """Keep the BLAS on one thread: its other threads would spin while compiled loops run."""
        return super().undisturbed() if numba_blas.single() is None else numba_blas.alone()

    def _multiply(self, a: Array, b: Array, out: Array, bias: Array | None) -> None:
        products = out.size * a.shape[-1]
        is_known = out.dtype in (float32, float64) and numba_blas.single() is not None
        if products < ALONE or not is_known:
            super()._multiply(a, b, out, bias)
            return
        if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and out.flags.c_contiguous:
            a, out = a.reshape(-1, a.shape[-1]), out.reshape(-1, out.shape[-1])
        rows, columns = out.shape[-2:]

        def work(start: int, stop: int) -> None:
            part = slice(start, stop)
            if rows >= columns:
                NumpyBackend._multiply(self, a[..., part, :], b, out[..., part, :], bias)
                return
            added = None if bias is None else bias[part]
            NumpyBackend._multiply(self, a, b[..., part], out[..., part], added)

        with numba_blas.alone():
            run_parts(work, max(rows, columns), products >= SHARED)

    @watched
    def scatter_add(self, source: Array, index: Array, out: Array) -> None:
        length = math.prod(out.shape[1:])
        if source.size < 1024 or source.dtype == float16 or not out.flags.c_contiguous:
            super().scatter_add(source, index, out)
            return
        check_index(index, len(out))
        reads("scatter_add", source=(source, (*index.shape, *out.shape[1:])))
        rows, numbers = np.ascontiguousarray(source).reshape(index.size, length), index.reshape(-1)
        with np.errstate(all="ignore"):
            target = out.reshape(len(out), length)
            if out.dtype.kind == "f" and has_many_repeats(numbers):
                order = np.argsort(numbers, kind="stable")
                _compiled(_scatter_sorted)(rows, order, numbers, target)
            else:
                _compiled(_scatter)(rows, numbers, target)

    @watched
    def first_not_finite(self, array: Array, limit: float = math.inf) -> int | None:
        if array.size < PARALLEL or not can_look(array):
            return super().first_not_finite(array, limit)
        return super().first_not_finite(array, limit) if BoundLook(array, limit)() else None

    def _prepared_look(self, array: Array, limit: float) -> Callable[[], bool] | None:
        return BoundLook(array, limit) if can_look(array) else None

    @watched
    def random_words(self, key: int, counter: int, out: Array, behind: Array | None = None) -> None:
        if out.size < 1024 or not out.flags.c_contiguous or behind is not None:
            super().random_words(key, counter, out, behind)
            return
        flat, seed, loop = out.reshape(-1), np.uint64(key), _compiled(_philox)
        blocks = -(-flat.size // 4)
        first = counter // 4
        run_parts(lambda a, b: loop(seed, first, a, b, flat), blocks, flat.size >= PARALLEL)


def _but_with_tiny(run: Run, flushed_run: Run) -> Run:
    """Return the second function, but the first where a scalar is tiny, as a factor may be."""

    def call(scalars: Sequence[float]) -> object:
        for scalar in scalars:
            if -TINY < scalar < TINY and scalar != 0.0:
                return run(scalars)
        return flushed_run(scalars)

    return call

"""Products that add a bias and apply an epilogue while their elements are still in cache.

Threads share the rows of a large product: each multiplies its rows and then visits them again in
one compiled loop. The arrays are analyzed once, so a captured step only runs the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np

from rumus.tensor.backends.numpy_sums import LONG_VECTOR, as_one_product, is_cut, multiply
from rumus.tensor.compiled import numba_blas
from rumus.tensor.compiled.numba_addresses import call, int64s, sgemm
from rumus.tensor.compiled.numba_blas import ALONE, HANDED, PLAIN, SHARED
from rumus.tensor.compiled.numba_entries import BoundEntry, address_of, fixed_entry
from rumus.tensor.compiled.numba_loops import (
    compiled_kernel,
    has_loop,
    kernel_entry,
    tail_entry_source,
    tail_source,
)
from rumus.tensor.compiled.product_blocks import block, laid
from rumus.tensor.compiled.shared_work import run_parts, thread_count
from rumus.tensor.expression.dtype import DType, float32, float64
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.memory.backend import Array, Epilogue

SMALL: Final = 4096  # below this many elements of a result, NumPy calls cost less than compiling
FEW_ROWS: Final = 16  # rows of a part: each part reads the whole second factor

AS_IT_IS: Final = Kernel("as_it_is", {"x": Expr.array("x")})

Work: TypeAlias = Callable[[], object]


def bound_product(
    a: Array,
    b: Array,
    out: Array,
    bias: Array | None,
    sums: Array | None,
    epilogue: Epilogue | None,
) -> Work | None:
    """Return a function that multiplies these arrays, like `Backend.matmul`; None to use NumPy.

    Its caller has turned off NumPy's warnings and made the BLAS run `alone`.
    """
    shape = out.shape
    a, out = as_one_product(a, b, out)
    if (
        max(a.ndim, b.ndim, out.ndim) > 2
        or (out.size < SMALL and not (bias is None and epilogue is None))
        or not out.flags.c_contiguous
        or out.dtype not in (float32, float64)
        or not out.dtype == a.dtype == b.dtype
        or is_cut(a, out)
        or numba_blas.single() is None
    ):
        return None
    tail = _tail(out, shape, bias, epilogue)
    if tail is None and (bias is not None or epilogue is not None):
        return None
    rows, columns = out.shape
    products = out.size * a.shape[1]
    is_shared = products >= SHARED
    is_handed = products >= HANDED and rows < columns  # and reads the second factor in halves
    if is_handed and not _is_in_blocks(a, b, out):
        return _by_columns(a, b, out, tail, sums)
    entry = _entry(a, b, out, tail, sums, products)
    if entry is not None:
        return entry
    edges = [0, rows]
    if is_shared:
        count = thread_count()
        edges = [rows * i // count for i in range(count + 1)]
    parts = [_part(a, b, out, tail, sums, slice(*edge)) for edge in pairwise(edges)]
    return parts[0] if len(parts) == 1 else partial(_share, parts)


def _entry(
    a: Array, b: Array, out: Array, tail: _Tail | None, sums: Array | None, products: int
) -> BoundEntry | None:
    """All of a product as one entry; None where the BLAS cannot take its arrays as they lie."""
    left, right = laid(a), laid(b)
    if out.dtype != float32 or not out.size or left is None or right is None:
        return None
    if sums is not None and (a.shape[1] > LONG_VECTOR or not sums.flags.c_contiguous):
        return None
    (turned, step), (turned_b, step_b) = left, right
    columns, depth = out.shape[1], a.shape[1]
    follows = None if tail is None else tail.bound(len(out))
    summed = () if sums is None else (sums, _ones(depth, out.dtype))
    numbers = [
        numba_blas.address(), turned, turned_b, columns, depth,
        address_of(a), a.strides[0], step, address_of(b), b.strides[1], step_b, address_of(out),
        *((0, 0) if follows is None else map(int, follows.row[:2])),
        *(map(address_of, summed) if summed else (0, 0)),
        *block(len(out), depth, columns, (turned, turned_b)),
    ]  # fmt: skip
    parts = thread_count() if products >= ALONE and len(out) >= thread_count() * FEW_ROWS else 1
    alive = a, b, out, summed, follows
    return BoundEntry(_product_entry(), numbers, len(out), parts, alive)


def _is_in_blocks(a: Array, b: Array, out: Array) -> bool:
    """Whether a product is cut into blocks, so that threads need not share its columns."""
    left, right = laid(a), laid(b)
    if out.dtype != float32 or left is None or right is None:
        return False
    rows, columns = out.shape
    return block(rows, a.shape[1], columns, (left[0], right[0])) != (rows, columns)


def _product(place: int, start: int, stop: int) -> None:
    """For numba to compile: some rows of a product, and all that belongs to them."""
    n = int64s(place)
    columns, depth, down, across = n[3], n[4], n[16], n[17]
    for top in range(start, stop, down):
        rows, a = min(down, stop - top), n[5] + top * n[6]
        out = n[11] + 4 * top * columns
        for left in range(0, columns, across):
            wide, b = min(across, columns - left), n[8] + left * n[9]
            sgemm(n[0], n[1], n[2], rows, wide, depth, a, n[7], b, n[10], out + 4 * left, columns)
        if n[12] != 0:
            call(n[12], n[13], top, top + rows)
        if n[14] != 0:
            sgemm(n[0], n[1], PLAIN, rows, 1, depth, a, n[7], n[15], 1, n[14] + 4 * top, 1)


@lru_cache(maxsize=1)
def _product_entry() -> int:
    return fixed_entry(_product)


def _part(
    a: Array, b: Array, out: Array, tail: _Tail | None, sums: Array | None, rows: slice
) -> Work:
    """Some rows of a product, with their share of the other arrays."""
    work: list[Work] = [partial(np.matmul, a[rows], b, out[rows])]
    if tail is not None:
        work.append(tail.of(rows))
    if sums is not None:
        work.append(row_sums(a[rows], sums[rows]))
    return work[0] if len(work) == 1 else partial(_each, work)


def _by_columns(a: Array, b: Array, out: Array, tail: _Tail | None, sums: Array | None) -> Work:
    """A product with more columns than rows: threads share the columns, then the epilogue runs."""
    count, columns = thread_count(), out.shape[1]
    edges = [columns * i // count for i in range(count + 1)]
    cuts = [slice(*edge) for edge in pairwise(edges)]
    parts: list[Work] = [partial(np.matmul, a, b[:, cut], out[:, cut]) for cut in cuts]
    work: list[Work] = [partial(_share, parts)]
    if tail is not None:
        rows = len(out)
        halves = [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]
        work.append(partial(_share, [tail.of(half) for half in halves]))
    if sums is not None:
        work.append(row_sums(a, sums))
    return work[0] if len(work) == 1 else partial(_each, work)


def row_sums(a: Array, sums: Array) -> Work:
    """A function that sums each row: a product with ones, which reads `a` once in any layout."""
    return partial(multiply, a, _ones(a.shape[1], a.dtype), sums[:, None])


@lru_cache(maxsize=8)
def _ones(length: int, dtype: DType) -> Array:
    return np.ones((length, 1), dtype)


def _each(work: Sequence[Work]) -> None:
    for part in work:
        part()


def _share(parts: Sequence[Work]) -> None:
    """Run one part on each thread."""

    def work(start: int, stop: int) -> None:
        with np.errstate(all="ignore"):  # the setting belongs to each thread
            for part in parts[start:stop]:
                part()

    run_parts(work, len(parts), True)


class _Tail:
    """A compiled loop over rows of a product: its bias and its epilogue."""

    def __init__(
        self,
        kernel: Kernel,
        arrays: Sequence[Array],
        bias: Array | None,
        scalars: Sequence[Any],
    ) -> None:
        self._kernel, self._arrays, self._scalars = kernel, arrays, scalars
        self._bias = () if bias is None else (bias,)

    def bound(self, rows: int) -> BoundEntry:
        """Return what goes over all rows, or some."""
        dtype, columns = self._arrays[0].dtype, self._arrays[0].shape[1]
        entry = _tail_entry(self._kernel, bool(self._bias), dtype)
        scalars = np.array(self._scalars, dtype)
        arrays = [*self._arrays, *self._bias, *([scalars] if scalars.size else [])]
        return BoundEntry(entry, [columns, *map(address_of, arrays)], rows, 1, arrays)

    def of(self, rows: slice) -> Work:
        """Return a function that processes some rows."""
        parts = [array[rows] for array in self._arrays]
        loop = _loop(self._kernel, bool(self._bias), self._arrays[0].dtype)
        return partial(loop, *parts, *self._bias, *self._scalars)


def _tail(
    out: Array, shape: tuple[int, ...], bias: Array | None, epilogue: Epilogue | None
) -> _Tail | None:
    """The loop after a product; None if there is nothing to do, or no loop supports it."""
    if bias is None and epilogue is None:
        return None
    kernel = AS_IT_IS if epilogue is None else epilogue.kernel
    others = [] if epilogue is None else [*epilogue.arrays, *epilogue.out]
    dtype = out.dtype
    if (
        not has_loop(kernel, dtype)
        or any(x.shape != shape or x.dtype != dtype or not x.flags.c_contiguous for x in others)
        or (bias is not None and (bias.shape != out.shape[1:] or bias.dtype != dtype))
    ):
        return None
    with np.errstate(over="ignore"):
        scalars = [dtype.type(s) for s in (() if epilogue is None else epilogue.scalars)]
    flat = [out, *(x.reshape(out.shape) for x in others)]
    return _Tail(kernel, flat, None if bias is None else np.ascontiguousarray(bias), scalars)


@lru_cache(maxsize=256)
def _loop(kernel: Kernel, has_bias: bool, dtype: DType) -> Callable[..., None]:
    return compiled_kernel(tail_source(kernel, has_bias), dtype)


@lru_cache(maxsize=256)
def _tail_entry(kernel: Kernel, has_bias: bool, dtype: DType) -> int:
    return kernel_entry(tail_entry_source(kernel, has_bias, dtype), dtype)

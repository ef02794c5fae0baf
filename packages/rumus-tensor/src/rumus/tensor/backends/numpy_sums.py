"""Accurate sums of many numbers: over axes, in products, of repeated rows.

Adding a million float32 numbers one after another loses three digits: each is rounded to the
precision of the growing sum. So short runs are added first, and then runs of their sums. The split
depends only on the shapes, and so do the bits of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

import numpy as np

from rumus.tensor.compiled import numba_blas
from rumus.tensor.expression.dtype import DType
from rumus.tensor.memory.backend import Array, Shape

RUN: Final = 64  # rows that are added one after another
BLOCK: Final = 32_768  # elements whose squares stay in cache
LONG: Final = 16_384  # from this many terms on, a product is split; the BLAS adds in its own runs
LONG_VECTOR: Final = 8192  # the same for a row or a column, which the BLAS adds without runs
PART: Final = 128  # terms in each part of a product
ONE_THREAD: Final = 8192  # elements of a matrix that OpenBLAS multiplies by a vector on one thread
FEW: Final = 4096  # elements of a result that may have many parts at a time


def add_up(array: Array, axes: Shape, out: Array) -> None:
    """out = the sums over `axes`, float16 in float32: in float16 a sum of ones stops at 2048.

    NumPy adds pairwise along the last axis, and row after row along the others.
    """
    dtype = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype
    while dtype.kind == "f" and (axis := _long_axis(array, axes)) is not None:
        array = _sums_of_runs(array, axis, dtype)
    np.add.reduce(array, axes, dtype, out)


def row_sums(array: Array, out: Array) -> Callable[[], object]:
    """Return what writes the sum of each row of a matrix to `out`.

    A product with ones takes half the time. The BLAS adds in an order that depends on its threads,
    so only where it surely takes one.
    """
    is_product = (
        array.ndim == 2
        and 0 < array.size <= ONE_THREAD
        and array.dtype in (np.float32, np.float64)
        and out.flags.c_contiguous
        and numba_blas.single() is not None
    )
    if is_product:
        return partial(np.matmul, array, _ones(array.shape[1], array.dtype), out)
    if is_short(array, (1,)):
        return partial(np.add.reduce, array, (1,), None, out)
    return partial(add_up, array, (1,), out)


@lru_cache(maxsize=8)
def _ones(length: int, dtype: DType) -> Array:
    return np.ones(length, dtype)


def is_short(array: Array, axes: Shape) -> bool:
    """Whether `add_up` adds floating numbers in a single call of NumPy, in their own dtype."""
    return array.dtype != np.float16 and _long_axis(array, axes) is None


def root_of_squares(array: Array, axes: Shape, out: Array) -> None:
    """out = the roots of the sums of squares over `axes`, even if squares leave the dtype.

    Whether they do shows in the sums, so usual numbers are read once.
    """
    if not array.size:
        out.fill(0)
        return
    array = array.astype(np.float32) if array.dtype == np.float16 else array
    sums = np.empty(out.shape, array.dtype)
    _add_up_squares(array, axes, sums)
    # Below this, squares that became 0 may count.
    limits = np.finfo(array.dtype)
    is_rare = (sums < limits.tiny / limits.eps) | (sums == math.inf)
    np.copyto(out, np.sqrt(sums, sums), casting="same_kind")
    if is_rare.any():
        rows = np.moveaxis(array, axes, range(len(sums.shape), array.ndim))[is_rare]
        rows = rows.reshape(len(rows), -1)
        largest = np.abs(rows).max(1, keepdims=True)
        largest[(largest == 0) | (largest == math.inf)] = 1
        np.divide(rows, largest, rows)
        found = np.empty(len(rows), array.dtype)
        add_up(np.square(rows, rows), (1,), found)
        out[is_rare] = np.sqrt(found) * largest[:, 0]


def _add_up_squares(array: Array, axes: Shape, out: Array) -> None:
    """out = the sums of squares over `axes`, in blocks where the axes are the last ones."""
    kept = array.ndim - len(axes)
    if axes != tuple(range(kept, array.ndim)) or not array.flags.c_contiguous:
        add_up(np.square(array), axes, out)
        return
    length = math.prod(array.shape[kept:])
    width = min(length, BLOCK)
    rows, step = array.reshape(-1, length), max(1, BLOCK // width)
    sums: Array = (
        out.reshape(-1, 1) if width == length else np.empty((out.size, -(-length // width)))
    )
    for start in range(0, len(rows), step):
        for part, cut in enumerate(range(0, length, width)):
            squares = np.square(rows[start : start + step, cut : cut + width])
            np.add.reduce(squares, 1, array.dtype, sums[start : start + step, part])
    if width < length:
        add_up(sums, (1,), out.reshape(-1))


def _long_axis(array: Array, axes: Shape) -> int | None:
    """The longest of `axes` along which NumPy would add too many rows; None if there is none."""
    if len(axes) == array.ndim and array.flags.c_contiguous:
        return None  # one row
    rows = [
        axis for axis in axes if axis != array.ndim - 1 or array.strides[axis] != array.itemsize
    ]
    if math.prod(array.shape[axis] for axis in rows) <= 2 * RUN:
        return None
    axis = max(rows, key=lambda axis: array.shape[axis])
    return axis if array.shape[axis] > 2 else None


def _sums_of_runs(array: Array, axis: int, dtype: DType) -> Array:
    """The sums of runs of RUN along `axis`, the last of which may be shorter."""
    length = array.shape[axis]
    run = min(RUN, length)
    whole = length - length % run
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    head = (slice(None),) * axis
    sums: Array = np.empty((*before, -(-length // run), *after), dtype)
    runs = array[(*head, slice(0, whole))].reshape((*before, whole // run, run, *after))
    into = sums[(*head, slice(0, whole // run))]
    np.add.reduce(runs, axis + 1, dtype, into)
    if whole < length:
        rest = array[(*head, slice(whole, length))]
        into = sums[(*head, slice(whole // run, None))]
        np.add.reduce(rest, axis, dtype, into, keepdims=True)
    return sums


def as_one_product(a: Array, b: Array, out: Array) -> tuple[Array, Array]:
    """Return a and out as matrices where a batch of products with one b is a single one."""
    if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and out.flags.c_contiguous:
        rows = math.prod(a.shape[:-1])  # -1 cannot be inferred for an empty array
        return a.reshape(rows, a.shape[-1]), out.reshape(rows, out.shape[-1])
    return a, out


def is_cut(a: Array, out: Array) -> bool:
    """Whether `multiply` splits a product."""
    limit = LONG_VECTOR if 1 in out.shape[-2:] else LONG
    return bool(a.shape[-1] > limit and out.dtype == np.float32)


def multiply(a: Array, b: Array, out: Array) -> None:
    """out = a @ b, for matrices or broadcast batches of them; a long product is split."""
    if not is_cut(a, out):
        np.matmul(a, b, out)
    elif math.prod(out.shape[-2:]) <= FEW:
        _multiply_parts(a, b, out)
    else:
        half = a.shape[-1] // 2
        multiply(a[..., :half], b[..., :half, :], out)
        rest = np.empty_like(out)
        multiply(a[..., half:], b[..., half:, :], rest)
        np.add(out, rest, out)


def _multiply_parts(a: Array, b: Array, out: Array) -> None:
    """out = a @ b, all parts at once: their results are small compared with the operands."""
    parts = a.shape[-1] // PART
    whole = parts * PART
    left = a[..., :whole].reshape(*a.shape[:-1], parts, PART).swapaxes(-2, -3)
    right = b[..., :whole, :].reshape(*b.shape[:-2], parts, PART, b.shape[-1])
    found = np.matmul(left, right)
    add_up(found, (found.ndim - 3,), out)
    if whole < a.shape[-1]:
        np.add(out, np.matmul(a[..., whole:], b[..., whole:, :]), out)


def has_many_repeats(index: Array) -> bool:
    """Whether a (non-negative) number repeats so often that its rows are not added one by one."""
    return bool(index.size > RUN and np.bincount(index).max() > RUN)


def without_many_repeats(rows: Array, index: Array) -> tuple[Array, Array]:
    """Return rows and numbers with the same sums by number, none repeated RUN times.

    rows: (n, ...). index: (n,), none negative. Unchanged if no number repeats that often; otherwise
        runs of a number's rows are added, in order.
    """
    while has_many_repeats(index):
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        place = np.arange(index.size) - np.repeat(starts, np.diff(starts, append=index.size))
        runs = np.flatnonzero(place % RUN == 0)
        dtype = np.float32 if rows.dtype == np.float16 else rows.dtype
        rows, index = np.add.reduceat(rows[order], runs, 0, dtype), ordered[runs]
    return rows, index

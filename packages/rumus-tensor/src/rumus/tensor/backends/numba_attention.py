"""Attention on the CPU: products by BLAS, and everything between them in one compiled pass.

Threads take heads one by one, so that a head's scores are still in cache when the next product
reads them; no scores are kept. The gradient computes them again as the forward pass did, bit for
bit: large scores have no digits to spare, so that from the logarithm of a row's sum its weights
would not add up to 1. If the BLAS is known (`numba_blas`), all heads of a thread are one compiled
call; otherwise the products are NumPy's, one example at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.compiled import numba_blas, numba_math
from rumus.tensor.compiled.numba_blas import PLAIN, ROWS, TURNED
from rumus.tensor.compiled.numba_lanes import largest
from rumus.tensor.compiled.numba_math import exp
from rumus.tensor.compiled.numba_shapes import in_float32, reads, writes
from rumus.tensor.compiled.shared_work import run_parts
from rumus.tensor.compiled.whole_numba import whole_numba
from rumus.tensor.memory.backend import Array

VECTORS: Final = 32  # elements that a compiled loop computes at once
PARALLEL: Final = 65_536  # from this many scores on, starting threads pays off
RUN: Final = 1024  # scores added in float32; their sums are in float64


def attention(
    query: Array, key: Array, value: Array, causal: bool, scale: float, out: Array, total: Array
) -> None:
    """out = softmax(query key^T scale) value; total = log(sum(exp(query key^T scale))) of rows."""
    _check(query, key, value, out, total)
    if out.size == 0:
        return
    q, k, v = _examples(query, key), _examples(key, key), _examples(value, key)
    result, sums = _examples(out, key), total.reshape(len(q), -1)
    length, size = query.shape[-2], np.float32(scale)
    is_parallel = total.size * key.shape[-2] >= PARALLEL
    if numba_blas.single() is not None:
        _by_head("forward", (q, k, v, result), causal, length, size, sums, is_parallel)
        _give(result, out)
        return
    loop = _compiled()["weigh"]

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            with np.errstate(all="ignore"):
                scores = np.matmul(q[i], k[i].swapaxes(-1, -2))
                loop(_rows(scores), causal, length, size, sums[i])
                np.matmul(scores, v[i], result[i])

    run_parts(work, len(q), is_parallel)
    _give(result, out)


def attention_gradient(
    query: Array, key: Array, value: Array, causal: bool, scale: float, out: Array, total: Array,
    gradient: Array, into_query: Array, into_key: Array, into_value: Array,
) -> None:  # fmt: skip
    """With P the weights and d = gradient value^T: P^T gradient, and P (d - sum(P d)) scale."""
    _check(query, key, value, out, total)
    in_float32("attention", gradient, into_query, into_key, into_value)
    reads("attention", gradient=(gradient, out.shape), into_query=(into_query, query.shape))
    reads("attention", into_key=(into_key, key.shape), into_value=(into_value, value.shape))
    if out.size == 0:
        for into in (into_query, into_key, into_value):
            into.fill(0)
        return
    q, k, v = _examples(query, key), _examples(key, key), _examples(value, key)
    given, sums = _examples(gradient, key), total.reshape(len(q), -1)
    dq, dk, dv = (_examples(array, key) for array in (into_query, into_key, into_value))
    length, size = query.shape[-2], np.float32(scale)
    is_parallel = total.size * key.shape[-2] >= PARALLEL
    arrays = q, k, v, given, dq, dk, dv
    if numba_blas.single() is not None:
        _by_head("backward", arrays, causal, length, size, sums, is_parallel)
    else:
        _gradient_by_example(arrays, causal, length, size, sums, is_parallel)
    for written, into in ((dq, into_query), (dk, into_key), (dv, into_value)):
        _give(written, into)


def _check(query: Array, key: Array, value: Array, out: Array, total: Array) -> None:
    """Raise ValueError or TypeError unless the arrays fit the loops."""
    heads = [array.shape[-3] if array.ndim > 2 else 1 for array in (query, key)]
    if (
        min(query.ndim, key.ndim) < 2
        or query.shape[:-3] != key.shape[:-3]
        or heads[0] % max(1, heads[1])
    ):
        raise ValueError(f"attention: queries {query.shape} do not fit keys {key.shape}")
    size, length, wide = query.shape[-1], query.shape[-2], value.shape[-1:]
    in_float32("attention", query, key, value, out, total)
    reads("attention", key=(key, (*key.shape[:-1], size)), value=(value, (*key.shape[:-1], *wide)))
    reads("attention", out=(out, (*query.shape[:-2], length, *wide)))
    writes("attention", total=(total, query.shape[:-1]))


def _gradient_by_example(
    arrays: Sequence[Array], causal: bool, length: int, size: Any, sums: Array, is_parallel: bool
) -> None:
    """The gradient with NumPy's products."""
    q, k, v, given, dq, dk, dv = arrays
    weigh, slope = _compiled()["weigh"], _compiled()["slope"]

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            with np.errstate(all="ignore"):
                weights = np.matmul(q[i], k[i].swapaxes(-1, -2))
                weigh(_rows(weights), causal, length, size, np.empty_like(sums[i]))
                np.matmul(weights.swapaxes(-1, -2), given[i], dv[i])
                change = np.matmul(given[i], v[i].swapaxes(-1, -2))
                slope(_rows(weights), _rows(change), size)
                np.matmul(change, k[i], dq[i])
                np.matmul(change.swapaxes(-1, -2), q[i], dk[i])

    run_parts(work, len(q), is_parallel)


def _by_head(
    name: str, arrays: Sequence[Array], causal: bool, length: int, size: Any, sums: Array,
    is_parallel: bool,
) -> None:  # fmt: skip
    """Run a compiled loop over the heads of keys of all examples.

    arrays: (examples, heads, rows, size) each; outputs come after the query, key and value, and for
        the gradient after the gradient of the result.
    """
    read = 3 if name == "forward" else 4
    plain = [a if i >= read or _has_rows(a) else a.copy() for i, a in enumerate(arrays)]
    written = [a if _has_rows(a) else np.empty(a.shape, a.dtype) for a in plain[read:]]
    operands = [*plain[:read], *written]
    examples, heads, rows, width = arrays[0].shape
    sizes = (heads, rows, arrays[1].shape[2], width, arrays[2].shape[3])
    loop, product = _compiled()[name], numba_blas.single()
    totals = sums.reshape(examples * heads, rows)

    def work(start: int, stop: int) -> None:
        # Made here, so that the worker holds the arrays and not only their addresses.
        places = np.array([(a.ctypes.data, *a.strides[:3]) for a in operands], np.int64)
        loop(product, places, sizes, causal, length, size, totals, start, stop)

    with numba_blas.alone():
        run_parts(work, examples * heads, is_parallel)
    for own, into in zip(written, plain[read:], strict=True):
        if own is not into:
            np.copyto(into, own)


def _has_rows(x: Array) -> bool:
    """Whether BLAS can read each (rows, size) where it is."""
    rows, columns = x.strides[2:]
    return bool(columns == x.itemsize and rows % x.itemsize == 0 and rows >= x.shape[3] * columns)


def _give(written: Array, into: Array) -> None:
    """Copy the result if it is not a view: heads that share keys may not be adjacent."""
    if not np.may_share_memory(written, into):
        np.copyto(into, written.reshape(into.shape))


def _examples(x: Array, key: Array) -> Array:
    """(examples, key heads, rows, size): query heads that share keys become further rows."""
    heads, own = (array.shape[-3] if array.ndim > 2 else 1 for array in (key, x))
    rows = own // max(1, heads) * x.shape[-2]
    return x.reshape(math.prod(key.shape[:-3]), heads, rows, x.shape[-1])


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


# For numba to compile.


def _counts(row: int, causal: bool, length: int, keys: int) -> Any:
    """The number of keys a row sees, and the number to compute: whole vectors are faster."""
    seen = row % length + 1 if causal else keys
    return seen, min(-(-seen // VECTORS) * VECTORS, keys)


def _weigh(scores: Any, causal: bool, length: int, scale: Any, sums: Any) -> None:
    bits = scores.view(np.int32)
    for row in range(len(scores)):
        seen, upto = _counts(row, causal, length, scores.shape[1])
        for i in range(seen, upto):
            scores[row, i] = scores[row, 0]  # larger than nothing
        for i in range(upto):
            scores[row, i] *= scale
        highest = largest(bits, row, upto)
        for i in range(upto):
            scores[row, i] = exp(scores[row, i] - highest)
        for i in range(seen, upto):
            scores[row, i] = 0
        total = 0.0
        for cut in range(0, upto, RUN):
            part = np.float32(0)
            for i in range(cut, min(cut + RUN, upto)):
                k = np.uintp(i)
                part += scores[row, k]
            total += float(part)
        sums[row] = highest + math.log(total)
        share = np.float32(1 / total)
        for i in range(upto):
            scores[row, i] *= share
        for i in range(seen, scores.shape[1]):
            scores[row, i] = 0


def _slope(weights: Any, change: Any, scale: Any) -> None:
    for row in range(len(weights)):
        total = 0.0
        for cut in range(0, weights.shape[1], RUN):
            part = np.float32(0)
            for i in range(cut, min(cut + RUN, weights.shape[1])):
                k = np.uintp(i)
                part += weights[row, k] * change[row, k]
            total += float(part)
        mean = np.float32(total)
        for i in range(weights.shape[1]):
            change[row, i] = weights[row, i] * (change[row, i] - mean) * scale


def _times(
    product: Any, turns: Any, shape: Any, a: Any, lda: Any, b: Any, ldb: Any, c: Any, ldc: Any
) -> None:
    """C of (m, n) = A B, with k between them; `turns` says which are transposed."""
    (m, n, k), one, zero = shape, np.float32(1), np.float32(0)
    product(ROWS, turns[0], turns[1], m, n, k, one, a, lda, b, ldb, zero, c, ldc)


def _forward(
    product: Any, places: Any, sizes: Any, causal: bool, length: int, scale: Any, sums: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    (heads, rows, keys, width, deep), lead = sizes, places[:, 3] // 4
    scores = np.empty((rows, keys), np.float32)
    s = scores.ctypes.data
    for i in range(start, stop):
        at = places[:, 0] + i // heads * places[:, 1] + i % heads * places[:, 2]
        q, k, v, out = at[0], at[1], at[2], at[3]
        ldq, ldk, ldv, ldo = lead[0], lead[1], lead[2], lead[3]
        _times(product, (PLAIN, TURNED), (rows, keys, width), q, ldq, k, ldk, s, keys)
        _weigh(scores, causal, length, scale, sums[i])
        _times(product, (PLAIN, PLAIN), (rows, deep, keys), s, keys, v, ldv, out, ldo)


def _backward(
    product: Any, places: Any, sizes: Any, causal: bool, length: int, scale: Any, sums: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    (heads, rows, keys, width, deep), lead = sizes, places[:, 3] // 4
    weights, change = np.empty((rows, keys), np.float32), np.empty((rows, keys), np.float32)
    w, d, again = weights.ctypes.data, change.ctypes.data, np.empty_like(sums[0])
    for i in range(start, stop):
        at = places[:, 0] + i // heads * places[:, 1] + i % heads * places[:, 2]
        q, k, v, g, dq, dk, dv = at[0], at[1], at[2], at[3], at[4], at[5], at[6]
        ldq, ldk, ldv, ldg = lead[0], lead[1], lead[2], lead[3]
        lddq, lddk, lddv = lead[4], lead[5], lead[6]
        _times(product, (PLAIN, TURNED), (rows, keys, width), q, ldq, k, ldk, w, keys)
        _weigh(weights, causal, length, scale, again)
        _times(product, (TURNED, PLAIN), (keys, deep, rows), w, keys, g, ldg, dv, lddv)
        _times(product, (PLAIN, TURNED), (rows, keys, deep), g, ldg, v, ldv, d, keys)
        _slope(weights, change, scale)
        _times(product, (PLAIN, PLAIN), (rows, width, keys), d, keys, k, ldk, dq, lddq)
        _times(product, (TURNED, PLAIN), (keys, width, rows), d, keys, q, ldq, dk, lddk)


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    numba = whole_numba()
    from numba.extending import register_jitable

    numba_math.compiled()
    fast = {"contract", "reassoc", "nsz"}
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fast}
    for function in (_counts, largest, _weigh, _slope, _times):
        register_jitable(**options)(function)  # a dispatcher in a closure could not be cached
    njit = numba.njit(**options, cache=True)
    loops: tuple[Callable[..., None], ...] = _weigh, _slope, _forward, _backward
    return {loop.__name__.lstrip("_"): njit(loop) for loop in loops}

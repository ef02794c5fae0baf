"""Attention on the CPU: products by BLAS, and all between them in one compiled pass.

Examples go to the threads one by one, so that the scores of one are still in the cache when the
next product reads them; none are kept. The gradient computes them again, from the logarithm of the
sum of each row's exponentials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor import numba_math
from rumus.tensor.backend import Array
from rumus.tensor.numba_rows import exponentials
from rumus.tensor.numpy_backend import run_parts

PARALLEL: Final = 65_536  # scores from which threads are worth their start


def attention(
    query: Array, key: Array, value: Array, causal: bool, scale: float, out: Array, total: Array
) -> None:
    """out = softmax(query key^T scale) value; total = log(sum(exp(query key^T scale))) of rows."""
    q, k, v = _examples(query, key), _examples(key, key), _examples(value, key)
    result, sums = _examples(out, key), total.reshape(len(q), -1)
    loop, length, size = _compiled()["weigh"], query.shape[-2], np.float32(scale)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            with np.errstate(all="ignore"):
                scores = np.matmul(q[i], k[i].swapaxes(-1, -2))
                loop(_rows(scores), causal, length, size, sums[i])
                np.matmul(scores, v[i], result[i])

    run_parts(work, len(q), total.size * key.shape[-2] >= PARALLEL)
    _give(result, out)


def attention_gradient(
    query: Array, key: Array, value: Array, causal: bool, scale: float, out: Array, total: Array,
    gradient: Array, into_query: Array, into_key: Array, into_value: Array,
) -> None:  # fmt: skip
    """With P the weights and d = gradient value^T: P^T gradient, and P (d - sum(P d)) scale."""
    q, k, v = _examples(query, key), _examples(key, key), _examples(value, key)
    given, sums = _examples(gradient, key), total.reshape(len(q), -1)
    dq, dk, dv = (_examples(array, key) for array in (into_query, into_key, into_value))
    again, slope = _compiled()["again"], _compiled()["slope"]
    length, size = query.shape[-2], np.float32(scale)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            with np.errstate(all="ignore"):
                weights = np.matmul(q[i], k[i].swapaxes(-1, -2))
                again(_rows(weights), causal, length, size, sums[i])
                np.matmul(weights.swapaxes(-1, -2), given[i], dv[i])
                change = np.matmul(given[i], v[i].swapaxes(-1, -2))
                slope(_rows(weights), _rows(change), size)
                np.matmul(change, k[i], dq[i])
                np.matmul(change.swapaxes(-1, -2), q[i], dk[i])

    run_parts(work, len(q), total.size * key.shape[-2] >= PARALLEL)
    for written, into in ((dq, into_query), (dk, into_key), (dv, into_value)):
        _give(written, into)


def _give(written: Array, into: Array) -> None:
    """Copy what was written if it is no view: heads that share keys may not lie side by side."""
    if not np.may_share_memory(written, into):
        np.copyto(into, written.reshape(into.shape))


def _examples(x: Array, key: Array) -> Array:
    """(examples, heads of keys, rows, size): heads of queries that share keys are further rows."""
    heads = key.shape[-3] if key.ndim > 2 else 1
    return x.reshape(math.prod(key.shape[:-3]), heads, -1, x.shape[-1])


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    import numba

    fast = {"contract", "reassoc", "nsz"}
    njit = numba.njit(nogil=True, error_model="numpy", fastmath=fast)
    exp, exponential = numba_math.compiled()["exp"], exponentials()

    def weigh(scores: Any, causal: bool, length: int, scale: Any, sums: Any) -> None:
        for row in range(len(scores)):
            seen = row % length + 1 if causal else scores.shape[1]
            part = scores[row, :seen]
            for i in range(seen):
                part[i] *= scale
            largest, total = exponential(part, part)
            sums[row] = largest + math.log(total)
            share = np.float32(1) / total
            for i in range(seen):
                part[i] *= share
            scores[row, seen:] = 0

    def again(scores: Any, causal: bool, length: int, scale: Any, sums: Any) -> None:
        for row in range(len(scores)):
            seen = row % length + 1 if causal else scores.shape[1]
            for i in range(seen):
                scores[row, i] = exp(scores[row, i] * scale - sums[row])
            scores[row, seen:] = 0

    def slope(weights: Any, change: Any, scale: Any) -> None:
        for row in range(len(weights)):
            mean = np.float32(0)
            for i in range(weights.shape[1]):
                mean += weights[row, i] * change[row, i]
            for i in range(weights.shape[1]):
                change[row, i] = weights[row, i] * (change[row, i] - mean) * scale

    return {"weigh": njit(weigh), "again": njit(again), "slope": njit(slope)}

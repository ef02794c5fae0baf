"""The batch norm in compiled loops, channel by channel; threads share the channels.

Indices within a run are unsigned, as in `numba_rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.backends.numba_shapes import reads, writes
from rumus.tensor.backends.numpy_backend import run_parts
from rumus.tensor.memory.backend import Array

PARALLEL: Final = 65_536  # elements from which threads are worth their start
RUN: Final = 4096  # places that are added in the dtype of x; their sums are in float64


def batch_norm(
    x: Array, weight: Array | None, bias: Array | None, out: Array, total: Array, squares: Array,
    eps: float,
) -> None:  # fmt: skip
    """out = (x - mean) / deviation * weight + bias; sums of x and of its squares."""
    loop, channels = _compiled()["forward"], x.shape[1]
    row = (channels,)
    reads("batch_norm", weight=(weight, row), bias=(bias, row))
    reads("batch_norm", total=(total, row), squares=(squares, row))
    writes("batch_norm", out=(out, x.shape))
    scale = np.ones(channels, x.dtype) if weight is None else weight
    shift = np.zeros(channels, x.dtype) if bias is None else bias
    x, out = _joined(x), _joined(out)
    run_parts(
        lambda start, stop: loop(x, scale, shift, out, total, squares, eps, start, stop),
        channels, x.size >= PARALLEL,
    )  # fmt: skip


def batch_norm_gradient(
    x: Array, weight: Array | None, total: Array, squares: Array, gradient: Array,
    into: Array | None, into_weight: Array | None, into_bias: Array | None, eps: float,
) -> None:  # fmt: skip
    """With n the normalized x: weight / deviation (g - mean(g) - n mean(g n)); sums of g n and g.

    None where it is not wanted.
    """
    loop, channels = _compiled()["backward"], x.shape[1]
    row = (channels,)
    reads("batch_norm", weight=(weight, row), total=(total, row), squares=(squares, row))
    reads("batch_norm", gradient=(gradient, x.shape))
    reads("batch_norm", into_weight=(into_weight, row), into_bias=(into_bias, row))
    writes("batch_norm", into=(into, x.shape))
    scale = np.ones(channels, x.dtype) if weight is None else weight
    first, second = (
        np.empty(channels, x.dtype) if row is None else row for row in (into_weight, into_bias)
    )
    x, gradient = _joined(x), _joined(gradient)
    share = np.empty((0, 0, 0), x.dtype) if into is None else _joined(into)
    run_parts(
        lambda start, stop: loop(
            x, scale, total, squares, gradient, share, first, second, eps, start, stop
        ),
        channels, x.size >= PARALLEL,
    )  # fmt: skip


def _joined(x: Array) -> Array:
    """(batch, channels, ...) as (batch, channels, places), a copy if it has another layout."""
    return np.ascontiguousarray(x).reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _forward(
    x: Any, weight: Any, bias: Any, out: Any, total: Any, squares: Any, eps: float,
    start: int, stop: int,
) -> None:  # fmt: skip
    """For numba to compile: the channels from start to stop."""
    batch, _, places = x.shape
    for c in range(start, stop):
        sums = 0.0
        for n in range(batch):
            for cut in range(0, places, RUN):
                part = x.dtype.type(0)
                for i in range(cut, min(cut + RUN, places)):
                    k = np.uintp(i)
                    part += x[n, c, k]
                sums += part
        total[c] = sums
        mean = x.dtype.type(sums / (batch * places))
        sums = 0.0
        for n in range(batch):
            for cut in range(0, places, RUN):
                part = x.dtype.type(0)
                for i in range(cut, min(cut + RUN, places)):
                    k = np.uintp(i)
                    part += (x[n, c, k] - mean) * (x[n, c, k] - mean)
                sums += part
        squares[c] = sums
        factor = x.dtype.type(weight[c] / math.sqrt(sums / (batch * places) + eps))
        for n in range(batch):
            for i in range(places):
                out[n, c, i] = (x[n, c, i] - mean) * factor + bias[c]


def _backward(
    x: Any, weight: Any, total: Any, squares: Any, gradient: Any, into: Any, into_weight: Any,
    into_bias: Any, eps: float, start: int, stop: int,
) -> None:  # fmt: skip
    """For numba to compile: the channels from start to stop."""
    batch, _, places = x.shape
    count = batch * places
    for c in range(start, stop):
        mean = x.dtype.type(total[c] / count)
        rate = x.dtype.type(1 / math.sqrt(squares[c] / count + eps))
        of_gradient, of_product = 0.0, 0.0
        for n in range(batch):
            for cut in range(0, places, RUN):
                first, second = x.dtype.type(0), x.dtype.type(0)
                for i in range(cut, min(cut + RUN, places)):
                    k = np.uintp(i)
                    first += gradient[n, c, k]
                    second += gradient[n, c, k] * (x[n, c, k] - mean)
                of_gradient += first
                of_product += second
        of_product *= rate
        into_bias[c] = of_gradient
        into_weight[c] = of_product
        if into.size:
            factor = weight[c] * rate
            less = x.dtype.type(of_gradient / count)
            slope = x.dtype.type(of_product * rate / count)
            for n in range(batch):
                for i in range(places):
                    rest = gradient[n, c, i] - less - (x[n, c, i] - mean) * slope
                    into[n, c, i] = factor * rest


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    import numba

    njit = numba.njit(
        nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"}
    )
    return {"forward": njit(_forward), "backward": njit(_backward)}

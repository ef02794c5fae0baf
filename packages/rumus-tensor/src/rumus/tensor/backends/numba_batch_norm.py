"""Batch norm in compiled loops, channel by channel; threads share the channels.

Indices within a run are unsigned, as in `numba_rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.backends.numba_lanes import RUN, emptied
from rumus.tensor.backends.numba_shapes import reads, writes
from rumus.tensor.backends.numpy_backend import run_parts
from rumus.tensor.memory.backend import Array

PARALLEL: Final = 65_536  # from this many elements on, starting threads pays off
LANES: Final = 64  # partial sums side by side, so that vectors are added rather than numbers


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

    An output of None is not computed.
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
    """(batch, channels, ...) as (batch, channels, places), copied if the layout requires it."""
    return np.ascontiguousarray(x).reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _sum(x: Any, c: int, lanes: Any) -> float:
    """For numba to compile: the sum of channel c."""
    batch, _, places = x.shape
    total, count = 0.0, 0
    for n in range(batch):
        for cut in range(0, places, LANES):
            for i in range(min(LANES, places - cut)):
                lanes[i] += x[n, c, np.uintp(cut + i)]
            count += 1
            if count % RUN == 0:
                total += emptied(lanes)
    return total + emptied(lanes)


def _squares(x: Any, c: int, mean: Any, lanes: Any) -> float:
    """For numba to compile: the sum of (x - mean)^2 over channel c."""
    batch, _, places = x.shape
    total, count = 0.0, 0
    for n in range(batch):
        for cut in range(0, places, LANES):
            for i in range(min(LANES, places - cut)):
                centred = x[n, c, np.uintp(cut + i)] - mean
                lanes[i] += centred * centred
            count += 1
            if count % RUN == 0:
                total += emptied(lanes)
    return total + emptied(lanes)


def _sums_of_gradient(
    x: Any, gradient: Any, c: int, mean: Any, lanes: Any, others: Any
) -> tuple[float, float]:
    """For numba to compile: the sums of g and of g (x - mean) over channel c."""
    batch, _, places = x.shape
    first, second, count = 0.0, 0.0, 0
    for n in range(batch):
        for cut in range(0, places, LANES):
            for i in range(min(LANES, places - cut)):
                k = np.uintp(cut + i)
                lanes[i] += gradient[n, c, k]
                others[i] += gradient[n, c, k] * (x[n, c, k] - mean)
            count += 1
            if count % RUN == 0:
                first += emptied(lanes)
                second += emptied(others)
    return first + emptied(lanes), second + emptied(others)


def _forward(
    x: Any, weight: Any, bias: Any, out: Any, total: Any, squares: Any, eps: float,
    start: int, stop: int,
) -> None:  # fmt: skip
    """For numba to compile: the channels from start to stop."""
    batch, _, places = x.shape
    lanes = np.zeros(LANES, x.dtype)
    for c in range(start, stop):
        sums = _sum(x, c, lanes)
        total[c] = sums
        mean = x.dtype.type(sums / (batch * places))
        sums = _squares(x, c, mean, lanes)
        squares[c] = sums
        factor = x.dtype.type(weight[c] / math.sqrt(sums / (batch * places) + eps))
        shift = bias[c]
        for n in range(batch):
            for i in range(places):
                k = np.uintp(i)
                out[n, c, k] = (x[n, c, k] - mean) * factor + shift


def _backward(
    x: Any, weight: Any, total: Any, squares: Any, gradient: Any, into: Any, into_weight: Any,
    into_bias: Any, eps: float, start: int, stop: int,
) -> None:  # fmt: skip
    """For numba to compile: the channels from start to stop."""
    batch, _, places = x.shape
    count = batch * places
    lanes, others = np.zeros(LANES, x.dtype), np.zeros(LANES, x.dtype)
    for c in range(start, stop):
        mean = x.dtype.type(total[c] / count)
        rate = x.dtype.type(1 / math.sqrt(squares[c] / count + eps))
        of_gradient, of_product = _sums_of_gradient(x, gradient, c, mean, lanes, others)
        of_product *= rate
        into_bias[c] = of_gradient
        into_weight[c] = of_product
        if into.size:
            factor = weight[c] * rate
            less = x.dtype.type(of_gradient / count)
            slope = x.dtype.type(of_product * rate / count)
            for n in range(batch):
                for i in range(places):
                    k = np.uintp(i)
                    rest = gradient[n, c, k] - less - (x[n, c, k] - mean) * slope
                    into[n, c, k] = factor * rest


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    import numba
    from numba.extending import register_jitable

    options: dict[str, Any] = {
        "nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"},
    }  # fmt: skip
    for function in (emptied, _sum, _squares, _sums_of_gradient):
        register_jitable(**options)(function)  # a dispatcher in a closure could not be cached
    njit = numba.njit(**options, cache=True)
    return {"forward": njit(_forward), "backward": njit(_backward)}

"""Batch norm in compiled loops over pieces of images; threads share the channels.

A piece is contiguous memory: as many whole channels of an image as fit into `LANES` elements, or a
single larger one. Each place of a piece has its own sums over all images, so that even channels of
a few places are added as vectors. The sums of a channel do not depend on the channels beside it.
Indices are unsigned, as in `numba_rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.compiled.numba_lanes import RUN
from rumus.tensor.compiled.numba_shapes import reads, writes
from rumus.tensor.compiled.shared_work import run_parts
from rumus.tensor.compiled.whole_numba import whole_numba
from rumus.tensor.memory.backend import Array

PARALLEL: Final = 1 << 19  # from this many elements on, starting threads pays off
LANES: Final = 2048  # elements of a piece, whose arrays fit the first-level cache


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
    sizes, flat, result = _sizes(x), np.ravel(x), out.reshape(-1)
    run_parts(
        lambda start, stop: loop(
            flat, scale, shift, result, total, squares, eps, sizes, start, stop
        ),
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
    sizes, flat, given = _sizes(x), np.ravel(x), np.ravel(gradient)
    share = np.empty(0, x.dtype) if into is None else into.reshape(-1)
    run_parts(
        lambda start, stop: loop(
            flat, scale, total, squares, given, share, first, second, eps, sizes, start, stop
        ),
        channels, x.size >= PARALLEL,
    )  # fmt: skip


def _sizes(x: Array) -> tuple[int, int, int]:
    """(batch, channels, places)."""
    return *x.shape[:2], math.prod(x.shape[2:])


# For numba to compile. at: where a piece begins. size: its elements. Other arrays have one number
# for each place of a piece.


def _add(sums: Any, x: Any, at: int, size: int) -> None:
    for i in range(size):
        sums[np.uintp(i)] += x[np.uintp(at + i)]


def _add_squares(sums: Any, mean: Any, x: Any, at: int, size: int) -> None:
    for i in range(size):
        centered = x[np.uintp(at + i)] - mean[np.uintp(i)]
        sums[np.uintp(i)] += centered * centered


def _add_products(
    sums: Any, products: Any, mean: Any, x: Any, gradient: Any, at: int, size: int
) -> None:
    for i in range(size):
        g = gradient[np.uintp(at + i)]
        sums[np.uintp(i)] += g
        products[np.uintp(i)] += g * (x[np.uintp(at + i)] - mean[np.uintp(i)])


def _normalize(mean: Any, factor: Any, shift: Any, x: Any, out: Any, at: int, size: int) -> None:
    for i in range(size):
        k, to = np.uintp(i), np.uintp(at + i)
        out[to] = (x[to] - mean[k]) * factor[k] + shift[k]


def _give_back(
    mean: Any, factor: Any, less: Any, slope: Any, x: Any, gradient: Any, into: Any, at: int,
    size: int,
) -> None:  # fmt: skip
    for i in range(size):
        k, to = np.uintp(i), np.uintp(at + i)
        into[to] = factor[k] * (gradient[to] - less[k] - (x[to] - mean[k]) * slope[k])


def _spread(lanes: Any, channel: int, width: int, value: Any) -> None:
    """Write one number to all places of a channel of a piece."""
    for i in range(channel * width, (channel + 1) * width):
        lanes[np.uintp(i)] = value


def _empty(sums: Any, totals: Any, channels: int, width: int) -> None:
    """Add the sums of each channel of a piece to its total, and reset them."""
    for channel in range(channels):
        total = 0.0
        for i in range(channel * width, (channel + 1) * width):
            total += sums[np.uintp(i)]
            sums[np.uintp(i)] = 0
        totals[channel] += total


def _forward(
    x: Any, weight: Any, bias: Any, out: Any, total: Any, squares: Any, eps: float, sizes: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    """The channels from start to stop."""
    batch, channels, places = sizes
    count, width = batch * places, max(1, min(places, LANES))
    most = LANES // width
    sums, totals = np.zeros(LANES, x.dtype), np.empty(most)
    mean, factor, shift = (
        np.empty(LANES, x.dtype), np.empty(LANES, x.dtype), np.empty(LANES, x.dtype)
    )  # fmt: skip
    for c in range(start, stop, most):
        some = min(most, stop - c)
        length = some * places
        totals[:], added = 0, 0
        for n in range(batch):
            for cut in range(0, length, LANES):
                at = (n * channels + c) * places + cut
                _add(sums, x, at, min(LANES, length - cut))
                added += 1
                if added % RUN == 0:
                    _empty(sums, totals, some, width)
        _empty(sums, totals, some, width)
        for i in range(some):
            total[c + i] = totals[i]
            _spread(mean, i, width, x.dtype.type(totals[i] / count))
        totals[:], added = 0, 0
        for n in range(batch):
            for cut in range(0, length, LANES):
                at = (n * channels + c) * places + cut
                _add_squares(sums, mean, x, at, min(LANES, length - cut))
                added += 1
                if added % RUN == 0:
                    _empty(sums, totals, some, width)
        _empty(sums, totals, some, width)
        for i in range(some):
            squares[c + i] = totals[i]
            if squares[c + i] == math.inf:
                totals[i] = math.nan  # they overflow, and divided by inf all would be 0
            deviation = math.sqrt(totals[i] / count + eps)
            _spread(factor, i, width, x.dtype.type(weight[c + i] / deviation))
            _spread(shift, i, width, bias[c + i])
        for n in range(batch):
            for cut in range(0, length, LANES):
                at = (n * channels + c) * places + cut
                _normalize(mean, factor, shift, x, out, at, min(LANES, length - cut))


def _backward(
    x: Any, weight: Any, total: Any, squares: Any, gradient: Any, into: Any, into_weight: Any,
    into_bias: Any, eps: float, sizes: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """The channels from start to stop."""
    batch, channels, places = sizes
    count, width = batch * places, max(1, min(places, LANES))
    most = LANES // width
    sums, totals = np.zeros(LANES, x.dtype), np.empty(most)
    products, others = np.zeros(LANES, x.dtype), np.empty(most)
    mean, factor = np.empty(LANES, x.dtype), np.empty(LANES, x.dtype)
    less, slope = np.empty(LANES, x.dtype), np.empty(LANES, x.dtype)
    for c in range(start, stop, most):
        some = min(most, stop - c)
        length = some * places
        totals[:], others[:], added = 0, 0, 0
        for i in range(some):
            _spread(mean, i, width, x.dtype.type(total[c + i] / count))
        for n in range(batch):
            for cut in range(0, length, LANES):
                at = (n * channels + c) * places + cut
                _add_products(sums, products, mean, x, gradient, at, min(LANES, length - cut))
                added += 1
                if added % RUN == 0:
                    _empty(sums, totals, some, width)
                    _empty(products, others, some, width)
        _empty(sums, totals, some, width)
        _empty(products, others, some, width)
        for i in range(some):
            variance = squares[c + i] / count
            if variance == math.inf:
                variance = math.nan  # as in `_forward`
            rate = x.dtype.type(1 / math.sqrt(variance + eps))
            of_product = others[i] * rate
            into_bias[c + i], into_weight[c + i] = totals[i], of_product
            _spread(factor, i, width, weight[c + i] * rate)
            _spread(less, i, width, x.dtype.type(totals[i] / count))
            _spread(slope, i, width, x.dtype.type(of_product * rate / count))
        if not into.size:
            continue
        for n in range(batch):
            for cut in range(0, length, LANES):
                at = (n * channels + c) * places + cut
                size = min(LANES, length - cut)
                _give_back(mean, factor, less, slope, x, gradient, into, at, size)


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    numba = whole_numba()
    from numba.extending import register_jitable

    options: dict[str, Any] = {
        "nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"},
    }  # fmt: skip
    parts: tuple[Callable[..., Any], ...] = (
        _add, _add_squares, _add_products, _normalize, _give_back, _spread, _empty,
    )  # fmt: skip
    for function in parts:
        register_jitable(**options)(function)  # a dispatcher in a closure could not be cached
    njit = numba.njit(**options, cache=True)
    return {"forward": njit(_forward), "backward": njit(_backward)}

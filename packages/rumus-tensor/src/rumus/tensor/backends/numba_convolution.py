"""The columns of a convolution, gathered and summed by compiled loops.

`columns` (im2col) writes, for each kernel element, the input it meets at each place, zeros outside
the input; `from_columns` is its transpose: it adds each column to where it came from, in the order
of the kernel's elements. Threads share the input's channels, so each channel has one writer. One or
two spatial axes, any dtype. The bias gradient is the sum over everything but the channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.compiled.numba_lanes import RUN, emptied
from rumus.tensor.compiled.numba_shapes import reads, writes
from rumus.tensor.compiled.shared_work import run_parts
from rumus.tensor.compiled.whole_numba import whole_numba
from rumus.tensor.memory.backend import Array, Shape
from rumus.tensor.memory.window import Window

LANES: Final = 32  # partial sums side by side
PARALLEL: Final = 1 << 19  # from this many elements of the columns on, starting threads pays off


def columns(window: Window, x: Array, out: Array) -> None:
    """x: (batch, channels, *lengths) to out: (channels, *kernel, batch, *places)."""
    writes("columns", out=(out, out.shape))
    _run("gather", window, x, out)


def from_columns(window: Window, met: Array, out: Array) -> None:
    """out: (batch, channels, *lengths) = the sums of met: (channels, *kernel, batch, *places)."""
    writes("columns", out=(out, out.shape))
    _run("add_up", window, out, met)


def convolution_bias(gradient: Array, out: Array) -> None:
    """out: (channels,) = the sums of gradient: (batch, channels, *places)."""
    batch, channels, *places = gradient.shape
    reads("convolution", bias=(out, (channels,)))
    flat = np.ascontiguousarray(gradient).reshape(batch, channels, math.prod(places))
    _compiled()["total"](flat, out)


def _run(name: str, window: Window, x: Array, met: Array) -> None:
    loop, channels = _compiled()[name], x.shape[1]
    needed = (channels, *window.kernel, x.shape[0])
    axes = 2 + window.axes, 2 + 2 * window.axes
    if (x.ndim, met.ndim) != axes or met.shape[: axes[0]] != needed:
        raise ValueError(f"columns of shape {met.shape} do not belong to {x.shape} and {window}")
    lengths = (channels, *two(x.shape[2:], 1))
    sizes = (*two(window.kernel, 1), x.shape[0], *two(met.shape[2 + window.axes :], 1))
    strides = (two(window.stride, 1), two(window.padding, 0), two(window.dilation, 1))
    flat, columns = np.ravel(x), met.reshape(-1)  # `out` of both is contiguous
    run_parts(
        lambda start, stop: loop(flat, columns, lengths, sizes, strides, start, stop),
        channels, met.size >= PARALLEL,
    )  # fmt: skip


def two(sizes: Shape, other: int) -> Shape:
    """Return the sizes of two spatial axes; a single one gets `other` in front."""
    return sizes if len(sizes) == 2 else (other, *sizes)


# For numba to compile. Arrays are flat and indices unsigned: a view of a row would cost a counted
# reference, which threads contend for, and a signed index a check for negative values.


def _gather(
    x: Any, met: Any, lengths: Any, sizes: Any, strides: Any, start: int, stop: int
) -> None:
    """met = the columns of the channels from start to stop."""
    channels, height, width = lengths
    rows, across, count, down, right = sizes
    (skip, step), (above, beside), (tall, wide) = strides
    for channel in range(start, stop):
        for i in range(rows):
            for j in range(across):
                left = j * wide - beside
                # The places b whose element is inside: 0 <= b step + left < width.
                first = min(max(0, -(left // step)), right)
                last = max(min(right, -((left - width) // step)), first)
                for n in range(count):
                    block = (((channel * rows + i) * across + j) * count + n) * down
                    for a in range(down):
                        row = a * skip + i * tall - above
                        to = (block + a) * right
                        if row < 0 or row >= height:
                            for b in range(right):
                                met[np.uintp(to + b)] = 0
                            continue
                        of = ((n * channels + channel) * height + row) * width + left
                        for b in range(first):
                            met[np.uintp(to + b)] = 0
                        for b in range(first, last):
                            met[np.uintp(to + b)] = x[np.uintp(of + b * step)]
                        for b in range(last, right):
                            met[np.uintp(to + b)] = 0


def _add_up(
    x: Any, met: Any, lengths: Any, sizes: Any, strides: Any, start: int, stop: int
) -> None:
    """x = the sums of the columns of the channels from start to stop."""
    channels, height, width = lengths
    rows, across, count, down, right = sizes
    (skip, step), (above, beside), (tall, wide) = strides
    for channel in range(start, stop):
        for n in range(count):
            picture = (n * channels + channel) * height * width
            for place in range(height * width):
                x[np.uintp(picture + place)] = 0
        for i in range(rows):
            for j in range(across):
                left = j * wide - beside
                first = min(max(0, -(left // step)), right)
                last = max(min(right, -((left - width) // step)), first)
                for n in range(count):
                    block = (((channel * rows + i) * across + j) * count + n) * down
                    for a in range(down):
                        row = a * skip + i * tall - above
                        if 0 <= row < height:
                            of = (block + a) * right
                            to = ((n * channels + channel) * height + row) * width + left
                            for b in range(first, last):
                                x[np.uintp(to + b * step)] += met[np.uintp(of + b)]


def _total(gradient: Any, out: Any) -> None:
    """out = the sums of each channel: of short runs in its dtype, of these in float64."""
    batch, channels, places = gradient.shape
    lanes = np.zeros(LANES, gradient.dtype)
    for channel in range(channels):
        total, count = 0.0, 0
        for n in range(batch):
            for cut in range(0, places, LANES):
                for i in range(min(LANES, places - cut)):
                    lanes[i] += gradient[n, channel, np.uintp(cut + i)]
                count += 1
                if count % RUN == 0:
                    total += emptied(lanes)
        out[channel] = total + emptied(lanes)


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    numba = whole_numba()
    from numba.extending import register_jitable

    njit = numba.njit(nogil=True, cache=True)
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "nsz"}}
    register_jitable(**options)(emptied)
    total = numba.njit(**options, cache=True)(_total)
    return {"gather": njit(_gather), "add_up": njit(_add_up), "total": total}

"""Convolution of many small images, one at a time, in compiled loops without im2col.

An image is copied with its padding; its products with the weights are summed tile by tile in
registers (`numba_tile`), which look up the offset of each kernel element. A tile is places by
outputs, or outputs by places, whichever wastes less of its vectors. Threads share the images, whose
copies stay in cache; the weight gradient is summed in parts that do not depend on the number of
threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.compiled import numba_tile
from rumus.tensor.compiled.numba_shapes import in_float32, reads, writes
from rumus.tensor.compiled.numba_tile import aligned, tiles
from rumus.tensor.compiled.shared_work import run_parts
from rumus.tensor.compiled.whole_numba import whole_numba
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.window import Window

SUMS: Final = 8  # the maximum number of parts of a weight gradient
RUN: Final = 64  # images summed in float32; their sums are in float64
PLACES: Final = 128  # of small images multiplied together for a weight gradient
TURN: Final = 32  # the cost of transposing one number of a result, in vector products
PARALLEL: Final = 1 << 23  # from this many products on, starting threads pays off


class _Room(threading.local):
    """Scratch memory of this thread, kept because allocating takes longer than writing."""

    def __init__(self) -> None:
        self.memory = np.empty(0, np.float32)

    def get(self, size: int) -> Array:
        """Return at least `size` elements."""
        if self.memory.size < size:
            self.memory = aligned((size,))
        return self.memory


_room = _Room()


def small_convolution(
    window: Window, x: Array, weight: Array, bias: Array | None, out: Array
) -> None:
    """out: (batch, outputs, *places) = the convolution of x: (batch, inputs, *lengths) + bias.

    ValueError for shapes that do not fit: the loops check no bounds.
    """
    _check(window, x, weight, out)
    in_float32("convolution", x, weight, bias, out)
    reads("convolution", bias=(bias, weight.shape[:1]))
    writes("convolution", out=(out, out.shape))
    outputs, depth = len(weight), math.prod(weight.shape[1:])
    sizes, limits = _sizes(window, x, weight), numba_tile.limits()
    wide = _up(outputs, limits[0])
    matrix = aligned((depth, wide))
    matrix[:, :outputs] = weight.reshape(outputs, depth).T
    shift = np.zeros(outputs, x.dtype) if bias is None else np.ascontiguousarray(bias)
    pictures, result, loop = np.ravel(x), out.reshape(-1), _compiled()["forward"]
    padded, places = window.padded(x.shape[2:]), out.shape[2:]
    # Consecutive places, including those between the end of a row and the next row.
    run = _up(max(0, (places[0] - 1) * padded[1] + places[1]), limits[0])
    across = math.prod(places) * wide * (depth + TURN) < outputs * run * depth
    need = _up(x.shape[1] * math.prod(padded) + run, limits[0])
    need += math.prod(places) * wide if across else outputs * run

    def work(start: int, stop: int) -> None:
        room = _room.get(need)
        loop(pictures, matrix, shift, result, room, sizes, limits, across, run, start, stop)

    run_parts(work, len(x), len(x) * outputs * run * depth >= PARALLEL)


def small_convolution_weight(window: Window, x: Array, gradient: Array, out: Array) -> None:
    """out: (outputs, inputs, *kernel) = the gradient of the weight; ValueError as above."""
    _check(window, x, out, gradient)
    in_float32("convolution", x, gradient, out)
    sizes, limits = _sizes(window, x, out), numba_tile.limits()
    outputs, depth = len(out), math.prod(out.shape[1:])
    wide = _up(outputs, limits[0])
    size, parts = math.prod(gradient.shape[2:]), max(1, min(len(x), SUMS))
    some = max(1, min(PLACES // size, len(x) // parts)) if size else 1
    need = _up(some * x.shape[1] * math.prod(window.padded(x.shape[2:])), limits[0])
    need += some * size * wide + depth * wide
    pictures, given, sums = np.ravel(x), np.ravel(gradient), np.zeros((parts, depth * wide))
    edges = np.array([len(x) * i // parts for i in range(parts + 1)])
    loops = _compiled()

    def work(start: int, stop: int) -> None:
        room, loop = _room.get(need), loops["backward"]
        loop(pictures, given, sums, room, sizes, limits, edges, some, start, stop)

    run_parts(work, parts, gradient.size * depth >= PARALLEL)
    loops["total"](sums, out)


def _check(window: Window, x: Array, weight: Array, result: Array) -> None:
    """Raise ValueError unless the arrays fit the loops."""
    if (x.ndim, weight.ndim, window.axes, set(window.stride)) != (4, 4, 2, {1}):
        raise ValueError(f"convolution: {window} over x {x.shape} with weight {weight.shape}")
    needed = (x.shape[0], weight.shape[0], *window.places(x.shape[2:]))
    if weight.shape[1:] != (x.shape[1], *window.kernel) or result.shape != needed:
        raise ValueError(
            f"convolution: x {x.shape} and weight {weight.shape} give {needed}, not {result.shape}"
        )


def _up(size: int, step: int) -> int:
    """Round up to a multiple."""
    return -(-size // step) * step


def _sizes(window: Window, x: Array, weight: Array) -> tuple[int, ...]:
    """The sizes that the loops need."""
    places = window.places(x.shape[2:])
    return (len(weight), *x.shape[1:], *window.kernel, *window.padding, *window.dilation, *places)


# For numba to compile. Arrays are flat and indices unsigned, as in `numba_convolution`.


def _padded(x: Any, room: Any, sizes: Any, n: int) -> None:
    """Copy image n into `room`, whose padding is already zero."""
    _, channels, height, width, _, _, above, beside, _, _, _, _ = sizes
    line = width + 2 * beside
    for channel in range(channels):
        of = (n * channels + channel) * height * width
        to = (channel * (height + 2 * above) + above) * line + beside
        for a in range(height):
            for b in range(width):
                room[np.uintp(to + a * line + b)] = x[np.uintp(of + a * width + b)]


def _met(sizes: Any) -> Any:
    """The offsets in a padded image of the inputs that kernel elements meet at the first place."""
    _, channels, height, width, rows, across, above, beside, tall, wide, _, _ = sizes
    line = width + 2 * beside
    found = np.empty(channels * rows * across, np.int64)
    for channel in range(channels):
        for i in range(rows):
            for j in range(across):
                row = channel * (height + 2 * above) + i * tall
                found[(channel * rows + i) * across + j] = row * line + j * wide
    return found


def _forward(
    x: Any, weight: Any, bias: Any, out: Any, room: Any, sizes: Any, limits: Any, across: bool,
    run: int, start: int, stop: int,
) -> None:  # fmt: skip
    outputs, channels, height, width, _, _, above, beside, _, _, down, right = sizes
    line, size, depth, wide = width + 2 * beside, down * right, weight.shape[0], weight.shape[1]
    length = size * wide if across else outputs * run
    # Behind the image and what its last vectors read besides, the result begins on a cache line.
    end = (channels * (height + 2 * above) * line + run + limits[0] - 1) // limits[0] * limits[0]
    picture, result = room.ctypes.data, room.ctypes.data + 4 * end
    met, columns = _met(sizes), np.arange(depth) * wide
    for i in range(end):
        room[np.uintp(i)] = 0
    for n in range(start, stop):
        _padded(x, room, sizes, n)
        for i in range(end, end + length):
            room[np.uintp(i)] = 0
        begin = n * outputs * size
        if across:  # tiles of places by outputs
            for row in range(down):
                tiles(
                    picture + 4 * row * line, met.ctypes.data, weight.ctypes.data,
                    columns.ctypes.data, depth, result + 4 * row * right * wide, wide,
                    right, wide, limits,
                )  # fmt: skip
            for o in range(outputs):
                for i in range(size):
                    found = room[np.uintp(end + i * wide + o)]
                    out[np.uintp(begin + o * size + i)] = found + bias[o]
            continue
        tiles(
            weight.ctypes.data, columns.ctypes.data, picture, met.ctypes.data, depth,
            result, run, outputs, run, limits,
        )  # fmt: skip
        for o in range(outputs):
            for row in range(down):
                to, of = begin + o * size + row * right, end + o * run + row * line
                for i in range(right):
                    out[np.uintp(to + i)] = room[np.uintp(of + i)] + bias[o]


def _turned(x: Any, room: Any, sizes: Any, n: int, begin: int) -> None:
    """Like `_padded`, at `begin`, with the channels of each place adjacent."""
    _, channels, height, width, _, _, above, beside, _, _, _, _ = sizes
    line = width + 2 * beside
    for channel in range(channels):
        of = (n * channels + channel) * height * width
        for a in range(height):
            to = begin + ((a + above) * line + beside) * channels + channel
            for b in range(width):
                room[np.uintp(to + b * channels)] = x[np.uintp(of + a * width + b)]


def _backward(
    x: Any, gradient: Any, sums: Any, room: Any, sizes: Any, limits: Any, edges: Any, most: int,
    start: int, stop: int,
) -> None:  # fmt: skip
    """most: images multiplied together, which makes longer sums of small ones."""
    outputs, channels, height, width, rows, across, above, beside, tall, wide, down, right = sizes
    line, size = (width + 2 * beside) * channels, down * right
    columns = sums.shape[1] // (rows * across * channels)  # whole vectors
    each = (height + 2 * above) * line
    given = (most * each + limits[0] - 1) // limits[0] * limits[0]
    part = given + most * size * columns
    # Neighbors in a kernel row are contiguous, unless there are gaps.
    run, times = (across * channels, 1) if wide == 1 else (channels, across)
    met, places = np.empty(most * size, np.int64), np.arange(most * size) * columns
    for picture in range(most):
        for row in range(down):
            for i in range(right):
                met[(picture * down + row) * right + i] = picture * each + row * line + i * channels
    data = room.ctypes.data
    for i in range(part):
        room[np.uintp(i)] = 0
    for p in range(start, stop):
        for cut in range(edges[p], edges[p + 1], RUN):
            end = min(cut + RUN, edges[p + 1])
            for i in range(part, part + sums.shape[1]):
                room[np.uintp(i)] = 0
            for n in range(cut, end, most):
                some = min(most, end - n)
                for picture in range(some):
                    _turned(x, room, sizes, n + picture, picture * each)
                    begin, to = (n + picture) * outputs * size, given + picture * size * columns
                    for o in range(outputs):
                        for i in range(size):
                            found = gradient[np.uintp(begin + o * size + i)]
                            room[np.uintp(to + i * columns + o)] = found
                for i in range(rows):
                    for j in range(times):
                        of = i * tall * line + j * wide * channels
                        to = part + (i * times + j) * run * columns
                        tiles(
                            data + 4 * of, met.ctypes.data, data + 4 * given,
                            places.ctypes.data, some * size, data + 4 * to, columns, run,
                            columns, limits,
                        )  # fmt: skip
            for i in range(sums.shape[1]):
                sums[p, i] += room[np.uintp(part + i)]


def _total(sums: Any, out: Any) -> None:
    """out = the sum of the parts, in its own layout."""
    outputs, channels, rows, across = out.shape
    columns = sums.shape[1] // (channels * rows * across)
    total = np.empty(columns)
    for channel in range(channels):
        for i in range(rows):
            for j in range(across):
                place = (i * across + j) * channels + channel
                for o in range(columns):
                    total[o] = 0
                for p in range(sums.shape[0]):
                    for o in range(columns):
                        total[o] += sums[p, np.uintp(place * columns + o)]
                for o in range(outputs):
                    out[o, channel, i, j] = total[o]


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    numba = whole_numba()
    from numba.extending import register_jitable

    numba_tile.compiled()
    for function in (_padded, _met, tiles, _turned):
        register_jitable(nogil=True)(function)  # a dispatcher in a closure could not be cached
    njit = numba.njit(nogil=True, cache=True)
    return {"forward": njit(_forward), "backward": njit(_backward), "total": njit(_total)}

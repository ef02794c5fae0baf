"""Convolution of many small pictures: columns and product of a few at a time, in compiled loops.

A picture is laid out with its padding, row after row. What one element of the kernel meets then is
one run of that memory, if the kernel moves by one element: the places of each row, and as many
beside it as the padding is wide, which nobody reads. So the columns are long copies. Threads share
blocks of pictures, which stay in the cache, and each multiplies its own (`numba_blas`); the
gradient of the weight is added up by parts that do not depend on the number of threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor import numba_blas
from rumus.tensor.backend import Array
from rumus.tensor.numba_blas import PLAIN, ROWS
from rumus.tensor.numpy_backend import run_parts
from rumus.tensor.window import Window

BLOCK: Final = 1 << 17  # elements of the columns of a block of pictures
SUMS: Final = 16  # the most parts that a weight's gradient is added up from


class _Room(threading.local):
    """Memory of this thread, kept: new memory takes longer to get than to write."""

    def __init__(self) -> None:
        self.memory = np.empty(0, np.float32)

    def get(self, size: int) -> Array:
        """Return `size` elements or more."""
        if self.memory.size < size:
            self.memory = np.empty(size, np.float32)
        return self.memory


_room = _Room()


def small_convolution(
    window: Window, x: Array, weight: Array, bias: Array | None, out: Array
) -> None:
    """out: (batch, outputs, *places) = the convolution of x: (batch, inputs, *lengths) + bias."""
    sizes, block = _sizes(window, x, weight)
    matrix, pictures = np.ascontiguousarray(weight).reshape(-1), np.ravel(x)
    shift = np.zeros(len(weight), x.dtype) if bias is None else bias
    loop, result, blocks = _compiled()["forward"], out.reshape(-1), -(-len(x) // block)
    product, need = numba_blas.single(), _need(window, x, weight, block)

    def work(start: int, stop: int) -> None:
        first, last = start * block, min(stop * block, len(x))
        room = _room.get(need)
        loop(product, pictures, matrix, shift, result, room, sizes, block, first, last)

    with numba_blas.alone():
        run_parts(work, blocks, blocks > 1)


def small_convolution_weight(window: Window, x: Array, gradient: Array, out: Array) -> None:
    """out: (outputs, inputs, *kernel) = the gradient of the weight."""
    sizes, block = _sizes(window, x, out)
    pictures, given = np.ravel(x), np.ravel(gradient)
    blocks = -(-len(x) // block)
    parts = max(1, min(blocks, SUMS))
    sums = np.zeros((parts, math.prod(out.shape[1:]), len(out)), out.dtype)  # turned
    loop, flat = _compiled()["backward"], sums.reshape(parts, -1)
    product, need = numba_blas.single(), _need(window, x, out, block)
    edges = [min(blocks * i // parts * block, len(x)) for i in range(parts + 1)]

    def work(start: int, stop: int) -> None:
        room = _room.get(need)
        for i in range(start, stop):
            loop(product, pictures, given, flat[i], room, sizes, block, edges[i], edges[i + 1])

    with numba_blas.alone():
        run_parts(work, parts, parts > 1)
    np.copyto(out, np.add.reduce(sums, 0).T.reshape(out.shape))


def _sizes(window: Window, x: Array, weight: Array) -> tuple[tuple[int, ...], int]:
    """What the loops know of the shapes, and how many pictures are a block."""
    inputs, places = x.shape[1], window.places(x.shape[2:])
    width = x.shape[3] + 2 * window.padding[1]
    each = inputs * window.area * places[0] * width
    sizes = (len(weight), inputs, *x.shape[2:], *window.kernel, *window.padding, *window.dilation,
             *places)  # fmt: skip
    return sizes, max(1, min(BLOCK // max(each, 1), -(-int(x.shape[0]) // 2)))


def _need(window: Window, x: Array, weight: Array, block: int) -> int:
    """Elements for one padded picture of one channel, the columns and the product of a block."""
    height, width = window.padded(x.shape[2:])
    span = block * window.places(x.shape[2:])[0] * width
    rows = int(x.shape[1]) * window.area + int(weight.shape[0])
    return height * width + window.kernel[1] * window.dilation[1] + rows * span


# For numba to compile. Arrays are flat and indices unsigned, as in `numba_convolution`.


def _columns(x: Any, room: Any, sizes: Any, block: int, start: int, stop: int) -> Any:
    """The columns of the pictures from start to stop into `room`; return where they begin."""
    _, channels, height, width, rows, across, above, beside, tall, wide, down, _ = sizes
    line = width + 2 * beside
    begin = (height + 2 * above) * line + (across - 1) * wide
    for i in range(begin):
        room[np.uintp(i)] = 0
    span = down * line
    for n in range(start, stop):
        for channel in range(channels):
            picture = (n * channels + channel) * height * width
            for a in range(height):
                to, of = (a + above) * line + beside, picture + a * width
                for b in range(width):
                    room[np.uintp(to + b)] = x[np.uintp(of + b)]
            for i in range(rows):
                for j in range(across):
                    of = i * tall * line + j * wide
                    row = (channel * rows + i) * across + j
                    to = begin + (row * block + n - start) * span
                    for b in range(span):
                        room[np.uintp(to + b)] = room[np.uintp(of + b)]
    return begin


def _forward(
    product: Any, x: Any, weight: Any, bias: Any, out: Any, room: Any, sizes: Any, block: int,
    start: int, stop: int,
) -> None:  # fmt: skip
    outputs, channels, _, width, rows, across, _, beside, _, _, down, right = sizes
    depth, line = channels * rows * across, width + 2 * beside
    one, zero = np.float32(1), np.float32(0)
    span = down * line
    for first in range(start, stop, block):
        last = min(first + block, stop)
        begin = _columns(x, room, sizes, block, first, last)
        end, size = begin + depth * block * span, block * span
        product(
            ROWS, PLAIN, PLAIN, outputs, (last - first) * span, depth, one,
            weight.ctypes.data, depth, room.ctypes.data + 4 * begin, size, zero,
            room.ctypes.data + 4 * end, size,
        )  # fmt: skip
        for n in range(first, last):
            for o in range(outputs):
                for a in range(down):
                    of = end + o * size + (n - first) * span + a * line
                    to = ((n * outputs + o) * down + a) * right
                    for b in range(right):
                        out[np.uintp(to + b)] = room[np.uintp(of + b)] + bias[o]


def _backward(
    product: Any, x: Any, gradient: Any, out: Any, room: Any, sizes: Any, block: int,
    start: int, stop: int,
) -> None:  # fmt: skip
    outputs, channels, _, width, rows, across, _, beside, _, _, down, right = sizes
    depth, line = channels * rows * across, width + 2 * beside
    span, one = down * line, np.float32(1)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        begin = _columns(x, room, sizes, block, first, last)
        end, size = begin + depth * block * span, block * span
        for n in range(first, last):
            for a in range(down):
                for b in range(line):
                    to = end + ((n - first) * span + a * line + b) * outputs
                    of = (n * outputs * down + a) * right + b
                    if b >= right:
                        for o in range(outputs):
                            room[np.uintp(to + o)] = 0
                        continue
                    for o in range(outputs):
                        room[np.uintp(to + o)] = gradient[np.uintp(of + o * down * right)]
        product(
            ROWS, PLAIN, PLAIN, depth, outputs, (last - first) * span, one,
            room.ctypes.data + 4 * begin, size, room.ctypes.data + 4 * end, outputs, one,
            out.ctypes.data, outputs,
        )  # fmt: skip


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    import numba
    from numba.extending import register_jitable

    register_jitable(nogil=True)(_columns)  # a function in a closure would keep it from the cache
    njit = numba.njit(nogil=True, cache=True)
    return {"forward": njit(_forward), "backward": njit(_backward)}

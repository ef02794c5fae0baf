"""Convolution of many small pictures, one at a time, in compiled loops that call the BLAS.

For each element of one row of the kernel the picture is copied, moved sideways by as much, and as
wide as the result. What the row of the kernel meets at all places of the result is then one run of
each copy, and the next row meets the run that begins a line further down: one product for each row
of the kernel, of columns that were written once for all rows. Threads share the pictures, whose
copies stay in the cache; the gradient of the weight is added up by parts that do not depend on the
number of threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.backends import numba_blas
from rumus.tensor.backends.numba_blas import PLAIN, ROWS
from rumus.tensor.backends.numba_shapes import in_float32, reads, writes
from rumus.tensor.backends.numpy_backend import run_parts
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.window import Window

SUMS: Final = 8  # the most parts that a weight's gradient is added up from
RUN: Final = 64  # pictures that the BLAS adds up in float32; their sums are in float64


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
    """out: (batch, outputs, *places) = the convolution of x: (batch, inputs, *lengths) + bias.

    ValueError for shapes that do not fit: the loops look at no bounds.
    """
    _check(window, x, weight, out)
    in_float32("convolution", x, weight, bias, out)
    reads("convolution", bias=(bias, weight.shape[:1]))
    writes("convolution", out=(out, out.shape))
    sizes, need = _sizes(window, x, weight)
    matrices, pictures = np.ravel(weight.transpose((2, 0, 1, 3))), np.ravel(x)
    shift = np.zeros(len(weight), x.dtype) if bias is None else bias
    loop, result, product = _compiled()["forward"], out.reshape(-1), numba_blas.single()

    def work(start: int, stop: int) -> None:
        loop(product, pictures, matrices, shift, result, _room.get(need), sizes, start, stop)

    with numba_blas.alone():
        run_parts(work, len(x), True)


def small_convolution_weight(window: Window, x: Array, gradient: Array, out: Array) -> None:
    """out: (outputs, inputs, *kernel) = the gradient of the weight; ValueError as above."""
    _check(window, x, out, gradient)
    in_float32("convolution", x, gradient, out)
    sizes, need = _sizes(window, x, out)
    outputs, inputs, rows, across = out.shape
    pictures, given, parts = np.ravel(x), np.ravel(gradient), max(1, min(len(x), SUMS))
    sums = np.zeros((parts, rows, inputs, across, outputs))
    flat, loop, product = sums.reshape(parts, -1), _compiled()["backward"], numba_blas.single()
    edges = [len(x) * i // parts for i in range(parts + 1)]

    def work(start: int, stop: int) -> None:
        room, part = _room.get(need), np.empty(out.size, out.dtype)
        for i in range(start, stop):
            for cut in range(edges[i], edges[i + 1], RUN):
                part[...] = 0
                end = min(cut + RUN, edges[i + 1])
                loop(product, pictures, given, part, room, sizes, cut, end)
                flat[i] += part

    with numba_blas.alone():
        run_parts(work, parts, True)
    np.copyto(out, np.add.reduce(sums, 0).transpose((3, 1, 0, 2)))


def _check(window: Window, x: Array, weight: Array, result: Array) -> None:
    """Raise ValueError unless these are the arrays that the loops go over."""
    if (x.ndim, weight.ndim, window.axes, set(window.stride)) != (4, 4, 2, {1}):
        raise ValueError(f"convolution: {window} over x {x.shape} with weight {weight.shape}")
    needed = (x.shape[0], weight.shape[0], *window.places(x.shape[2:]))
    if weight.shape[1:] != (x.shape[1], *window.kernel) or result.shape != needed:
        raise ValueError(
            f"convolution: x {x.shape} and weight {weight.shape} give {needed}, not {result.shape}"
        )


def _sizes(window: Window, x: Array, weight: Array) -> tuple[tuple[int, ...], int]:
    """What the loops know of the shapes, and the elements of memory that they need."""
    inputs, places = int(x.shape[1]), window.places(x.shape[2:])
    sizes = (len(weight), inputs, *x.shape[2:], *window.kernel, *window.padding, *window.dilation,
             *places)  # fmt: skip
    copies = inputs * window.kernel[1] * window.padded(x.shape[2:])[0] * places[1]
    return sizes, copies + math.prod(places) * len(weight)


# For numba to compile. Arrays are flat and indices unsigned, as in `numba_convolution`.


def _shifted(x: Any, room: Any, sizes: Any, n: int) -> None:
    """The copies of picture n into `room`, which has zeros where they have their padding."""
    _, channels, height, width, _, across, above, beside, _, wide, _, right = sizes
    for channel in range(channels):
        picture = (n * channels + channel) * height * width
        for j in range(across):
            to = ((channel * across + j) * (height + 2 * above) + above) * right
            of, shift = picture + j * wide - beside, j * wide - beside
            first, last = max(0, -shift), min(right, width - shift)
            if right != width:
                for a in range(height):
                    for b in range(first, last):
                        room[np.uintp(to + a * right + b)] = x[np.uintp(of + a * width + b)]
                continue
            # One long run: what comes from the lines before or after is made zero again.
            for b in range(first, height * width - max(0, shift)):
                room[np.uintp(to + b)] = x[np.uintp(of + b)]
            for b in range(min(first, width)):
                for a in range(height):
                    room[np.uintp(to + a * width + b)] = 0
            for b in range(max(last, 0), width):
                for a in range(height):
                    room[np.uintp(to + a * width + b)] = 0


def _forward(
    product: Any, x: Any, weight: Any, bias: Any, out: Any, room: Any, sizes: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    outputs, channels, height, _, rows, across, above, _, tall, _, down, right = sizes
    depth, size, plane = channels * across, down * right, (height + 2 * above) * right
    one = np.float32(1)
    for i in range(depth * plane):
        room[np.uintp(i)] = 0
    for n in range(start, stop):
        _shifted(x, room, sizes, n)
        begin = n * outputs * size
        for o in range(outputs):
            for b in range(size):
                out[np.uintp(begin + o * size + b)] = bias[o]
        for i in range(rows):
            product(
                ROWS, PLAIN, PLAIN, outputs, size, depth, one,
                weight.ctypes.data + 4 * i * outputs * depth, depth,
                room.ctypes.data + 4 * i * tall * right, plane, one,
                out.ctypes.data + 4 * begin, size,
            )  # fmt: skip


def _backward(
    product: Any, x: Any, gradient: Any, out: Any, room: Any, sizes: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    outputs, channels, height, _, rows, across, above, _, tall, _, down, right = sizes
    depth, size, plane = channels * across, down * right, (height + 2 * above) * right
    end, one = depth * plane, np.float32(1)
    for i in range(end):
        room[np.uintp(i)] = 0
    for n in range(start, stop):
        _shifted(x, room, sizes, n)
        begin = n * outputs * size
        for b in range(size):  # turned: the BLAS takes it so at twice the speed
            for o in range(outputs):
                given = gradient[np.uintp(begin + o * size + b)]
                room[np.uintp(end + b * outputs + o)] = given
        for i in range(rows):
            product(
                ROWS, PLAIN, PLAIN, depth, outputs, size, one,
                room.ctypes.data + 4 * i * tall * right, plane,
                room.ctypes.data + 4 * end, outputs, one,
                out.ctypes.data + 4 * i * depth * outputs, outputs,
            )  # fmt: skip


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    import numba
    from numba.extending import register_jitable

    register_jitable(nogil=True)(_shifted)  # a function in a closure would keep it from the cache
    njit = numba.njit(nogil=True, cache=True)
    return {"forward": njit(_forward), "backward": njit(_backward)}

"""Pooling in compiled loops, image by image; threads share the images.

One or two spatial axes, any floating dtype that numba supports. Padding is never materialized:
windows skip it. The most common case, adjacent windows of two by two, is unrolled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.backends.numba_convolution import two
from rumus.tensor.backends.numba_shapes import reads, writes
from rumus.tensor.backends.numpy_backend import run_parts
from rumus.tensor.memory.backend import Array, Shape
from rumus.tensor.memory.window import Window

PARALLEL: Final = 65_536  # from this many elements on, starting threads pays off


def max_pool(window: Window, x: Array, out: Array) -> None:
    """out: (batch, channels, *places) = the largest of each window of x; NaN wins."""
    writes("max_pool", out=(out, _places(window, x)))
    _run("largest", window, x, out)


def max_pool_gradient(window: Window, x: Array, out: Array, gradient: Array, into: Array) -> None:
    """Give each window's gradient to its first element equal to `out`; NaN to NaN."""
    places = _places(window, x)
    reads("max_pool", out=(out, places), gradient=(gradient, places))
    writes("max_pool", into=(into, x.shape))
    _run("give_back", window, x, out, gradient, into)


def avg_pool(window: Window, x: Array, out: Array) -> None:
    """out: (batch, channels, *places) = the mean of each window of x, zeros around it."""
    writes("avg_pool", out=(out, _places(window, x)))
    _run("mean", window, x, out)


def avg_pool_gradient(window: Window, gradient: Array, into: Array) -> None:
    """Divide each window's gradient among its elements."""
    reads("avg_pool", gradient=(gradient, _places(window, into)))
    writes("avg_pool", into=(into, into.shape))
    _run("share_out", window, into, gradient)


def _places(window: Window, x: Array) -> Shape:
    """The shape of the pooled x; ValueError for another number of spatial axes."""
    if x.ndim != 2 + window.axes:
        raise ValueError(f"a pool over {window.axes} axes of an array of shape {x.shape}")
    return (*x.shape[:2], *window.places(x.shape[2:]))


def _run(name: str, window: Window, *arrays: Array) -> None:
    is_of_fours = (window.kernel, window.stride) == ((2, 2), (2, 2)) and not any(window.padding)
    loop = _compiled()[f"{name}_of_four" if is_of_fours and set(window.dilation) == {1} else name]
    batch, channels, *_ = arrays[0].shape
    pictures = [
        np.ascontiguousarray(a).reshape(batch * channels, *two(a.shape[2:], 1)) for a in arrays
    ]
    sizes = [
        two(window.kernel, 1), two(window.stride, 1), two(window.padding, 0),
        two(window.dilation, 1),
    ]  # fmt: skip
    run_parts(
        lambda start, stop: loop(*pictures, *sizes, start, stop),
        batch * channels, arrays[0].size >= PARALLEL,
    )  # fmt: skip


# For numba to compile: the images from start to stop. Without branches inside a window: which of
# its elements is the largest is unpredictable for a processor.


def _largest(
    x: Any, out: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, start: int, stop: int
) -> None:
    height, width = x.shape[1], x.shape[2]
    flat = x.reshape(-1)
    for n in range(start, stop):
        for a in range(out.shape[1]):
            top = a * stride[0] - padding[0]
            # The rows i of the window inside: 0 <= top + i dilation < height. Columns alike.
            i0 = max(0, -(top // dilation[0]))
            i1 = min(kernel[0], -((top - height) // dilation[0]))
            for b in range(out.shape[2]):
                left = b * stride[1] - padding[1]
                j0 = max(0, -(left // dilation[1]))
                j1 = min(kernel[1], -((left - width) // dilation[1]))
                best = x.dtype.type(-np.inf)
                for i in range(i0, i1):
                    row = (n * height + top + i * dilation[0]) * width + left
                    for j in range(j0, j1):
                        value = flat[np.uintp(row + j * dilation[1])]
                        best = value if value > best or value != value else best
                out[n, a, b] = best


def _give_back(
    x: Any, out: Any, gradient: Any, into: Any, kernel: Any, stride: Any, padding: Any,
    dilation: Any, start: int, stop: int,
) -> None:  # fmt: skip
    height, width, zero = x.shape[1], x.shape[2], x.dtype.type(0)
    flat, share = x.reshape(-1), into.reshape(-1)
    for n in range(start, stop):
        into[n] = 0
        for a in range(out.shape[1]):
            top = a * stride[0] - padding[0]
            # The rows i of the window inside: 0 <= top + i dilation < height. Columns alike.
            i0 = max(0, -(top // dilation[0]))
            i1 = min(kernel[0], -((top - height) // dilation[0]))
            for b in range(out.shape[2]):
                left = b * stride[1] - padding[1]
                j0 = max(0, -(left // dilation[1]))
                j1 = min(kernel[1], -((left - width) // dilation[1]))
                best, is_open = out[n, a, b], True
                is_nan = best != best
                given = best if is_nan else gradient[n, a, b]
                for i in range(i0, i1):
                    row = (n * height + top + i * dilation[0]) * width + left
                    for j in range(j0, j1):
                        place = np.uintp(row + j * dilation[1])
                        value = flat[place]
                        is_it = is_open & ((value == best) | (is_nan & (value != value)))
                        share[place] += given if is_it else zero
                        is_open = is_open & (not is_it)


def _mean(
    x: Any, out: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, start: int, stop: int
) -> None:
    height, width = x.shape[1], x.shape[2]
    flat, factor = x.reshape(-1), x.dtype.type(1 / (kernel[0] * kernel[1]))
    for n in range(start, stop):
        for a in range(out.shape[1]):
            top = a * stride[0] - padding[0]
            for b in range(out.shape[2]):
                left = b * stride[1] - padding[1]
                total = 0.0
                for i in range(max(0, -top), min(kernel[0], height - top)):
                    row = (n * height + top + i) * width + left
                    for j in range(max(0, -left), min(kernel[1], width - left)):
                        total += flat[np.uintp(row + j)]
                out[n, a, b] = total * factor


def _share_out(
    into: Any, gradient: Any, kernel: Any, stride: Any, padding: Any, dilation: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    height, width = into.shape[1], into.shape[2]
    flat, factor = into.reshape(-1), into.dtype.type(1 / (kernel[0] * kernel[1]))
    for n in range(start, stop):
        into[n] = 0
        for a in range(gradient.shape[1]):
            top = a * stride[0] - padding[0]
            for b in range(gradient.shape[2]):
                left, share = b * stride[1] - padding[1], gradient[n, a, b] * factor
                for i in range(max(0, -top), min(kernel[0], height - top)):
                    row = (n * height + top + i) * width + left
                    for j in range(max(0, -left), min(kernel[1], width - left)):
                        flat[np.uintp(row + j)] += share


# The same for adjacent windows of two by two: of elements p and p + 1, q and q + 1. One of
# them is the largest; for a window with NaN it is NaN.


def _largest_of_four(
    x: Any, out: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, start: int, stop: int
) -> None:
    height, width, down, right = x.shape[1], x.shape[2], out.shape[1], out.shape[2]
    flat, result, one = x.reshape(-1), out.reshape(-1), np.uintp(1)
    for n in range(start, stop):
        for a in range(down):
            row, to = (n * height + 2 * a) * width, (n * down + a) * right
            for b in range(right):
                p, q = np.uintp(row + 2 * b), np.uintp(row + width + 2 * b)
                first, second, third, fourth = flat[p], flat[p + one], flat[q], flat[q + one]
                best = second if (second > first) | (second != second) else first
                best = third if (third > best) | (third != third) else best
                best = fourth if (fourth > best) | (fourth != fourth) else best
                result[np.uintp(to + b)] = best


def _give_back_of_four(
    x: Any, out: Any, gradient: Any, into: Any, kernel: Any, stride: Any, padding: Any,
    dilation: Any, start: int, stop: int,
) -> None:  # fmt: skip
    height, width, down, right = x.shape[1], x.shape[2], out.shape[1], out.shape[2]
    flat, share, zero, one = x.reshape(-1), into.reshape(-1), x.dtype.type(0), np.uintp(1)
    largest, given = out.reshape(-1), gradient.reshape(-1)
    for n in range(start, stop):
        into[n, 2 * down :] = 0
        for a in range(down):
            row, of = (n * height + 2 * a) * width, (n * down + a) * right
            for b in range(2 * right, width):
                share[np.uintp(row + b)] = 0
                share[np.uintp(row + width + b)] = 0
            for b in range(right):
                p, q = np.uintp(row + 2 * b), np.uintp(row + width + 2 * b)
                first, second, third = flat[p], flat[p + one], flat[q]
                best = largest[np.uintp(of + b)]
                is_nan = best != best
                amount = best if is_nan else given[np.uintp(of + b)]
                is_first = (first == best) | (first != first)
                is_second = (second == best) | (second != second)
                is_third = (third == best) | (third != third)
                share[p] = amount if is_first else zero
                share[p + one] = zero if is_first else (amount if is_second else zero)
                rest = zero if is_first | is_second else amount
                share[q] = rest if is_third else zero
                share[q + one] = zero if is_third else rest


def _mean_of_four(
    x: Any, out: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, start: int, stop: int
) -> None:
    height, width, down, right = x.shape[1], x.shape[2], out.shape[1], out.shape[2]
    flat, result, quarter, one = x.reshape(-1), out.reshape(-1), x.dtype.type(0.25), np.uintp(1)
    for n in range(start, stop):
        for a in range(down):
            row, to = (n * height + 2 * a) * width, (n * down + a) * right
            for b in range(right):
                p, q = np.uintp(row + 2 * b), np.uintp(row + width + 2 * b)
                # A quarter of each: the sum of four numbers may overflow their dtype.
                total = flat[p] * quarter + flat[p + one] * quarter
                total += flat[q] * quarter + flat[q + one] * quarter
                result[np.uintp(to + b)] = total


def _share_out_of_four(
    into: Any, gradient: Any, kernel: Any, stride: Any, padding: Any, dilation: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    height, width = into.shape[1], into.shape[2]
    down, right = gradient.shape[1], gradient.shape[2]
    share, given = into.reshape(-1), gradient.reshape(-1)
    quarter, one = into.dtype.type(0.25), np.uintp(1)
    for n in range(start, stop):
        into[n, 2 * down :] = 0
        for a in range(down):
            row, of = (n * height + 2 * a) * width, (n * down + a) * right
            for b in range(2 * right, width):
                share[np.uintp(row + b)] = 0
                share[np.uintp(row + width + b)] = 0
            for b in range(right):
                p, q = np.uintp(row + 2 * b), np.uintp(row + width + 2 * b)
                amount = given[np.uintp(of + b)] * quarter
                share[p] = amount
                share[p + one] = amount
                share[q] = amount
                share[q + one] = amount


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    import numba

    njit = numba.njit(nogil=True, cache=True)
    loops: tuple[Callable[..., None], ...] = (
        _largest, _give_back, _mean, _share_out,
        _largest_of_four, _give_back_of_four, _mean_of_four, _share_out_of_four,
    )  # fmt: skip
    return {loop.__name__.lstrip("_"): njit(loop) for loop in loops}

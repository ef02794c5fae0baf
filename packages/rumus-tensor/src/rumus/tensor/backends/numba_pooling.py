"""Pooling in compiled loops, image by image; threads share the images.

One or two spatial axes, any floating dtype that numba supports. Padding is never materialized:
windows skip it. The most common case, adjacent windows of two by two, is unrolled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, Final

import numpy as np

from rumus.tensor.backends.numba_convolution import two
from rumus.tensor.compiled.numba_shapes import reads, writes
from rumus.tensor.compiled.shared_work import run_parts
from rumus.tensor.compiled.whole_numba import whole_numba
from rumus.tensor.memory.backend import Array, Shape
from rumus.tensor.memory.window import Window

PARALLEL: Final = 1 << 19  # from this many elements on, starting threads pays off


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
    batch, channels, *lengths = arrays[0].shape
    pictures = [np.ascontiguousarray(a) for a in arrays]
    is_of_fours = (window.kernel, window.stride) == ((2, 2), (2, 2)) and not any(window.padding)
    sizes: tuple[Any, ...]
    if is_of_fours and set(window.dilation) == {1}:
        loop, pictures = _compiled()[f"{name}_of_four"], [a.reshape(-1) for a in pictures]
        sizes = lengths[0] * lengths[1], lengths[1], _first(*lengths)
    else:
        loop = _compiled()[name]
        pictures = [a.reshape(batch * channels, *two(a.shape[2:], 1)) for a in pictures]
        sizes = (
            two(window.kernel, 1), two(window.stride, 1), two(window.padding, 0),
            two(window.dilation, 1),
        )  # fmt: skip
    run_parts(
        lambda start, stop: loop(*pictures, *sizes, start, stop),
        batch * channels, arrays[0].size >= PARALLEL,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _first(height: int, width: int) -> Array:
    """Where each window of two by two begins in an image."""
    rows, columns = np.arange(0, height - 1, 2), np.arange(0, width - 1, 2)
    found: Array = np.add.outer(rows * width, columns).reshape(-1)
    found.flags.writeable = False
    return found


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
    flat, factor = x.reshape(-1), 1 / (kernel[0] * kernel[1])
    for n in range(start, stop):
        for a in range(out.shape[1]):
            top = a * stride[0] - padding[0]
            for b in range(out.shape[2]):
                left = b * stride[1] - padding[1]
                total = 0.0  # of shares: the sum of a window may overflow where its mean does not
                for i in range(max(0, -top), min(kernel[0], height - top)):
                    row = (n * height + top + i) * width + left
                    for j in range(max(0, -left), min(kernel[1], width - left)):
                        total += flat[np.uintp(row + j)] * factor
                out[n, a, b] = total


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
# them is the largest; for a window with NaN it is NaN. An image may have a few elements only, so
# that each is one loop over its windows. first: where they begin.


def _largest_of_four(
    x: Any, out: Any, size: int, width: int, first: Any, start: int, stop: int
) -> None:
    places, one, line = len(first), np.uintp(1), np.uintp(width)
    for n in range(start, stop):
        for i in range(places):
            p = np.uintp(n * size + first[np.uintp(i)])
            q = p + line
            best, second, third, fourth = x[p], x[p + one], x[q], x[q + one]
            best = second if (second > best) | (second != second) else best
            best = third if (third > best) | (third != third) else best
            best = fourth if (fourth > best) | (fourth != fourth) else best
            out[np.uintp(n * places + i)] = best


def _give_back_of_four(
    x: Any, out: Any, gradient: Any, into: Any, size: int, width: int, first: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    places, one, line, zero = len(first), np.uintp(1), np.uintp(width), x.dtype.type(0)
    for n in range(start, stop):
        if 4 * places < size:  # an odd length leaves elements outside all windows
            into[n * size : (n + 1) * size] = 0
        for i in range(places):
            p, k = np.uintp(n * size + first[np.uintp(i)]), np.uintp(n * places + i)
            q, best = p + line, out[k]
            amount = best if best != best else gradient[k]
            is_first = (x[p] == best) | (x[p] != x[p])
            is_second = (x[p + one] == best) | (x[p + one] != x[p + one])
            is_third = (x[q] == best) | (x[q] != x[q])
            into[p] = amount if is_first else zero
            into[p + one] = zero if is_first else (amount if is_second else zero)
            rest = zero if is_first | is_second else amount
            into[q] = rest if is_third else zero
            into[q + one] = zero if is_third else rest


def _mean_of_four(
    x: Any, out: Any, size: int, width: int, first: Any, start: int, stop: int
) -> None:
    places, one, line = len(first), np.uintp(1), np.uintp(width)
    quarter = x.dtype.type(0.25)
    for n in range(start, stop):
        for i in range(places):
            p = np.uintp(n * size + first[np.uintp(i)])
            q = p + line
            # A quarter of each: the sum of four numbers may overflow their dtype.
            total = x[p] * quarter + x[p + one] * quarter
            total += x[q] * quarter + x[q + one] * quarter
            out[np.uintp(n * places + i)] = total


def _share_out_of_four(
    into: Any, gradient: Any, size: int, width: int, first: Any, start: int, stop: int
) -> None:
    places, one, line = len(first), np.uintp(1), np.uintp(width)
    quarter = into.dtype.type(0.25)
    for n in range(start, stop):
        if 4 * places < size:
            into[n * size : (n + 1) * size] = 0
        for i in range(places):
            p = np.uintp(n * size + first[np.uintp(i)])
            q, amount = p + line, gradient[np.uintp(n * places + i)] * quarter
            into[p] = amount
            into[p + one] = amount
            into[q] = amount
            into[q + one] = amount


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    numba = whole_numba()

    njit = numba.njit(nogil=True, cache=True)
    loops: tuple[Callable[..., None], ...] = (
        _largest, _give_back, _mean, _share_out,
        _largest_of_four, _give_back_of_four, _mean_of_four, _share_out_of_four,
    )  # fmt: skip
    return {loop.__name__.lstrip("_"): njit(loop) for loop in loops}

"""Max pooling in compiled loops, picture by picture; threads share the pictures.

One or two spatial axes, any floating dtype that numba knows. The padding is never made: it is what
no window looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.backend import Array
from rumus.tensor.numba_convolution import two
from rumus.tensor.numpy_backend import run_parts
from rumus.tensor.window import Window

PARALLEL: Final = 65_536  # elements from which threads are worth their start


def max_pool(window: Window, x: Array, out: Array) -> None:
    """out: (batch, channels, *places) = the largest of each window of x; NaN wins."""
    _run("largest", window, x, out)


def max_pool_gradient(window: Window, x: Array, out: Array, gradient: Array, into: Array) -> None:
    """Give each place's gradient to the first element of its window that equals `out`."""
    _run("give_back", window, x, out, gradient, into)


def _run(name: str, window: Window, *arrays: Array) -> None:
    loop = _compiled()[name]
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


def _largest(
    x: Any, out: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, start: int, stop: int
) -> None:
    """For numba to compile: the pictures from start to stop."""
    for n in range(start, stop):
        for a in range(out.shape[1]):
            for b in range(out.shape[2]):
                best = x.dtype.type(-np.inf)
                for i in range(kernel[0]):
                    row = a * stride[0] + i * dilation[0] - padding[0]
                    if 0 <= row < x.shape[1]:
                        for j in range(kernel[1]):
                            column = b * stride[1] + j * dilation[1] - padding[1]
                            if 0 <= column < x.shape[2]:
                                value = x[n, row, column]
                                best = value if value > best or value != value else best
                out[n, a, b] = best


def _give_back(
    x: Any, out: Any, gradient: Any, into: Any, kernel: Any, stride: Any, padding: Any,
    dilation: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """For numba to compile: the pictures from start to stop."""
    for n in range(start, stop):
        into[n] = 0
        for a in range(out.shape[1]):
            for b in range(out.shape[2]):
                is_open = True
                for i in range(kernel[0]):
                    row = a * stride[0] + i * dilation[0] - padding[0]
                    if is_open and 0 <= row < x.shape[1]:
                        for j in range(kernel[1]):
                            column = b * stride[1] + j * dilation[1] - padding[1]
                            inside = is_open and 0 <= column < x.shape[2]
                            if inside and x[n, row, column] == out[n, a, b]:
                                into[n, row, column] += gradient[n, a, b]
                                is_open = False


@cache
def _compiled() -> Mapping[str, Callable[..., None]]:
    import numba

    njit = numba.njit(nogil=True, cache=True)
    return {"largest": njit(_largest), "give_back": njit(_give_back)}

"""Means over parts of an axis in NumPy: a product with a matrix of shares, which is mostly 0.

Where the result is not finite, an infinity or NaN times 0 may have spread to other parts, and the
parts are added up one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.numpy_sums import as_one_product, multiply
from rumus.tensor.expression.dtype import DType
from rumus.tensor.memory.fused import FusedName
from rumus.tensor.memory.window import part_bounds

Real = NDArray[Any]


@lru_cache(maxsize=64)
def _shares(parts: int, length: int, dtype: DType) -> Real:
    """The matrix that computes the means: (parts, length)."""
    matrix = np.zeros((parts, length), dtype)
    for i, (start, stop) in enumerate(part_bounds(parts, length)):
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def _along(array: Real, axis: int, start: int, stop: int) -> Real:
    return array[(slice(None),) * axis + (slice(start, stop),)]


def _product(matrix: Real, x: Real, axis: int, out: Real) -> None:
    """out = the matrix times each line of x along an axis."""
    if axis == x.ndim - 1:
        rows, into = as_one_product(x, matrix.T, out)
        multiply(rows, matrix.T, into)
    else:
        multiply(matrix, x, out)


def part_means(x: Real, axis: int, out: Real) -> None:
    """out = the means of the parts of an axis, the last or the last but one."""
    parts, length = out.shape[axis], x.shape[axis]
    with np.errstate(all="ignore"):
        _product(_shares(parts, length, x.dtype), x, axis, out)
        if np.isfinite(out).all():
            return
        for i, (start, stop) in enumerate(part_bounds(parts, length)):
            share = x.dtype.type(1 / (stop - start))
            part = _along(x, axis, start, stop) * share
            np.add.reduce(part, axis, None, _along(out, axis, i, i + 1), keepdims=True)


def part_means_gradient(gradient: Real, axis: int, out: Real) -> None:
    """out = the gradient of what `part_means` read."""
    parts, length = gradient.shape[axis], out.shape[axis]
    with np.errstate(all="ignore"):
        if np.isfinite(gradient).all():
            _product(_shares(parts, length, out.dtype).T, gradient, axis, out)
            return
        out.fill(0)
        for i, (start, stop) in enumerate(part_bounds(parts, length)):
            into = _along(out, axis, start, stop)
            np.add(into, _along(gradient, axis, i, i + 1) / (stop - start), into)


PART_MEANS: Final[Mapping[FusedName, Callable[..., None]]] = {
    "part_means": part_means,
    "part_means_gradient": part_means_gradient,
}

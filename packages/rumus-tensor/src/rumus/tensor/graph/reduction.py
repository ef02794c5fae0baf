"""Sums, means and extremes over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import Final, Literal, SupportsIndex

from rumus.tensor.expression.dtype import bool_, float16, float32, int32, is_floating
from rumus.tensor.expression.kernel import trace
from rumus.tensor.graph.operators import cast, compute
from rumus.tensor.graph.tensor import Axis, Tensor, result_of
from rumus.tensor.memory.backend import Array, Shape


def normalize_axis(axis: int, ndim: int, operation: str) -> int:
    """Return `axis` counted from the front; IndexError if there is no such axis."""
    axis = index(axis)
    if not -ndim <= axis < ndim:
        raise IndexError(f"{operation}: axis {axis} does not exist in a tensor of {ndim} axes")
    return axis % ndim


def normalize_axes(axis: Axis, ndim: int, operation: str) -> Shape:
    """Return the axes that `axis` means, in order; ValueError for one named twice."""
    if axis is None:
        return tuple(range(ndim))
    given = (axis,) if isinstance(axis, SupportsIndex) else axis
    axes = tuple(sorted(normalize_axis(a, ndim, operation) for a in given))
    if len(set(axes)) != len(axes):
        raise ValueError(f"{operation}: an axis is named twice in {axis}")
    return axes


def _shapes(x: Tensor, axes: Shape) -> tuple[Shape, Shape]:
    """The shape without `axes`, and the shape with each of them 1."""
    without = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return without, kept


_SCALE: Final = trace(lambda x, *, factor: x * factor, "scale")


def _total(x: Tensor, axes: Shape, keepdims: bool, factor: float, name: str) -> Tensor:
    """The sum over `axes` times `factor`. Every element gets the gradient of its sum, scaled."""
    without, kept = _shapes(x, axes)
    backend, shape = x._backend, x.shape
    out = backend.allocate(without, x.dtype)
    backend.reduce("sum", x._array, axes, out)
    if factor != 1:
        out = compute(backend, _SCALE, (out,), (factor,))

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        into = destinations[0]
        into = backend.allocate(shape, gradient.dtype) if into is None else into
        if factor == 1:
            backend.copy(gradient.reshape(kept), into)
        else:
            backend.elementwise(_SCALE, (gradient.reshape(kept),), (factor,), (into,))
        return (into,)

    shaped = out.reshape(kept) if keepdims else out
    return result_of(name, shaped, backend, (x,), vjp)


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over `axis`; truth values are counted.

    OverflowError for integers whose sum does not fit int32, on the CPU; a GPU wraps around.
    """
    x = cast(x, int32) if x.dtype == bool_ else x
    return _total(x, normalize_axes(axis, x.ndim, "sum"), keepdims, 1.0, "sum")


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over `axis`; integers become float32. ValueError for a mean of nothing."""
    if x.dtype == float16:  # the sum may be beyond float16 where the mean is not
        return cast(mean(cast(x, float32), axis, keepdims), float16)
    x = x if is_floating(x.dtype) else cast(x, float32)
    count = count_over(x, axis, "mean")
    return _total(x, normalize_axes(axis, x.ndim, "mean"), keepdims, 1 / count, "mean")


def count_over(x: Tensor, axis: Axis, operation: str) -> int:
    """The number of elements that a reduction takes together."""
    count = math.prod(x.shape[a] for a in normalize_axes(axis, x.ndim, operation))
    if count == 0:
        raise ValueError(f"{operation} of a tensor of shape {x.shape} over {axis}: no elements")
    return count


def var(x: Tensor, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """The variance over `axis`: the mean first, then the squares of what is left."""
    if x.dtype == float16:
        return cast(var(cast(x, float32), axis, keepdims, ddof), float16)
    x = x if is_floating(x.dtype) else cast(x, float32)
    count = count_over(x, axis, "var")
    if ddof >= count:
        raise ValueError(f"var: ddof={ddof} leaves nothing of {count} elements to divide by")
    centred = x - mean(x, axis, keepdims=True)
    return sum(centred * centred, axis, keepdims) * (1 / (count - ddof))


_TIES: Final = trace(lambda x, m: x._apply("eq", x, m), "ties")
# 0 / 0 where the extreme is NaN, which nothing equals: a gradient of 0 would hide the NaN.
_SHARE: Final = trace(lambda tie, g, count: tie.where(g, 0.0) / count, "share")


def extremum(which: Literal["max", "min"], x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    """The largest or smallest element over `axis`; equal ones share the gradient equally."""
    axes = normalize_axes(axis, x.ndim, which)
    count_over(x, axis, which)
    without, kept = _shapes(x, axes)
    backend, array = x._backend, x._array
    out = backend.allocate(without, x.dtype)
    backend.reduce(which, array, axes, out)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        tie = compute(backend, _TIES, (array, out.reshape(kept)))
        ones = backend.allocate(array.shape, gradient.dtype)
        backend.copy(tie, ones)
        count = backend.allocate(without, gradient.dtype)
        backend.reduce("sum", ones, axes, count)
        g, n = gradient.reshape(kept), count.reshape(kept)
        return (compute(backend, _SHARE, (tie, g, n)),)

    shaped = out.reshape(kept) if keepdims else out
    return result_of(which, shaped, backend, (x,), vjp, saved=(x,), reads_result=True)


def argmax(x: Tensor, axis: int | None = None) -> Tensor:
    """The int32 index of the first largest element along `axis`."""
    count_over(x, axis, "argmax")
    axes = normalize_axes(axis, x.ndim, "argmax")
    without, _ = _shapes(x, axes)
    out = x._backend.allocate(without, int32)
    x._backend.reduce("argmax", x._array, axes, out)
    return Tensor(out, x._backend)

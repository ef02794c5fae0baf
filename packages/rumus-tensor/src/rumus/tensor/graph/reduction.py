"""Sums, means, products, extrema, `any` and `all` over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import Any, Final, Literal

from rumus.tensor.expression.dtype import bool_, float16, float32, float64, int32, is_floating
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import trace
from rumus.tensor.expression.printable import abridged
from rumus.tensor.graph.autograd import SCALE, Spread
from rumus.tensor.graph.means import note_average, note_one_of, note_part, note_total
from rumus.tensor.graph.operators import cast, compute
from rumus.tensor.graph.tensor import Axis, Tensor, result_of
from rumus.tensor.memory.backend import Array, Backend, Shape


def normalize_axis(axis: int, ndim: int, operation: str) -> int:
    """Return `axis` counted from the front; IndexError or TypeError if there is no such axis."""
    try:
        axis = index(None if isinstance(axis, bool) else axis)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{operation}: an axis must be an integer, not {abridged(axis)}") from None
    if not -ndim <= axis < ndim:
        raise IndexError(f"{operation}: axis {axis} does not exist in a tensor with {ndim} axes")
    return axis % ndim


def normalize_axes(axis: Axis, ndim: int, operation: str) -> Shape:
    """Return the axes in `axis`, in order; ValueError for one given twice."""
    if axis is None:
        return tuple(range(ndim))
    is_one = hasattr(axis, "__index__") or isinstance(axis, bytes)
    given: Any = (axis,) if is_one else axis
    axes = tuple(sorted(normalize_axis(a, ndim, operation) for a in given))
    if len(set(axes)) != len(axes):
        raise ValueError(f"{operation}: an axis appears twice in {axis}")
    return axes


def shapes_over(x: Tensor, axes: Shape) -> tuple[Shape, Shape]:
    """The shape without `axes`, and the shape with each of them 1."""
    without = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return without, kept


def _total(x: Tensor, axes: Shape, keepdims: bool, factor: float, name: str) -> Tensor:
    """The sum over `axes` times `factor`. Every element gets the gradient of its sum, scaled."""
    without, kept = shapes_over(x, axes)
    backend, shape = x._backend, x.shape
    out = backend.allocate(without, x.dtype)
    scaled = None if factor == 1 else backend.fused("scaled_sum")
    if scaled is not None:
        scaled(x._array, axes, factor, out)
    else:
        backend.reduce("sum", x._array, axes, out)
    if factor != 1 and scaled is None:
        out = compute(backend, SCALE, (out,), (factor,))

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Any]:
        into = destinations[0]
        if gradient.size == 1:
            spread = Spread(backend, gradient, factor, shape)
            return (spread if into is None else spread.computed(into),)
        into = backend.allocate(shape, gradient.dtype) if into is None else into
        if factor == 1:
            backend.copy(gradient.reshape(kept), into)
        else:
            backend.elementwise(SCALE, (gradient.reshape(kept),), (factor,), (into,))
        return (into,)

    shaped = out.reshape(kept) if keepdims else out
    return result_of(name, shaped, backend, (x,), vjp)


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over `axis`; booleans are counted.

    OverflowError for integers whose sum does not fit int32, on the CPU; a GPU wraps around.
    """
    x = cast(x, int32) if x.dtype == bool_ else x
    axes = normalize_axes(axis, x.ndim, "sum")
    found = _total(x, axes, keepdims, 1.0, "sum")
    if len(axes) == x.ndim:
        return note_total(found, x)
    return note_part(found, x, axes, is_mean=False)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over `axis`, float32 of integers. ValueError for a mean of no elements."""
    if x.dtype == float16:  # the sum may overflow float16 where the mean does not
        return cast(mean(cast(x, float32), axis, keepdims), float16)
    if x.dtype == int32:
        upper, lower = (mean(each, axis, keepdims) for each in halves(x))
        return note_average(upper * _HALF + lower, x)
    x = x if is_floating(x.dtype) else cast(x, float32)
    axes = normalize_axes(axis, x.ndim, "mean")
    count = count_over(x, axes, "mean")
    found = _total(x, axes, keepdims, 1 / count, "mean")
    if len(axes) == x.ndim:
        return note_average(found, x)
    return note_part(found, x, axes, is_mean=True)


_HALF: Final = 2.0**16  # of the integers of 32 bits


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers as upper * 2**16 + lower, both float32, which has all of them.

    The lower half of a small number, of either sign, is the number itself.
    """
    upper = x // int(_HALF)
    lower = x - upper * int(_HALF)  # in [0, 2**16)
    carry = cast(lower >= int(_HALF) // 2, int32)
    return cast(upper + carry, float32), cast(lower - carry * int(_HALF), float32)


def count_over(x: Tensor, axes: Shape, operation: str) -> int:
    """The number of elements that are reduced to one."""
    count = math.prod(x.shape[a] for a in axes)
    if count == 0:
        raise ValueError(
            f"{operation} of a tensor of shape {x.shape} over {axes}: there are no elements"
        )
    return count


_TIES: Final = trace(lambda x, m: x._apply("eq", x, m), "ties")
# 0 / 0 if the extremum is NaN, which equals nothing: a gradient of 0 would hide the NaN.
_SHARE: Final = trace(lambda tie, g, count: tie.where(g, 0.0) / count, "share")


def extremum(which: Literal["max", "min"], x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    """The largest or smallest element over `axis`; ties share the gradient equally."""
    axes = normalize_axes(axis, x.ndim, which)
    count_over(x, axes, which)
    without, kept = shapes_over(x, axes)
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
    found = result_of(which, shaped, backend, (x,), vjp, saved=(x,), reads_result=True)
    return note_one_of(found, x, axes)


def position(
    which: Literal["argmax", "argmin"], x: Tensor, axis: int | None, keepdims: bool
) -> Tensor:
    """The int32 index of the first extremum along `axis`; the first NaN, if there is one."""
    axes = normalize_axes(axis, x.ndim, which)
    count_over(x, axes, which)
    without, kept = shapes_over(x, axes)
    out = x._backend.allocate(without, int32)
    x._backend.reduce(which, x._array, axes, out)
    return Tensor(out.reshape(kept) if keepdims else out, x._backend)


def holds(which: Literal["any", "all"], x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    """Whether any, or each, element over `axis` is true or nonzero; NaN is nonzero."""
    axes = normalize_axes(axis, x.ndim, which)
    truths = x if x.dtype == bool_ else x != 0
    without, kept = shapes_over(x, axes)
    out = x._backend.allocate(without, bool_)
    if math.prod(x.shape[a] for a in axes):
        x._backend.reduce("max" if which == "any" else "min", truths._array, axes, out)
    else:  # of no elements
        x._backend.fill(which == "all", out)
    return Tensor(out.reshape(kept) if keepdims else out, x._backend)


_ZERO: Final = Expr.constant(0.0)


class _Scaled:
    """Kernels for numbers beyond a dtype's range: each is held as size * step**power.

    The size stays so near 1 that the product of two is in range, and steps are powers of 2: nothing
    is rounded that a plain product would not round.
    """

    def __init__(self, step: float) -> None:
        self.step, self.limit = step, math.sqrt(step)
        self.of_numbers = trace(lambda x: self._near(**self._near(x, _ZERO)), "scaled")
        self.times = trace(lambda a, m, b, n: self._near(a * b, m + n), "times_scaled")
        self.as_numbers = trace(self._number, "unscaled")

    def _near(self, size: Expr, power: Expr) -> dict[str, Expr]:
        """The same number, with its size nearer to 1."""
        is_large, is_small = size.abs() >= self.limit, size.abs() < 1 / self.limit
        near = is_large.where(size * (1 / self.step), is_small.where(size * self.step, size))
        return {"size": near, "power": is_large.where(power + 1, is_small.where(power - 1, power))}

    def _number(self, size: Expr, power: Expr) -> Expr:
        for turn in range(1, 4):  # the dtype's range is less than 6 steps
            smaller = (power <= -turn).where(size * (1 / self.step), size)
            size = (power >= turn).where(size * self.step, smaller)
        return size


_SCALED: Final = {float32: _Scaled(2.0**64), float64: _Scaled(2.0**512)}


def _products_of_others(backend: Backend, rows: Array, gradient: Array) -> Array:
    """The product of all others in each row, times the row's gradient.

    rows: (rows, n). gradient: (rows, 1). By a tree: products of 2, 4, 8 ... neighbors, and back,
    each times its neighbor. A quotient by the factor would be wrong for 0 and infinity, and where
    the whole product leaves the dtype.
    """
    dtype = rows.dtype
    scaled = _SCALED[dtype]

    def new(shape: tuple[int, ...]) -> tuple[Array, Array]:
        return backend.allocate(shape, dtype), backend.allocate(shape, dtype)

    def of_numbers(numbers: Array) -> tuple[Array, Array]:
        out = new(numbers.shape)
        backend.elementwise(scaled.of_numbers, (numbers,), (), out)
        return out

    levels = [of_numbers(rows)]
    while (length := levels[-1][0].shape[1]) > 1:
        below = levels[-1]
        pairs, is_odd = divmod(length, 2)
        above = new((len(rows), pairs + is_odd))
        both = *(x[:, 0 : 2 * pairs : 2] for x in below), *(x[:, 1 : 2 * pairs : 2] for x in below)
        backend.elementwise(scaled.times, both, (), tuple(x[:, :pairs] for x in above))
        if is_odd:
            for last, place in zip(below, above, strict=True):
                backend.copy(last[:, -1:], place[:, pairs:])
        levels.append(above)
    found = of_numbers(gradient)
    for below in reversed(levels[:-1]):
        pairs, is_odd = divmod(below[0].shape[1], 2)
        others = new(below[0].shape)
        for mine, other in ((0, 1), (1, 0)):
            neighbors = (
                *(x[:, :pairs] for x in found),
                *(x[:, other : 2 * pairs : 2] for x in below),
            )
            places = tuple(x[:, mine : 2 * pairs : 2] for x in others)
            backend.elementwise(scaled.times, neighbors, (), places)
        if is_odd:
            for last, place in zip(found, others, strict=True):
                backend.copy(last[:, pairs:], place[:, -1:])
        found = others
    out = backend.allocate(rows.shape, dtype)
    backend.elementwise(scaled.as_numbers, found, (), (out,))
    return out


def prod(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The product over `axis`, 1 for no elements. Its gradient is correct even if factors are 0.

    OverflowError for integers whose product does not fit int32, on the CPU; a GPU wraps around.
    """
    if x.dtype == float16:
        return cast(prod(cast(x, float32), axis, keepdims), float16)
    x = cast(x, int32) if x.dtype == bool_ else x
    axes = normalize_axes(axis, x.ndim, "prod")
    without, kept = shapes_over(x, axes)
    backend, array = x._backend, x._array
    out = backend.allocate(without, x.dtype)
    backend.reduce("prod", array, axes, out)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        if not array.size:
            return (backend.allocate(array.shape, gradient.dtype),)
        over = (*(a for a in range(x.ndim) if a not in axes), *axes)  # the reduced ones last
        moved = array.transpose(over)
        rows = backend.allocate(moved.shape, gradient.dtype)
        backend.copy(moved, rows)
        count = math.prod(without)
        column = gradient.reshape((count, 1))
        found = _products_of_others(backend, rows.reshape((count, -1)), column)
        back = tuple(over.index(a) for a in range(x.ndim))
        return (found.reshape(moved.shape).transpose(back),)

    shaped = out.reshape(kept) if keepdims else out
    return note_one_of(result_of("prod", shaped, backend, (x,), vjp, saved=(x,)), x, axes)

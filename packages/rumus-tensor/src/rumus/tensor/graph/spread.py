"""Variance, standard deviation and norms: sums of squares, and their roots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from rumus.tensor.expression.dtype import float16, float32, int32, is_floating
from rumus.tensor.expression.kernel import trace
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.means import note_one_of
from rumus.tensor.graph.operators import cast, compute
from rumus.tensor.graph.reduction import (
    count_over,
    extremum,
    mean,
    normalize_axes,
    shapes_over,
    sum,
)
from rumus.tensor.graph.tensor import Axis, Tensor, result_of
from rumus.tensor.memory.backend import Array, Shape

Order: TypeAlias = "float | Literal['fro']"
_HALF: Final = 2**16  # of the integers of 32 bits


def _power(x: Any, largest: Any, *, order: Any) -> Any:
    """|x / largest|^order: at most 1, so that it does not overflow, and 1 for the largest."""
    return (x.abs() / largest) ** order


def _power_root(total: Any, largest: Any, *, order: Any) -> Any:
    return total ** (1 / order) * largest


def _unit(largest: Any) -> Any:
    """The divisor of numbers up to `largest`, which may be 0 or infinite."""
    is_usual = (largest > 0.0).where((largest < math.inf).where(1.0, 0.0), 0.0) > 0.0
    return is_usual.where(largest, 1.0)


def _divisor(n: Any) -> Any:
    """What a norm's derivative divides by: 1 for 0, as all is 0 then, and NaN for infinity.

    Divided by infinity all would be 0, which no look for bad gradients would find.
    """
    return n._apply("eq", n, 0.0).where(1.0, (n < math.inf).where(n, math.nan))


def _slope(x: Any, n: Any, g: Any) -> Any:
    """The derivative of the 2-norm n."""
    return g * (x / n)


def _slope_of_power(x: Any, n: Any, g: Any, *, exponent: Any) -> Any:
    """The derivative of another norm n, exponent = order - 1; 0 at 0, even for orders below 1."""
    share = g * x.sign() * (x.abs() / n) ** exponent
    return x._apply("eq", x, 0.0).where(0.0 * n, share)


_MAGNITUDE = trace(lambda x: x.abs(), "magnitude")
_POWER, _POWER_ROOT, _UNIT = trace(_power), trace(_power_root), trace(_unit)
_DIVISOR = trace(_divisor)
_SLOPE, _SLOPE_OF_POWER = trace(_slope, "norm_gradient"), trace(_slope_of_power)


def var(x: Tensor, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """The variance over `axis`: the mean first, then the squared deviations."""
    if x.dtype == float16:
        return cast(var(cast(x, float32), axis, keepdims, ddof), float16)
    axis = normalize_axes(axis, x.ndim, "var")  # once: it may be an iterator
    count = _checked_count(x, axis, ddof, "var")
    centered = _deviations(x, axis)
    return note_one_of(sum(centered * centered, axis, keepdims) * (1 / (count - ddof)), x, axis)


def _deviations(x: Tensor, axes: Shape) -> Tensor:
    """What each element is above the mean over `axes`.

    Whole numbers, such as times, may be near each other and beyond what float32 tells apart. So
    their differences to the first one are taken, of the upper and the lower half, none of which
    overflows.
    """
    if x.dtype == int32:
        upper = x // _HALF
        lower = x - upper * _HALF
        first = tuple([slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim)])
        upper, lower = upper - upper[first], lower - lower[first]
        x = cast(upper, float32) * float(_HALF) + cast(lower, float32)
    x = x if is_floating(x.dtype) else cast(x, float32)
    return x - mean(x, axes, keepdims=True)


def _checked_count(x: Tensor, axes: Shape, ddof: int, name: str) -> int:
    """Return the number of elements over `axes`; `ddof` must be smaller."""
    count = count_over(x, axes, name)
    if whole_number(f"{name}: ddof", ddof) >= count:
        raise ValueError(f"{name}: ddof={ddof} leaves no divisor for {count} elements")
    return count


def std(x: Tensor, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """The root of the variance over `axis`; if it is 0, so is its gradient."""
    if x.dtype == float16:
        return cast(std(cast(x, float32), axis, keepdims, ddof), float16)
    axis = normalize_axes(axis, x.ndim, "std")  # once: it may be an iterator
    count = _checked_count(x, axis, ddof, "std")
    centered = _deviations(x, axis)
    return note_one_of(norm(centered, 2, axis, keepdims) * (1 / math.sqrt(count - ddof)), x, axis)


def norm(x: Tensor, order: Order = 2, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """(sum |x|^order)^(1 / order) over `axis`; see `Tensor.norm`."""
    number: object = 2.0 if order == "fro" else order
    if not isinstance(number, (int, float)) or not (number >= 0 or number == -math.inf):
        raise ValueError(
            f"norm: the order must be 'fro', a number of at least 0, inf or -inf, not {order!r}"
        )
    if x.dtype == float16:  # squares overflow at 65504
        return cast(norm(cast(x, float32), order, axis, keepdims), float16)
    x = x if is_floating(x.dtype) else cast(x, float32)
    if math.isinf(number):
        return extremum("max" if number > 0 else "min", abs(x), axis, keepdims)
    if number == 0:
        return sum((x != 0).astype(x.dtype), axis, keepdims)
    if number == 1:
        return sum(abs(x), axis, keepdims)
    axes = normalize_axes(axis, x.ndim, "norm")
    return note_one_of(_root_of_powers(x, float(number), axes, keepdims), x, axes)


def _root_of_powers(x: Tensor, order: float, axis: Axis, keepdims: bool) -> Tensor:
    """The norm of an order above 0, correct wherever it fits the dtype though a power may not."""
    axes = normalize_axes(axis, x.ndim, "norm")
    without, kept = shapes_over(x, axes)
    backend, array = x._backend, x._array
    out = backend.allocate(without, x.dtype)
    if order == 2 or not array.size:
        backend.reduce("norm", array, axes, out)
    else:
        magnitudes = compute(backend, _MAGNITUDE, (array,))
        largest = backend.allocate(without, x.dtype)
        backend.reduce("max", magnitudes, axes, largest)
        unit = compute(backend, _UNIT, (largest,))
        scalars = {"order": order}
        powers = compute(backend, _POWER, (array, unit.reshape(kept)), _POWER.bind(scalars))
        backend.reduce("sum", powers, axes, out)
        backend.elementwise(_POWER_ROOT, (out, unit), _POWER_ROOT.bind(scalars), (out,))

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        divisor = compute(backend, _DIVISOR, (out,))
        given = array, divisor.reshape(kept), gradient.reshape(kept)
        into = destinations[0]
        into = backend.allocate(array.shape, gradient.dtype) if into is None else into
        slope = _SLOPE if order == 2 else _SLOPE_OF_POWER
        backend.elementwise(slope, given, slope.bind({"exponent": order - 1}), (into,))
        return (into,)

    shaped = out.reshape(kept) if keepdims else out
    return result_of("norm", shaped, backend, (x,), vjp, saved=(x,), reads_result=True)

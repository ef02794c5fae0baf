"""Variance, standard deviation and norms: sums of squares, and their roots."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

from rumus.tensor.expression.dtype import float16, float32, is_floating
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.operators import cast, elementwise
from rumus.tensor.graph.reduction import (
    count_over,
    extremum,
    mean,
    normalize_axes,
    shapes_over,
    sum,
)
from rumus.tensor.graph.tensor import Axis, Tensor

Order: TypeAlias = "float | Literal['fro']"


@elementwise
def _root(total: Any) -> Any:
    """sqrt(total), with gradient 0 instead of infinity at 0, where all squared terms are 0."""
    is_positive = total > 0
    return is_positive.where(is_positive.where(total, 1.0).sqrt(), total)


@elementwise
def _power_root(total: Any, *, order: Any) -> Any:
    """total^(1 / order), with gradient 0 at 0 as in `_root`."""
    is_positive = total > 0
    return is_positive.where(is_positive.where(total, 1.0) ** (1 / order), total)


@elementwise
def _power(x: Any, *, order: Any) -> Any:
    """|x|^order, with gradient 0 at 0 even for orders below 1."""
    is_zero = x._apply("eq", x, 0.0)
    return is_zero.where(0.0, is_zero.where(1.0, x.abs()) ** order)


def var(x: Tensor, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """The variance over `axis`: the mean first, then the squared deviations."""
    if x.dtype == float16:
        return cast(var(cast(x, float32), axis, keepdims, ddof), float16)
    x = x if is_floating(x.dtype) else cast(x, float32)
    count = _checked_count(x, axis, ddof, "var")
    centred = x - mean(x, axis, keepdims=True)
    return sum(centred * centred, axis, keepdims) * (1 / (count - ddof))


def _checked_count(x: Tensor, axis: Axis, ddof: int, name: str) -> int:
    """Return the number of elements over `axis`; `ddof` must be smaller."""
    count = count_over(x, axis, name)
    if whole_number(f"{name}: ddof", ddof) >= count:
        raise ValueError(f"{name}: ddof={ddof} leaves no divisor for {count} elements")
    return count


def std(x: Tensor, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """The root of the variance over `axis`; if it is 0, so is its gradient."""
    if x.dtype == float16:
        return cast(std(cast(x, float32), axis, keepdims, ddof), float16)
    x = x if is_floating(x.dtype) else cast(x, float32)
    count = _checked_count(x, axis, ddof, "std")
    centred = x - mean(x, axis, keepdims=True)
    # Scaled to at most 1: no square overflows, and the largest does not underflow.
    largest = abs(centred.detach()).max(axis, keepdims=True)
    size = ((largest > 0) & (largest < math.inf)).where(largest, 1.0)
    scaled = centred / size
    found: Tensor = _root(sum(scaled * scaled, axis, True) * (1 / (count - ddof))) * size
    without, _ = shapes_over(x, normalize_axes(axis, x.ndim, "std"))
    return found if keepdims else found.reshape(without)


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
    found: Tensor
    if number == 2:
        found = _root(sum(x * x, axis, keepdims))
    else:
        found = _power_root(sum(_power(x, order=number), axis, keepdims), order=number)
    return found

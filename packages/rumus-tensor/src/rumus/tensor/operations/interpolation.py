"""Interpolation: resizing images and sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Final, Literal, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.choice import check_choice
from rumus.tensor.expression.declared_type import is_ordered, shown
from rumus.tensor.expression.dtype import float16, float32, is_floating
from rumus.tensor.expression.lengths import lengths_of
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.indexing import gather
from rumus.tensor.graph.operators import cast, elementwise
from rumus.tensor.graph.tensor import Tensor, tensor
from rumus.tensor.memory.backend import Backend

InterpolationMode: TypeAlias = Literal["nearest", "linear", "bilinear", "trilinear"]
_AXES: Final = {"linear": 1, "bilinear": 2, "trilinear": 3}
# By backend: indices and weights, which a captured step must find there rather than upload.
_tables: Final[WeakKeyDictionary[Backend, dict[Any, tuple[Tensor, ...]]]] = WeakKeyDictionary()


@elementwise
def _between(low: Any, high: Any, share: Any) -> Any:
    return (1.0 - share) * low + share * high  # not inf - inf


@checked_arguments
def interpolate(
    x: Tensor,
    size: int | Sequence[int] | None = None,
    *,
    scale_factor: float | Sequence[float] | None = None,
    mode: InterpolationMode = "nearest",
    align_corners: bool = False,
) -> Tensor:
    """Resize the spatial axes, like `torch.nn.functional.interpolate`.

    x: (batch, channels, *lengths), floating; float16 is interpolated in float32.
    size: the new length, one number or one per axis.
    scale_factor: the factor of each length, rounded down; give exactly one of the two.
    mode: "nearest" takes the element at floor(i / scale); "linear", "bilinear" and "trilinear" (for
        one, two and three axes) interpolate between the two neighbors on each axis.
    align_corners: align the centers of the first and last elements rather than their outer edges.

    ValueError for a size below 1, a mode that does not fit the axes, and for align_corners with
    "nearest".

    >>> from rumus.tensor import tensor
    >>> from rumus.tensor.operations.interpolation import interpolate
    >>> interpolate(tensor([[[0.0, 4.0]]]), 4, mode="linear")[0, 0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    axes = x.ndim - 2
    if axes < 1 or not is_floating(x.dtype) or 0 in x.shape[2:]:
        raise ValueError(
            f"interpolate: expected a floating (batch, channels, *lengths), got {x.dtype} of "
            f"{x.shape}"
        )
    if mode != "nearest" and _AXES.get(mode) != axes:
        known = ["nearest", *(name for name, n in _AXES.items() if n == axes)]
        raise ValueError(f"interpolate: mode must be one of {known} for {x.shape}, not {mode!r}")
    check_options_together("interpolate", size, scale_factor, mode, align_corners)
    if x.dtype == float16 and mode != "nearest":  # rounded once, not on each axis
        options: dict[str, Any] = {"mode": mode, "align_corners": align_corners}
        wide = interpolate(cast(x, float32), size, scale_factor=scale_factor, **options)
        return cast(wide, float16)
    sizes, scales = _sizes(x, size, scale_factor)
    lengths_of("interpolate", (*x.shape[:2], *sizes))  # before tables as long as an axis are made
    for axis, (new, scale) in enumerate(zip(sizes, scales, strict=True), 2):
        x = _along(x, axis, new, scale, mode, align_corners)
    return x


def check_interpolation(
    of: str,
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
    mode: str,
) -> None:
    """Raise ValueError for what fits no input: an unknown mode, a size that is not positive."""
    check_choice(f"{of}: mode", mode, ("nearest", *_AXES))
    for name, given in (("size", size), ("scale_factor", scale_factor)):
        numbers = np.asarray(() if given is None else given)
        if numbers.dtype == object and all(isinstance(each, int) for each in numbers.flat):
            numbers = numbers.astype(np.float64)  # of more than 64 bits
        if numbers.dtype.kind not in "iuf":
            raise TypeError(f"{of}: {name} must be numbers, not {shown(given)}")
        if not ((numbers > 0) & (numbers < math.inf)).all():
            raise ValueError(f"{of}: {name} must be positive and finite, not {given!r}")


def check_options_together(
    of: str,
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
    mode: str,
    align_corners: bool,
) -> None:
    """Raise ValueError for options of which each is valid, but not beside the others."""
    if mode == "nearest" and align_corners:
        linear = ", ".join(map(repr, _AXES))
        raise ValueError(f"{of}: align_corners needs a linear mode ({linear}), not 'nearest'")
    for name, given in (("size", size), ("scale_factor", scale_factor)):
        if isinstance(given, Sequence) and len(given) != _AXES.get(mode, len(given) or 1):
            wanted = _AXES.get(mode, "at least 1")
            raise ValueError(f"{of}: {name} {given} needs {wanted} numbers for mode {mode!r}")


def _sizes(
    x: Tensor, size: int | Sequence[int] | None, scale_factor: float | Sequence[float] | None
) -> tuple[list[int], list[float]]:
    """The new length of each axis, and the distance of its elements in the old one."""
    lengths = x.shape[2:]
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    given: Any = size if size is not None else scale_factor
    is_one = isinstance(given, Real) or getattr(given, "ndim", 1) == 0
    if not is_one and not is_ordered(given):
        name = "scale_factor" if size is None else "size"
        raise TypeError(f"interpolate: {name} must be numbers, not {shown(given)}")
    each: list[Any] = [given] * len(lengths) if is_one else list(given)
    if len(each) != len(lengths) or any(not 0 < n < math.inf for n in each):
        raise ValueError(
            f"interpolate: expected a positive number for each of {len(lengths)} axes, got {given}"
        )
    if size is not None:
        whole = [whole_number("interpolate: size", n) for n in each]
        return whole, [a / n for a, n in zip(lengths, whole, strict=True)]
    sizes = [int(a * f) for a, f in zip(lengths, each, strict=True)]
    if 0 in sizes:
        raise ValueError(f"interpolate: {given} of {lengths} leaves no elements")
    return sizes, [1 / f for f in each]


def _along(x: Tensor, axis: int, new: int, scale: float, mode: str, align_corners: bool) -> Tensor:
    """Resize one axis."""
    length = x.shape[axis]
    if new == length and scale == 1:
        return x
    if mode == "nearest" and new % length == 0 and scale * (new // length) == 1:
        return _repeated(x, axis, new // length)
    key = (length, new, scale, mode, align_corners, x.dtype)
    tables = _tables.setdefault(x.backend, {})
    if key not in tables:
        low, high, share = _table(length, new, scale, mode, align_corners)
        numbers = (tensor(each, backend=x.backend) for each in (low, high))
        tables[key] = (*numbers, tensor(share, dtype=x.dtype, backend=x.backend))
    low, high, share = tables[key]
    others = [at for at in range(x.ndim) if at != axis]
    front = x.permute(axis, *others)
    found = gather(front, low)
    if mode != "nearest":
        column = share.reshape(-1, *[1] * (x.ndim - 1))
        found = _between(found, gather(front, high), column)
    return found.permute(*range(1, axis + 1), 0, *range(axis + 1, x.ndim))


def _repeated(x: Tensor, axis: int, times: int) -> Tensor:
    shape = (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
    joined = (*x.shape[:axis], x.shape[axis] * times, *x.shape[axis + 1 :])
    return x.unsqueeze(axis + 1).broadcast_to(shape).reshape(*joined)


def _table(
    length: int, new: int, scale: float, mode: str, align_corners: bool
) -> tuple[Any, Any, Any]:
    """The elements below and above each new one, and the weight of the one above."""
    at = np.arange(new, dtype=np.float64)
    if mode == "nearest":
        low = np.minimum(np.floor(at * scale), length - 1).astype(np.int32)
        return low, low, np.zeros(new)
    if align_corners:
        place = at * ((length - 1) / (new - 1) if new > 1 else 0.0)
    else:
        place = np.maximum((at + 0.5) * scale - 0.5, 0)
    low = np.minimum(np.floor(place), length - 1).astype(np.int32)
    high = np.minimum(low + 1, length - 1).astype(np.int32)
    return low, high, np.clip(place - low, 0, 1)

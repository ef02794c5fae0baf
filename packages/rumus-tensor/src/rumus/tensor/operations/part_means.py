"""Means over overlapping parts of an axis, as an adaptive pool needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np

from rumus.tensor.expression.dtype import float16, float32
from rumus.tensor.graph.indexing import gather
from rumus.tensor.graph.operators import cast, elementwise
from rumus.tensor.graph.tensor import Tensor, result_of, tensor
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.window import part_bounds

# By backend: what a captured step must find there rather than upload.
_tables: Final[WeakKeyDictionary[Backend, dict[Any, tuple[Tensor, Tensor]]]] = WeakKeyDictionary()


def part_means(x: Tensor, axis: int, parts: int) -> Tensor:
    """The means of the parts of an axis, see `part_bounds`; each depends on its part alone.

    x: floating; float16 is added up in float32.
    axis: the last or the last but one.
    parts: their number.
    """
    if x.dtype == float16:
        return cast(part_means(cast(x, float32), axis, parts), float16)
    axis %= x.ndim
    length = x.shape[axis]
    if parts == length:
        return x
    if parts == 1:
        return x.mean(axis, keepdims=True)
    backend = x.backend
    forward, back = backend.fused("part_means"), backend.fused("part_means_gradient")
    if forward is None or back is None:
        return _gathered_means(x, axis, parts)
    return _fused_means(x, axis, parts, forward, back)


def _fused_means(
    x: Tensor, axis: int, parts: int, forward: Callable[..., None], back: Callable[..., None]
) -> Tensor:
    backend, shape = x.backend, x.shape
    out = backend.allocate((*shape[:axis], parts, *shape[axis + 1 :]), x.dtype)
    forward(x._array, axis, out)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        into = destinations[0]
        into = backend.allocate(shape, gradient.dtype) if into is None else into
        back(gradient, axis, into)
        return (into,)

    return result_of("part_means", out, backend, (x,), vjp)


@elementwise
def _weighted(x: Any, weight: Any) -> Any:
    """weight x, 0 for a weight of 0 whatever x is."""
    return (weight > 0.0).where(weight * x, 0.0)


def _gathered_means(x: Tensor, axis: int, parts: int) -> Tensor:
    """In primitives. A product with a matrix of shares would spread NaN: 0 NaN is NaN."""
    length = x.shape[axis]
    tables = _tables.setdefault(x.backend, {})
    key = (length, parts, x.dtype)
    if key not in tables:
        bounds = np.array(part_bounds(parts, length))
        sizes = bounds[:, 1] - bounds[:, 0]
        step = np.arange(sizes.max())[:, None]
        places = np.minimum(bounds[:, 0] + step, length - 1).astype(np.int32)
        shares = np.where(step < sizes, 1 / sizes, 0.0)
        tables[key] = (
            tensor(places, backend=x.backend),
            tensor(shares, dtype=x.dtype, backend=x.backend),
        )
    index, weight = tables[key]
    others = [at for at in range(x.ndim) if at != axis]
    found = gather(x.permute(axis, *others), index)
    column = weight.reshape(*weight.shape, *[1] * len(others))
    means: Tensor = _weighted(found, column).sum(0)
    return means.permute(*range(1, axis + 1), 0, *range(axis + 1, x.ndim))

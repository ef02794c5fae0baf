"""`x[...]`: slices are views; tensors of integers gather."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rumus.tensor.expression.dtype import bool_, int32
from rumus.tensor.graph.autograd import SoFar
from rumus.tensor.graph.operators import broadcast_shape
from rumus.tensor.graph.tensor import Tensor, as_tensor, backend_of, result_of
from rumus.tensor.memory.backend import Array


def basic(array: Array, key: Any) -> Array:
    """Return the view of an array that a basic index selects: numbers, slices, ..., None."""
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        known = isinstance(part, (int, np.integer, slice)) and not isinstance(part, bool)
        if not known and part is not None and part is not ...:
            raise TypeError(
                f"cannot index with {part!r}; use numbers, slices, None, ... or tensors"
            )
    # With the Ellipsis NumPy returns a view where it would return a number.
    return array[parts if ... in parts else (*parts, ...)]


def getitem(x: Tensor, key: Any) -> Tensor:
    """Select elements.

    Numbers, slices, None and `...` give a view. One or more tensors (or arrays, or lists) of
    integers in front select along the first axes, broadcast together; negative ones count from the
    end. IndexError for an index out of range or too many; TypeError for a mask: its result would
    have a shape that depends on the data, use `where`.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, (Tensor, np.ndarray, list)) for part in parts):
        return _select(x, parts)
    backend, shape = x._backend, x.shape
    view = basic(x._array, key)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        out = destinations[0]
        out = backend.allocate(shape, gradient.dtype) if out is None else out
        backend.fill(0, out)
        backend.copy(gradient, basic(out, key))
        return (out,)

    result = result_of("getitem", view, backend, (x,), vjp)
    result._version = x._version
    return result


def _select(x: Tensor, parts: tuple[Any, ...]) -> Tensor:
    """Index the first axes with integer tensors: one gather over these axes joined."""
    if any(not isinstance(part, (Tensor, np.ndarray, list, int, np.integer)) for part in parts):
        raise TypeError(
            "tensors of integers index the first axes; select with them first, then slice the rest"
        )
    if len(parts) > x.ndim:
        raise IndexError(f"{len(parts)} indices for a tensor of {x.ndim} axes")
    indices = [as_tensor(part, x._backend, int32 if _is_empty(part) else None) for part in parts]
    for index in indices:
        if index.dtype == bool_:
            raise TypeError("a mask selects an unknown number of elements; use where(mask, x, ...)")
        if index.dtype != int32:
            raise TypeError(f"an index must be an integer, not {index.dtype}")
    broadcast_shape("index", [index.shape for index in indices])
    linear = indices[0] * 0
    for axis, index in enumerate(indices):
        length = x.shape[axis]
        _check_range(index, length, axis)
        linear = linear * length + (index < 0).where(index + length, index)
    return gather(x.reshape(math.prod(x.shape[: len(parts)]), *x.shape[len(parts) :]), linear)


def _is_empty(part: Any) -> bool:
    return isinstance(part, list) and not part


def _check_range(index: Tensor, length: int, axis: int) -> None:
    if index.size and (int(index.min()) < -length or int(index.max()) >= length):
        raise IndexError(f"an index on axis {axis} is outside of [{-length}, {length})")


def known_bounds(index: Tensor) -> tuple[int, int] | None:
    """Return numbers that no element lies outside of, None where that is not known unread."""
    known = getattr(index._array, "known_bounds", None)
    bounds: tuple[int, int] | None = None if known is None else known()
    return bounds


def gather(table: Tensor, index: Tensor) -> Tensor:
    """Rows of `table` by number: the result has the shape of `index`, then that of a row.

    The gradient of a row is the sum over its uses, added in their order, and to what the table has
    from later operations without a second array of its size. TypeError for an index
    that is not int32; IndexError for one outside of [0, len(table)).
    """
    if index.dtype != int32:
        raise TypeError(f"an index must be int32, not {index.dtype}")
    backend = backend_of("gather", (table, index))
    shape, rows = table.shape, index._array
    out = backend.allocate((*index.shape, *shape[1:]), table.dtype)
    backend.gather(table._array, rows, out)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        into, before = destinations[0], None
        if isinstance(into, SoFar):  # the table has other uses, as a tied embedding has
            into, before = (into.array, into.array) if into.is_own else (None, into.array)
        into = backend.allocate(shape, gradient.dtype) if into is None else into
        if before is None:
            backend.fill(0, into)
        elif before is not into:
            backend.copy(before, into)
        backend.scatter_add(gradient, rows, into)
        return (into,)

    return result_of("gather", out, backend, (table,), vjp, saved=(index,), adding=(0,))

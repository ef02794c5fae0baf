"""`x[...]`: slices are views; tensors of integers gather."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.dtype import bool_, int32
from rumus.tensor.expression.printable import abridged
from rumus.tensor.graph.autograd import SoFar
from rumus.tensor.graph.operators import broadcast_shape
from rumus.tensor.graph.tensor import Tensor, as_tensor, backend_of, result_of
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.recording import ask_host, decided_by, is_recorded


def basic(array: Array, key: Any, *, is_assigned: bool = False) -> Array:
    """Return the view of an array that a basic index selects: numbers, slices, ..., None.

    is_assigned: whether it is assigned to, for the message.
    """
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        known = isinstance(part, (int, np.integer, slice)) and not isinstance(part, bool)
        if not known and part is not None and part is not ...:
            if is_assigned:
                raise TypeError(
                    f"cannot assign to elements chosen by {abridged(part)}; use numbers, slices, "
                    "None or ..., or where(mask, value, x) for a new tensor"
                )
            raise TypeError(
                f"cannot index with {abridged(part)}; use numbers, slices, None, ... or tensors"
            )
    # With the Ellipsis NumPy returns a view rather than a scalar.
    return array[parts if ... in parts else (*parts, ...)]


def getitem(x: Tensor, key: Any) -> Tensor:
    """Select elements, as in NumPy.

    Integers, slices, None and `...` give a view. Integer tensors (or arrays, or lists) select
    elements and broadcast together; negative integers count from the end. The selected axes replace
    the indexed ones, or come first if the indices are not adjacent. A boolean mask stands for the
    positions where it is true, and indexes as many axes as it has. IndexError for an index out of
    range, too many indices, or a mask of another shape. TypeError for anything else, and for a mask
    on a GPU: only the device knows how many elements it selects.
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
    """Index with tensors: slices first, then one gather over the axes that tensors index."""
    whole = _for_each_axis(x, _without_masks(x, parts))
    view = tuple(slice(None) if isinstance(part, Tensor) else part for part in whole)
    sliced = x if all(part == slice(None) for part in view) else getitem(x, view)
    axes = [at for at, part in enumerate(whole) if isinstance(part, Tensor)]
    indices = [part for part in whole if isinstance(part, Tensor)]
    others = [at for at in range(sliced.ndim) if at not in axes]
    front = sliced if axes == list(range(len(axes))) else sliced.permute(*axes, *others)
    found = _select_first(front, indices, axes)
    if axes[0] == 0 or axes[-1] - axes[0] >= len(axes):  # in front, if the indices are not adjacent
        return found
    rank, before = found.ndim - len(others), axes[0]  # the result axes of the indices
    kept = range(rank, found.ndim)
    return found.permute(*kept[:before], *range(rank), *kept[before:])


def _for_each_axis(x: Tensor, parts: Sequence[Any]) -> list[Any]:
    """Expand `...` and missing axes to whole axes, and turn integers into tensors."""
    used = sum(part is not None and part is not ... for part in parts)
    if used > x.ndim:
        raise IndexError(f"{used} indices for a tensor with {x.ndim} axes")
    if sum(part is ... for part in parts) > 1:
        raise IndexError("an index can have at most one ...")
    at = next((n for n, part in enumerate(parts) if part is ...), len(parts))
    filled = [*parts[:at], *[slice(None)] * (x.ndim - used), *parts[at + 1 :]]
    found: list[Any] = []
    for part in filled:
        if isinstance(part, (Tensor, np.ndarray, list, int, np.integer)):
            found.append(_as_index(x, part))
        elif part is None or isinstance(part, slice):
            found.append(part)
        else:
            raise TypeError(
                f"cannot index with {abridged(part)}; use numbers, slices, None, ... or tensors"
            )
    return found


def _as_index(x: Tensor, part: Any) -> Tensor:
    index = as_tensor(part, x._backend, int32 if _is_empty(part) else None)
    if index.dtype != int32:
        raise TypeError(f"an index must be an integer, not {index.dtype}")
    return index


def _without_masks(x: Tensor, parts: Sequence[Any]) -> list[Any]:
    """Replace a mask by the positions where it is true."""
    masks = [_as_mask(part) for part in parts]
    takes = [
        0 if part is None or part is ... else 1 if mask is None else mask.ndim
        for part, mask in zip(parts, masks, strict=True)
    ]
    found: list[Any] = []
    for at, (part, mask) in enumerate(zip(parts, masks, strict=True)):
        if mask is None:
            found.append(part)
            continue
        is_behind = any(before is ... for before in parts[:at])
        first = x.ndim - sum(takes[at:]) if is_behind else sum(takes[:at])
        if mask.shape != x.shape[max(first, 0) : first + mask.ndim]:
            raise IndexError(
                f"a mask of shape {mask.shape} does not fit a tensor of shape {x.shape} from axis "
                f"{first} on"
            )
        found += [index.astype(np.int32) for index in np.nonzero(mask)]
    return found


def _as_mask(part: Any) -> NDArray[Any] | None:
    """A mask in NumPy, None for anything else; TypeError if that needs a transfer."""
    if isinstance(part, Tensor):
        if part.dtype != bool_:
            return None
        if part._backend.runs_ahead:
            raise TypeError(
                f"only the {part._backend.name} knows how many elements a mask selects; write "
                "where(mask, x, 0.0), which keeps the shape, or x[mask.numpy()], which waits for "
                "the device"
            )
    elif not isinstance(part, (np.ndarray, list)):
        return None
    host = part.numpy() if isinstance(part, Tensor) else np.asarray(part)
    if host.dtype != np.bool_:
        return None
    if not host.ndim:
        raise TypeError("cannot index with a single truth value; use where()")
    return host


def _select_first(x: Tensor, indices: Sequence[Tensor], axes: Sequence[int]) -> Tensor:
    """Index the first axes, named `axes` in messages, with integer tensors."""
    broadcast_shape("index", [index.shape for index in indices])
    linear: Tensor | None = None
    for at, (axis, index) in enumerate(zip(axes, indices, strict=True)):
        length = x.shape[at]
        low = _check_range(index, length, axis)
        counted = index if low >= 0 else (index < 0).where(index + length, index)
        linear = counted if linear is None else linear * length + counted
    assert linear is not None
    return gather(x.reshape(math.prod(x.shape[: len(axes)]), *x.shape[len(axes) :]), linear)


def _is_empty(part: Any) -> bool:
    return isinstance(part, list) and not part


def _check_range(index: Tensor, length: int, axis: int) -> int:
    """Return a lower bound of the elements. IndexError for one out of range."""
    if not index.size:
        return 0
    known = known_bounds(index)
    if known is None and not index._backend.runs_ahead:
        ask_host(partial(_check_numbers, length, axis), [index._array])
        return -length if is_recorded() else int(index._array.min())
    low, high = known or (-length - 1, length)
    if low < -length or high >= length:  # perhaps of a larger array that this one is part of
        low, high = int(index.min()), int(index.max())
    if low < -length or high >= length:
        raise _out_of_range(length, axis)
    return low


def _check_numbers(length: int, axis: int, index: NDArray[Any]) -> None:
    if index.min() < -length or index.max() >= length:
        raise _out_of_range(length, axis)


def _out_of_range(length: int, axis: int) -> IndexError:
    return IndexError(f"an index on axis {axis} is outside [{-length}, {length})")


def known_bounds(index: Tensor) -> tuple[int, int] | None:
    """Return bounds of the elements, None if they are unknown without reading."""
    known = getattr(index._array, "known_bounds", None)
    bounds: tuple[int, int] | None = None if known is None else known()
    return bounds


def may_hold(index: Tensor, number: int) -> bool:
    """Return False if no element can be `number`, as far as known without reading."""
    low, high = known_bounds(index) or (number, number)
    found = low <= number <= high
    decided_by(index._array, number, found)
    return found


@checked_arguments
def gather(table: Tensor, index: Tensor) -> Tensor:
    """Rows of `table` by number: the result's shape is that of `index`, then that of a row.

    The gradient of a row is the sum over its uses, in order; it is added to the table's gradient
    from later operations without a second array of its size.

    table: of at least one axis.
    index: integers of [0, len(table)), of any shape.

    TypeError for an index that is not int32; IndexError for one outside [0, len(table)).
    """
    if index.dtype != int32:
        raise TypeError(f"an index must be int32, not {index.dtype}")
    backend = backend_of("gather", (table, index))
    shape, rows = table.shape, index._array
    out = backend.allocate((*index.shape, *shape[1:]), table.dtype)
    backend.gather(table._array, rows, out)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        into, before = destinations[0], None
        if isinstance(into, SoFar):  # the table has other uses, like a tied embedding
            into, before = (into.array, into.array) if into.is_own else (None, into.array)
        into = backend.allocate(shape, gradient.dtype) if into is None else into
        if before is None:
            backend.fill(0, into)
        elif before is not into:
            backend.copy(before, into)
        backend.scatter_add(gradient, rows, into)
        return (into,)

    return result_of("gather", out, backend, (table,), vjp, saved=(index,), adding=(0,))

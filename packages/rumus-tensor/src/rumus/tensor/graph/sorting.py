"""Sorting: sort, argsort and topk.

NaN counts as larger than every number, as in NumPy and PyTorch, and sorting is stable, also in
descending order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np

from rumus.tensor.expression.dtype import bool_, int32
from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.graph.autograd import ADD
from rumus.tensor.graph.operators import cast, compute
from rumus.tensor.graph.reduction import normalize_axis
from rumus.tensor.graph.tensor import Tensor, result_of
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.reshaping import reshaped


def _comes_before() -> Kernel:
    """1 where element a at index i comes before element b at index j in ascending order."""
    a, b, i, j = (Expr.array(name) for name in "abij")
    a_is_number, b_is_number = a._apply("eq", a, a), b._apply("eq", b, b)
    both_nan = (a_is_number | b_is_number).where(0.0, 1.0)
    is_equal = a._apply("eq", a, b).where(1.0, both_nan) > 0
    is_less = (a < b) | (b_is_number.where(0.0, 1.0) > a_is_number.where(0.0, 1.0))
    found = is_less.where(1.0, is_equal.where((i < j).where(1.0, 0.0), 0.0))
    return Kernel("comes_before", {"out": found}, ("a", "b", "i", "j"))


_COMES_BEFORE: Final = _comes_before()
_SAME: Final = Kernel(
    "same", {"out": Expr.array("a")._apply("eq", Expr.array("a"), Expr.array("b"))}, ("a", "b")
)


def sort_primitive(
    backend: Backend, x: Array, values: Array, indices: Array, descending: bool
) -> None:
    """The first columns of the sorted rows of x, in primitives: comparing all pairs."""
    (rows, length), count = x.shape, values.shape[1]
    number = backend.upload(np.arange(length, dtype=np.int32))
    mine, other = x.reshape(rows, 1, length), x.reshape(rows, length, 1)
    pair = (mine, other) if descending else (other, mine)
    numbers = number.reshape(1, length, 1), number.reshape(1, 1, length)
    before = compute(backend, _COMES_BEFORE, (*pair, *numbers))
    rank = backend.allocate((rows, length), before.dtype)
    backend.reduce("sum", before, (1,), rank)
    wanted = number[:count].reshape(1, count, 1)
    found = compute(backend, _SAME, (rank.reshape(rows, 1, length), wanted))
    backend.reduce("argmax", found, (2,), indices)
    backend.gather(x.reshape(-1), _places(backend, indices, length), values)


def sort_gradient_primitive(backend: Backend, indices: Array, gradient: Array, into: Array) -> None:
    """into[row, indices[row, i]] = gradient[row, i], 0 elsewhere."""
    backend.fill(0, into)
    places = _places(backend, indices, into.shape[1])
    backend.scatter_add(gradient, places, into.reshape(-1))


def _places(backend: Backend, indices: Array, length: int) -> Array:
    """Indices within rows as indices into the whole array."""
    starts = backend.upload(np.arange(len(indices), dtype=np.int32) * length)
    return compute(backend, ADD, (indices, starts.reshape(-1, 1)))


def _last(array: Array, axis: int) -> Array:
    """Move an axis to the end."""
    others = [a for a in range(len(array.shape)) if a != axis]
    return array.transpose((*others, axis))


def _back(array: Array, axis: int) -> Array:
    """Undo `_last`."""
    last = len(array.shape) - 1
    return array.transpose((*range(axis), last, *range(axis, last)))


def order(
    x: Tensor, axis: int, descending: bool, count: int | None, name: str
) -> tuple[Tensor, Tensor]:
    """The first `count` elements in order along `axis`, and their indices."""
    at, backend = normalize_axis(axis, x.ndim, name), x._backend
    length = x.shape[at]
    count = None if count is None else whole_number(f"{name}: k", count)
    if count is not None and not 0 <= count <= length:
        raise ValueError(f"{name}: cannot take {count} from an axis of {length} elements")
    x = cast(x, int32) if x.dtype == bool_ else x
    moved = _last(x._array, at)
    shape = (*moved.shape[:-1], length if count is None else count)
    seen = math.prod(shape[:-1]), shape[-1]
    values, indices = backend.allocate(seen, x.dtype), backend.allocate(seen, int32)
    if values.size:
        sort = backend.fused("sort") or partial(sort_primitive, backend)
        sort(reshaped(backend, moved, (seen[0], length)), values, indices, descending)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        into = backend.allocate((seen[0], length), gradient.dtype)
        back = backend.fused("sort_gradient") or partial(sort_gradient_primitive, backend)
        if into.size:
            back(indices, reshaped(backend, _last(gradient, at), seen), into)
        return (_back(into.reshape(moved.shape), at),)

    result = _back(values.reshape(shape), at)
    numbers = Tensor(_back(indices.reshape(shape), at), backend)
    return result_of(name, result, backend, (x,), vjp), numbers

"""Cumulative sums along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from rumus.tensor.expression.dtype import bool_, int32
from rumus.tensor.graph.autograd import ADD
from rumus.tensor.graph.operators import cast
from rumus.tensor.graph.reduction import normalize_axis
from rumus.tensor.graph.tensor import Tensor, ones, result_of
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.reshaping import reshaped


def cumsum_primitive(backend: Backend, x: Array, out: Array, reverse: bool = False) -> None:
    """out[:, i] = the sum of x[:, :i + 1], or of x[:, i:] in reverse, in primitives.

    Each round adds the sums that end 1, 2, 4, ... elements earlier.
    """
    length, shift = x.shape[1], 1
    backend.copy(x, out)
    while shift < length:
        before = backend.allocate(out.shape, out.dtype)
        backend.copy(out, before)
        late, early = slice(shift, None), slice(None, length - shift)
        into, added = (early, late) if reverse else (late, early)
        operands = (before[:, into], before[:, added])
        backend.elementwise(ADD, operands, (), (out[:, into],))
        shift *= 2


def _run(backend: Backend, x: Array, axis: int, reverse: bool) -> Array:
    """The cumulative sums of an array of any layout."""
    shape = x.shape
    out = backend.allocate(shape, x.dtype)
    if not out.size:
        return out
    seen = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    add_up = backend.fused("cumsum") or partial(cumsum_primitive, backend)
    add_up(reshaped(backend, x, seen), out.reshape(seen), reverse)
    return out


def numbers(count: int, backend: Backend) -> Tensor:
    """Return the int32 numbers below `count`, made on the device: a captured step uploads nothing.

    >>> from rumus.tensor import NumpyBackend
    >>> numbers(3, NumpyBackend()).tolist()
    [0, 1, 2]
    """
    return cumsum(ones((count,), dtype=int32, backend=backend), 0) - 1


def cumsum(x: Tensor, axis: int) -> Tensor:
    """The cumulative sums along `axis`; see `Tensor.cumsum`."""
    x = cast(x, int32) if x.dtype == bool_ else x
    at, backend = normalize_axis(axis, x.ndim, "cumsum"), x._backend
    out = _run(backend, x._array, at, False)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array]:
        return (_run(backend, gradient, at, True),)  # an element is in all sums after it

    return result_of("cumsum", out, backend, (x,), vjp)

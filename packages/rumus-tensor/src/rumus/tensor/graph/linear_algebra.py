"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.dtype import DType, is_floating, promote
from rumus.tensor.graph.autograd import Product, Vjp
from rumus.tensor.graph.means import note_matmul
from rumus.tensor.graph.operators import broadcast_shape, cast, sum_to
from rumus.tensor.graph.tensor import Tensor, backend_of, result_of
from rumus.tensor.memory.backend import Array, Shape


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product of the last two axes; batches broadcast, vectors work as in NumPy.

    a: (..., m, k); a vector is (k,).
    b: (..., k, n); a vector is (k,).

    ValueError if the inner lengths differ; TypeError for an operand that is not a tensor, and if
    neither is of floating numbers.
    """
    for operand in (a, b):
        if not isinstance(operand, Tensor):
            refuse_operand(operand)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: {a.shape} @ {b.shape}: a scalar has no axis to multiply along")
    if a.ndim == 1:
        row = matmul(a.unsqueeze(0), b)
        return note_matmul(row.squeeze(-2 if b.ndim > 1 else 0), a, b)
    if b.ndim == 1:
        return matmul(a, b.unsqueeze(1)).squeeze(-1)
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: {a.shape} @ {b.shape}: {a.shape[-1]} is not {b.shape[-2]}")
    dtype = dtype_of_product("matmul", a, b)
    a, b = cast(a, dtype), cast(b, dtype)
    batch = broadcast_shape("matmul", [a.shape[:-2], b.shape[:-2]])
    backend = backend_of("matmul", (a, b))
    out = backend.allocate((*batch, a.shape[-2], b.shape[-1]), dtype)
    backend.matmul(a._array, b._array, out)
    vjp = _matmul_vjp(a, b)
    found = result_of("matmul", out, backend, (a, b), vjp, saved=(a, b), fills_places=True)
    return note_matmul(found, a, b)


def dtype_of_product(of: str, a: Tensor, b: Tensor, *others: Tensor) -> DType:
    """Return the dtype of a product and what is added to it.

    TypeError if neither factor is of floating numbers.
    """
    if not is_floating(promote(a.dtype, b.dtype)):
        raise TypeError(
            f"{of}: {a.dtype} @ {b.dtype}: float32 would round products beyond 2**24; convert one, "
            "x.astype(float32), or take einsum('...ij,...jk->...ik', a, b), which is exact"
        )
    return promote(a.dtype, b.dtype, *(each.dtype for each in others))


def refuse_operand(operand: object) -> NoReturn:
    """Raise TypeError: an operand of a product is not a tensor."""
    raise TypeError(f"matmul: expected a tensor, got {shown(operand)}; use tensor(...)")


def _swap(array: Array) -> Array:
    """Swap the last two axes, as a view."""
    ndim = len(array.shape)
    return array.transpose((*range(ndim - 2), ndim - 1, ndim - 2))


def _matmul_vjp(a: Tensor, b: Tensor) -> Vjp:
    """d(ab) = da b + a db, so da gets g b^T and db gets a^T g, summed over broadcast batches."""
    backend, x, y = a._backend, a._array, b._array
    wanted = a.requires_grad, b.requires_grad

    def product(left: Array, right: Array, shape: Shape, into: Array | None) -> Array:
        batch = broadcast_shape("matmul", [left.shape[:-2], right.shape[:-2]])
        full = (*batch, left.shape[-2], right.shape[-1])
        if into is None and full == shape:
            return Product(backend, left, right, full, shape)
        out = into
        if out is None or full != shape:
            out = backend.allocate(full, left.dtype)
        backend.matmul(left, right, out)
        return sum_to(backend, out, shape)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        first, second = destinations
        return (
            product(gradient, _swap(y), x.shape, first) if wanted[0] else None,
            product(_swap(x), gradient, y.shape, second) if wanted[1] else None,
        )

    return vjp

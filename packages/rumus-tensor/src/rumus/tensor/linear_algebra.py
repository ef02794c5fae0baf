"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rumus.tensor.autograd import Vjp
from rumus.tensor.backend import Array, Shape
from rumus.tensor.dtype import float32, is_floating, promote
from rumus.tensor.operators import broadcast_shape, cast, sum_to
from rumus.tensor.tensor import Tensor, backend_of, result_of


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product of the last two axes, batches broadcast, vectors as NumPy treats them.

    ValueError if the inner lengths differ; TypeError for an operand that is not a tensor.
    """
    if not isinstance(b, Tensor):
        raise TypeError(f"matmul: a tensor is needed, not {type(b).__name__}; use tensor(...)")
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: {a.shape} @ {b.shape}: a scalar has no axis to multiply along")
    if a.ndim == 1:
        row = matmul(a.unsqueeze(0), b)
        return row.squeeze(-2 if b.ndim > 1 else 0)
    if b.ndim == 1:
        return matmul(a, b.unsqueeze(1)).squeeze(-1)
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: {a.shape} @ {b.shape}: {a.shape[-1]} is not {b.shape[-2]}")
    dtype = promote(a.dtype, b.dtype)
    dtype = dtype if is_floating(dtype) else float32
    a, b = cast(a, dtype), cast(b, dtype)
    batch = broadcast_shape("matmul", [a.shape[:-2], b.shape[:-2]])
    backend = backend_of("matmul", (a, b))
    out = backend.allocate((*batch, a.shape[-2], b.shape[-1]), dtype)
    backend.matmul(a._array, b._array, out)
    return result_of("matmul", out, backend, (a, b), _matmul_vjp(a, b), saved=(a, b))


def _swap(array: Array) -> Array:
    """The last two axes exchanged, as a view."""
    ndim = len(array.shape)
    return array.transpose((*range(ndim - 2), ndim - 1, ndim - 2))


def _matmul_vjp(a: Tensor, b: Tensor) -> Vjp:
    """d(ab) = da b + a db, so da gets g b^T and db gets a^T g, summed over broadcast batches."""
    backend, x, y = a._backend, a._array, b._array
    wanted = a.requires_grad, b.requires_grad

    def product(left: Array, right: Array, shape: Shape, into: Array | None) -> Array:
        batch = broadcast_shape("matmul", [left.shape[:-2], right.shape[:-2]])
        full = (*batch, left.shape[-2], right.shape[-1])
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


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight^T + bias: one product, the bias added as its epilogue.

    x: (..., in). weight: (out, in). bias: (out,). Result: (..., out). ValueError if they do not
    fit. The leading axes are joined, so that the gradient of the weight is one product as well.
    """
    if weight.ndim != 2:
        raise ValueError(f"linear: a weight of shape (out, in) is needed, not {weight.shape}")
    outputs, inputs = weight.shape
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"linear: a bias of shape {(outputs,)} is needed, not {bias.shape}")
    if x.ndim == 0 or x.shape[-1] != inputs:
        raise ValueError(
            f"linear: input of shape {x.shape} for a weight of shape {weight.shape}: "
            f"the last axis must be {inputs}"
        )
    tensors = (x, weight) if bias is None else (x, weight, bias)
    backend = backend_of("linear", tensors)
    dtype = promote(*(t.dtype for t in tensors))
    dtype = dtype if is_floating(dtype) else float32
    if any(t.dtype != dtype for t in tensors):
        parts = [cast(t, dtype) for t in tensors]
        return linear(parts[0], parts[1], None if bias is None else parts[2])
    lead = x.shape[:-1]
    rows = x._array.reshape((math.prod(lead), inputs))
    out = backend.allocate((rows.shape[0], outputs), dtype)
    added = None if bias is None else bias._array
    backend.matmul(rows, weight._array.transpose((1, 0)), out, added)
    vjp = _linear_vjp(x, weight, bias, rows)
    shaped = out.reshape((*lead, outputs))
    return result_of("linear", shaped, backend, tensors, vjp, saved=(x, weight))


def _linear_vjp(x: Tensor, weight: Tensor, bias: Tensor | None, rows: Array) -> Vjp:
    backend, matrix, shape = x._backend, weight._array, x.shape
    outputs, inputs = weight.shape
    wanted = (x.requires_grad, weight.requires_grad, bias is not None and bias.requires_grad)

    def vjp(gradient: Array, destinations: Sequence[Array | None]) -> Sequence[Array | None]:
        shares: list[Array | None] = [None] * len(destinations)
        g = gradient.reshape((rows.shape[0], outputs))
        if wanted[0]:
            into = backend.allocate((rows.shape[0], inputs), g.dtype)
            backend.matmul(g, matrix, into)
            shares[0] = into.reshape(shape)
        if wanted[1]:
            into = destinations[1]
            shares[1] = backend.allocate(weight.shape, g.dtype) if into is None else into
        if wanted[2]:
            into = destinations[2]
            shares[2] = backend.allocate((outputs,), g.dtype) if into is None else into
        if wanted[1]:
            sums = shares[2] if wanted[2] else None
            backend.matmul(g.transpose((1, 0)), rows, shares[1], sums=sums)
        elif wanted[2]:
            backend.reduce("sum", g, (0,), shares[2])
        return shares

    return vjp

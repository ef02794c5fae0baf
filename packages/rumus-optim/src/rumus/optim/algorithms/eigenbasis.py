"""Bases in which symmetric matrices are nearly diagonal, refreshed by matrix products.

Matrices of one shape are one array, [count, n, n], so the number of kernels does not depend on
their count.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np

from rumus.tensor import Backend, DType, Expr, Kernel, sqrt, where
from rumus.tensor.memory.backend import Array

_X, _Y, _LARGEST = Expr.array("x"), Expr.array("y"), Expr.array("largest")
_OWN, _OTHER, _I, _J = (Expr.array(name) for name in ("own", "other", "i", "j"))
_DIVIDE = Kernel("scale", {"out": _X / where(_LARGEST <= 0, 1.0, _LARGEST)}, ("x", "largest"))
_MULTIPLY = Kernel("multiply", {"out": _X * _Y}, ("x", "y"))
_ADD = Kernel("add", {"out": _X + _Y}, ("x", "y"))
# A reflection leaves the elements before `at` unchanged, and rotates the rest onto element `at`.
_AT, _TOTAL, _HEAD = Expr.scalar("at"), Expr.array("total"), Expr.array("head")
_SQUARES = Kernel("squares", {"out": where(_J < _AT, 0.0, _X * _X)}, ("x", "j"))


def _vector() -> Kernel:
    norm = sqrt(_TOTAL)
    head = where(_HEAD < 0, _HEAD - norm, _HEAD + norm)
    u = where(_J < _AT, 0.0, where(_AT < _J, _X, head))
    size = sqrt(norm * (norm + abs(_HEAD)))  # the norm of u, divided by sqrt(2)
    return Kernel(
        "reflection", {"out": where(size <= 0, 0.0, u / size)}, ("x", "j", "total", "head")
    )


_VECTOR: Final = _vector()
_REST = Kernel(  # the identity plus x
    "rest", {"out": where(_I < _J, 0.0, where(_J < _I, 0.0, 1.0)) + _X}, ("x", "i", "j")
)
# Whether `other` sorts before `own`: it is larger, or equal and earlier.
_BEFORE = Kernel(
    "before",
    {"out": where(_OWN < _OTHER, 1.0, where(_OTHER < _OWN, 0.0, where(_J < _I, 1.0, 0.0)))},
    ("own", "other", "i", "j"),
)
_EQUAL = Kernel("equal", {"out": where(_OWN < _J, 0.0, where(_J < _OWN, 0.0, 1.0))}, ("own", "j"))


def eigenvectors(backend: Backend, matrices: Array, out: Array) -> None:
    """Write the eigenvectors of symmetric matrices as columns, those of the largest values first.

    matrices: [count, n, n]. out: of the same shape. LAPACK computes them on the host, in float64,
    which waits for the device. A non-finite matrix gets the identity.
    """
    host = backend.download(matrices).astype(np.float64)
    found = np.empty(host.shape, out.dtype)
    for matrix, vectors in zip(host, found, strict=True):
        largest = np.abs(matrix).max()
        is_finite = np.isfinite(largest)
        scaled = matrix / (largest or 1.0) if is_finite else np.eye(len(matrix))
        vectors[...] = np.linalg.eigh(scaled)[1][:, ::-1]
    backend.copy(backend.upload(found), out)


def turn(backend: Backend, matrices: Array, basis: Array, out: Array) -> None:
    """Write an orthonormal basis closer to the eigenvectors: one power iteration, then QR.

    matrices: [count, n, n], symmetric, without negative eigenvalues. basis: of the same shape, with
    columns close to the eigenvectors. out: of the same shape; column j corresponds to column j of
    `basis`, but columns are orthogonalized in the order of their estimated eigenvalues, the largest
    first.

    Vyas et al.: arXiv:2409.11321, algorithm 4, with the order from the authors' code.
    """
    count, n, _ = matrices.shape
    dtype = np.dtype(matrices.dtype)
    largest = backend.allocate((count,), dtype)
    backend.reduce("max", matrices, (1, 2), largest)  # a diagonal element, as none is negative
    scaled = _elementwise(backend, _DIVIDE, (matrices, largest.reshape((count, 1, 1))), matrices)
    vectors = _contiguous(backend, basis.transpose((0, 2, 1)))
    images = _product(backend, vectors, scaled)  # one row per vector
    products = _elementwise(backend, _MULTIPLY, (images, vectors), images)
    values = backend.allocate((count, n), dtype)
    backend.reduce("sum", products, (2,), values)
    order = _order(backend, values)
    ordered = _product(backend, order.transpose((0, 2, 1)), images)
    found = backend.allocate(matrices.shape, dtype)
    orthonormal_rows = backend.fused("orthonormal_rows") or partial(reflected_rows, backend)
    orthonormal_rows(ordered, found)
    backend.matmul(found.transpose((0, 2, 1)), order.transpose((0, 2, 1)), out)


def _order(backend: Backend, values: Array) -> Array:
    """The matrices of the permutations that sort values, largest first: [i, r] is 1 if i goes to r.

    A product with one is exact.
    """
    count, n = values.shape
    dtype = np.dtype(values.dtype)
    index = backend.upload(np.arange(n, dtype=dtype))
    like = backend.allocate((count, n, n), dtype)
    operands = (
        values.reshape((count, n, 1)),
        values.reshape((count, 1, n)),
        index.reshape((n, 1)),
        index,
    )
    before = _elementwise(backend, _BEFORE, operands, like)
    rank = backend.allocate((count, n), dtype)
    backend.reduce("sum", before, (2,), rank)
    return _elementwise(backend, _EQUAL, (rank.reshape((count, n, 1)), index), like)


def reflected_rows(backend: Backend, rows: Array, out: Array) -> None:
    """Write orthonormal rows: for each r, the first r span the same space as the first r of `rows`.

    rows: [count, n, n], contiguous, float32 or float64; overwritten. out: of the same shape: the
    transposed Q of a QR decomposition of the transposed matrices, up to signs. Householder
    reflections, computed recursively in halves: the reflections of the first half are applied to
    the second in three products, so that most of the work is matrix products, with some twenty
    small kernels per row. The result is orthonormal whatever `rows` is.

    The form I + V^T S V of many reflections, with a triangular S, is from Schreiber, Van Loan
    (1989), and the recursion from Elmroth, Gustavson (2000).
    """
    n = rows.shape[1]
    dtype = np.dtype(rows.dtype)
    index = backend.upload(np.arange(n, dtype=dtype))
    vectors = backend.allocate(rows.shape, dtype)
    one = backend.allocate((rows.shape[0], 1, 1), dtype)
    backend.fill(-1, one)
    s = _reflections(backend, rows, vectors, index, one, 0, n)
    inner = _product(backend, s.transpose((0, 2, 1)), vectors)
    turned = _product(backend, vectors.transpose((0, 2, 1)), inner)
    operands = turned, index.reshape((n, 1)), index
    backend.elementwise(_REST, operands, _REST.bind({}), (out,))


def _reflections(
    backend: Backend, rows: Array, vectors: Array, index: Array, one: Array, start: int, stop: int
) -> Array:
    """Write the vectors of the reflections for some rows, and return their triangular S.

    one: the S of a single reflection.
    """
    if stop - start == 1:
        _reflect(backend, rows, vectors, index, start)
        return one
    middle = (start + stop) // 2
    first_s = _reflections(backend, rows, vectors, index, one, start, middle)
    first, rest = vectors[:, start:middle], rows[:, middle:stop]
    shares = _product(backend, _product(backend, rest, first.transpose((0, 2, 1))), first_s)
    change = _product(backend, shares, first)
    backend.copy(_elementwise(backend, _ADD, (rest, change), change), rest)
    second_s = _reflections(backend, rows, vectors, index, one, middle, stop)
    between = _product(backend, first, vectors[:, middle:stop].transpose((0, 2, 1)))
    corner = _product(backend, _product(backend, first_s, between), second_s)
    s = backend.allocate((rows.shape[0], stop - start, stop - start), np.dtype(rows.dtype))
    half = middle - start
    backend.fill(0, s)
    backend.copy(first_s, s[:, :half, :half])
    backend.copy(second_s, s[:, half:, half:])
    backend.copy(corner, s[:, :half, half:])
    return s


def _reflect(backend: Backend, rows: Array, vectors: Array, index: Array, at: int) -> None:
    """Write the v for which I - v v^T maps a row's elements from `at` on to element `at`."""
    count, dtype = rows.shape[0], np.dtype(rows.dtype)
    row = rows[:, at : at + 1]
    squares = backend.allocate(row.shape, dtype)
    scalars = _SQUARES.bind({"at": at})
    backend.elementwise(_SQUARES, (row, index), scalars, (squares,))
    total = backend.allocate((count,), dtype)
    backend.reduce("sum", squares, (1, 2), total)
    operands = row, index, total.reshape((count, 1, 1)), rows[:, at : at + 1, at : at + 1]
    backend.elementwise(_VECTOR, operands, _VECTOR.bind({"at": at}), (squares,))
    backend.copy(squares, vectors[:, at : at + 1])


def _contiguous(backend: Backend, part: Array) -> Array:
    copy = backend.allocate(part.shape, np.dtype(part.dtype))
    backend.copy(part, copy)
    return copy


def _elementwise(backend: Backend, kernel: Kernel, arrays: tuple[Array, ...], like: Array) -> Array:
    out = backend.allocate(like.shape, np.dtype(like.dtype))
    backend.elementwise(kernel, arrays, kernel.bind({}), (out,))
    return out


def _product(backend: Backend, a: Array, b: Array) -> Array:
    dtype: DType = np.dtype(a.dtype)
    shape: tuple[Any, ...] = (a.shape[0], a.shape[1], b.shape[2])
    out = backend.allocate(shape, dtype)
    backend.matmul(a, b, out)
    return out

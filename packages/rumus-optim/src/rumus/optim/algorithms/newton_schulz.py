"""Newton-Schulz iterations: the orthogonal matrix nearest to a matrix, by matrix products only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from rumus.optim.engine.porting import Coefficients
from rumus.tensor import Backend, Expr, Kernel, sqrt
from rumus.tensor.expression.declared_type import is_ordered, shown
from rumus.tensor.memory.backend import Array, Epilogue

# The quintic iteration of Jordan et al., steep at 0, so that small singular values grow fast.
COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)

# Amsel et al., arXiv:2505.16932, listing 2: the best sequence of odd polynomials of degree 5 for
# singular values from 1e-3 to 1. All but the last are used as functions of x / 1.01, so that
# rounding cannot push a value out of the range that they are made for. The 8th is repeated.
_POLAR_EXPRESS: Final = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845749493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
_SAFETY: Final = 1.01

_X, _TOTAL, _SQUARE = Expr.array("x"), Expr.array("total"), Expr.array("square")
_SQUARED = Kernel("squares", {"out": _X * _X})
_NORMALIZE = Kernel(
    "normalize", {"x": _X / sqrt(_TOTAL).maximum(Expr.scalar("eps"))}, ("x", "total")
)
_NORMALIZE_BESIDE = Kernel(
    "normalize", {"x": _X / (sqrt(_TOTAL) + Expr.scalar("eps"))}, ("x", "total")
)
# Epilogues: applied to a product before it is written.
_POLYNOMIAL = Kernel(
    "polynomial",
    {"square": Expr.scalar("b") * Expr.array("gram") + Expr.scalar("c") * _SQUARE},
    ("square", "gram"),
)
_COMBINE = Kernel(
    "combine",
    {"product": Expr.scalar("a") * _X + Expr.array("product")},
    ("product", "x"),
)


def triples(coefficients: Coefficients, iterations: int) -> list[tuple[float, float, float]]:
    """Return (a, b, c) of each iteration. ValueError for another form, TypeError if not numbers.

    coefficients: one triple for all iterations, one per iteration, or "polar_express".

    >>> triples((2, -1.5, 0.5), 2)
    [(2.0, -1.5, 0.5), (2.0, -1.5, 0.5)]
    """
    if isinstance(coefficients, str):
        return _named(coefficients, iterations)
    if not is_ordered(coefficients):
        raise TypeError(
            f'coefficients must be three numbers or "polar_express", not {shown(coefficients)}'
        )
    given: list[Any] = list(coefficients)
    each = given if any(isinstance(one, Sequence) for one in given) else [given] * iterations
    found = []
    for one in each:
        is_row = isinstance(one, Sequence) and not isinstance(one, str)
        numbers = list(map(float, one)) if is_row else []
        if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
            raise ValueError(
                f"coefficients must be three finite numbers, or three per iteration, not {one!r}"
            )
        found.append((numbers[0], numbers[1], numbers[2]))
    if len(found) != iterations:
        raise ValueError(
            f"coefficients: {len(found)} triples for {iterations} iterations; give one triple, or "
            f"iterations={len(found)}"
        )
    return found


def _named(name: str, iterations: int) -> list[tuple[float, float, float]]:
    if name != "polar_express":
        raise ValueError(
            'coefficients must be three finite numbers, three per iteration, or "polar_express", '
            f"not {name!r}"
        )
    found = []
    for a, b, c in _POLAR_EXPRESS[:-1]:
        found.append((a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5))
    return [*found, *(_POLAR_EXPRESS[-1],) * iterations][:iterations]


def orthogonalize(
    backend: Backend,
    x: Array,
    *,
    iterations: int = 5,
    coefficients: Coefficients = COEFFICIENTS,
    eps: float = 1e-7,
    eps_beside: bool = False,
    factor: float = 1.0,
) -> Array:
    """Return matrices with the singular vectors of those in `x`, and singular values near 1.

    x: (count, rows, columns), contiguous, float32 or float64; it is overwritten. Each matrix is
    divided by the larger of its Frobenius norm and eps, or by their sum with eps_beside; then,
    `iterations` times, x = a x + (b s + c s^2) x with s = x x^T, or the same from the other side,
    whichever s is smaller. With the default coefficients the singular values end between about 0.7
    and 1.2, which is close enough for Muon.
    factor: multiplies the result, folded into the last iteration.

    Everything is computed and returned in the dtype of `x`, or in float16 if the backend rounds the
    inputs of products to it: the entries of a matrix of norm 1 are within its range. The paper uses
    bfloat16. The number of kernels does not depend on `count`.
    """
    each = triples(coefficients, iterations)
    count, rows, columns = x.shape
    squares = backend.allocate(x.shape, x.dtype)
    backend.elementwise(_SQUARED, (x,), (), (squares,))
    total = backend.allocate((count,), x.dtype)
    backend.reduce("sum", squares, (1, 2), total)
    normalize = _NORMALIZE_BESIDE if eps_beside else _NORMALIZE
    scalars = normalize.bind({"eps": eps})
    backend.elementwise(normalize, (x, total.reshape((count, 1, 1))), scalars, (x,))
    dtype = backend.product_dtype(x.dtype)
    if dtype != x.dtype:
        x, wide = backend.allocate(x.shape, dtype), x
        backend.copy(wide, x)
        squares = backend.allocate(x.shape, dtype)
    small = min(rows, columns)
    gram, square = (backend.allocate((count, small, small), dtype) for _ in range(2))
    other = squares
    for number in range(iterations):
        scaled = [factor * c if number == iterations - 1 else c for c in each[number]]
        _iterate(backend, x, scaled, gram, square, other)
        x, other = other, x
    return x


def _iterate(
    backend: Backend, x: Array, factors: Sequence[float], gram: Array, square: Array, out: Array
) -> None:
    """out = a x + (b s + c s^2) x, with two arrays for s to write to."""
    a, b, c = factors
    turned = x.transpose((0, 2, 1))
    is_wide = x.shape[1] <= x.shape[2]
    backend.matmul(*((x, turned) if is_wide else (turned, x)), gram, symmetric=True)
    polynomial = Epilogue(_POLYNOMIAL, (gram,), _POLYNOMIAL.bind({"b": b, "c": c}))
    backend.matmul(gram, gram, square, epilogue=polynomial, symmetric=True)
    combined = Epilogue(_COMBINE, (x,), _COMBINE.bind({"a": a}))
    backend.matmul(*((square, x) if is_wide else (x, square)), out, epilogue=combined)

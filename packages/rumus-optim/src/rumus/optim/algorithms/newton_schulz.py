"""Newton-Schulz iterations: the orthogonal matrix nearest to a matrix, by matrix products only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from rumus.optim.engine.porting import Coefficients, Triple
from rumus.tensor import Backend, Expr, Kernel
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

_X, _NORM, _EPS = Expr.array("x"), Expr.array("norm"), Expr.scalar("eps")
_NORMALIZE = Kernel("normalize", {"out": _X / _NORM.maximum(_EPS)}, ("x", "norm"))
_NORMALIZE_BESIDE = Kernel("normalize", {"out": _X / (_NORM + _EPS)}, ("x", "norm"))
# Epilogues: applied to a product before it is written.
_POLYNOMIAL = Kernel(
    "polynomial",
    {"square": Expr.scalar("b") * Expr.array("gram") + Expr.scalar("c") * Expr.array("square")},
    ("square", "gram"),
)
_COMBINE = Kernel(
    "combine",
    {"product": Expr.scalar("a") * _X + Expr.array("product")},
    ("product", "x"),
)
_COMPOSE = Kernel(
    "compose",
    {
        "product": Expr.scalar("a") * Expr.array("left")
        + Expr.scalar("d") * Expr.array("right")
        + Expr.array("product")
    },
    ("product", "left", "right"),
)

# The most iterations before the matrix itself is multiplied again. Rounding errors of s in the
# smallest eigenvalues grow with a^2: in float16 a run of five ends in noise, while three err as
# much as three single iterations.
_RUN: Final = 3
_WIDE: Final = 2  # columns to rows from which a run is cheaper than its single iterations


def triples(coefficients: Coefficients, iterations: int) -> list[Triple]:
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
    given: list[Any] = [each.tolist() if hasattr(each, "tolist") else each for each in coefficients]
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


def _named(name: str, iterations: int) -> list[Triple]:
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

    x: (..., rows, columns), float32 or float64. Each matrix is divided by the larger of its
    Frobenius norm and eps, or by their sum with eps_beside; then, `iterations` times, x = a x +
    (b s + c s^2) x with s = x x^T, or the same from the other side, whichever s is smaller. With
    the default coefficients the singular values end between about 0.7 and 1.2, which is close
    enough for Muon.
    factor: multiplies the result, folded into the last iteration.

    Everything is computed and returned in the dtype of `x`, or in float16 if the backend rounds the
    inputs of products to it: the entries of a matrix of norm 1 are within its range. The paper uses
    bfloat16. The result is (count, rows, columns); the number of kernels does not depend on count.
    """
    each = triples(coefficients, iterations)
    *batch, rows, columns = x.shape
    count, axes = math.prod(batch), (x.ndim - 2, x.ndim - 1)
    norm = backend.allocate(tuple(batch), x.dtype)
    backend.reduce("norm", x, axes, norm)
    normalize = _NORMALIZE_BESIDE if eps_beside else _NORMALIZE
    dtype = backend.product_dtype(x.dtype)
    x, given = backend.allocate((count, rows, columns), dtype), x
    norms = norm.reshape((*batch, 1, 1))
    backend.elementwise(
        normalize, (given, norms), normalize.bind({"eps": eps}), (x.reshape(given.shape),)
    )
    small = min(rows, columns)
    length = _RUN if max(rows, columns) >= _WIDE * small else 1
    work = [backend.allocate((count, small, small), dtype) for _ in range(2 if length == 1 else 4)]
    a, b, c = each[-1]
    each[-1] = factor * a, factor * b, factor * c
    other = backend.allocate(x.shape, dtype)
    for start in range(0, iterations, length):
        _advance(backend, x, each[start : start + length], work, other)
        x, other = other, x
    return x


def _advance(
    backend: Backend, x: Array, run: Sequence[Triple], work: Sequence[Array], out: Array
) -> None:
    """out = x after a run of iterations, each x = (a + b s + c s^2) x with s = x x^T.

    The factors of x are polynomials of the first s, so they commute: after a factor z the next s is
    s z^2, and x is multiplied once, by the product of all. Each is kept as a multiple of 1 and the
    rest, whose small entries would be lost beside the 1.

    work: two arrays like s, four for a run of several.
    """
    turned = x.transpose((0, 2, 1))
    is_wide = x.shape[1] <= x.shape[2]
    gram, rest, *others = work
    a, b, c = run[0]
    backend.matmul(*((x, turned) if is_wide else (turned, x)), gram, symmetric=True)
    _polynomial(backend, gram, b, c, rest)
    multiple, factor = a, rest  # of the product of all factors; the rest of the last one
    for (before, _, _), (a, b, c) in pairwise(run):
        following, spare = others
        _combine(backend, gram, factor, before, gram, spare, symmetric=True)
        _combine(backend, spare, factor, before, spare, gram, symmetric=True)
        _polynomial(backend, gram, b, c, following)
        composed = Epilogue(_COMPOSE, (rest, following), _COMPOSE.bind({"a": a, "d": multiple}))
        backend.matmul(rest, following, spare, epilogue=composed, symmetric=True)
        multiple, rest, factor, others = multiple * a, spare, following, [following, rest]
    _combine(backend, *((rest, x) if is_wide else (x, rest)), multiple, x, out)


def _polynomial(backend: Backend, s: Array, b: float, c: float, out: Array) -> None:
    """out = b s + c s^2."""
    epilogue = Epilogue(_POLYNOMIAL, (s,), _POLYNOMIAL.bind({"b": b, "c": c}))
    backend.matmul(s, s, out, epilogue=epilogue, symmetric=True)


def _combine(
    backend: Backend,
    left: Array,
    right: Array,
    a: float,
    x: Array,
    out: Array,
    *,
    symmetric: bool = False,
) -> None:
    """out = a x + left right."""
    epilogue = Epilogue(_COMBINE, (x,), _COMBINE.bind({"a": a}))
    backend.matmul(left, right, out, epilogue=epilogue, symmetric=symmetric)

"""Norms whose sum of squares overflows: computed from gradients times a power of two.

With nonfinite="propagate" a step is applied whatever its gradients are, so a factor must be right
even if the plain sum of squares is infinite. The power of two is small enough that no square of a
finite gradient overflows, and large enough that the squares that matter stay normal numbers.
"""

from __future__ import annotations

import math
from typing import Final

from rumus.tensor import Backend, DType, Expr, Kernel, float32, float64, sqrt, where
from rumus.tensor.memory.backend import Array

_SHRINK: Final = {float32: 2.0**-96, float64: 2.0**-530}

_POWER: Final = Expr.scalar("shrink")
_MAX_NORM: Final = Expr.scalar("max_norm")
_MULTIPLY: Final = Kernel("shrink", {"g": Expr.array("g") * _POWER}, ("g",))


def norm_of(total: Expr, shrunk: Expr) -> Expr:
    """Return the norm from both sums."""
    return where(total < math.inf, sqrt(total), sqrt(shrunk) / _POWER)


_TOTALS: Final = ("total", "shrunk")
_NORM: Final = Kernel("large_norm", {"norm": norm_of(*map(Expr.array, _TOTALS))}, _TOTALS)


def widest(backend: Backend) -> DType:
    """Return the dtype in which a backend sums squares of several arrays."""
    return float32 if backend.runs_ahead else float64


def shrink(backend: Backend) -> float:
    """Return the power of two that multiplies gradients on a backend."""
    return _SHRINK[widest(backend)]


def shrunk(backend: Backend, gradient: Array) -> Array:
    """Return a copy of a gradient, times the power of two, in the widest dtype."""
    copy = backend.allocate(gradient.shape, widest(backend))
    backend.copy(gradient, copy)
    backend.elementwise(_MULTIPLY, (copy,), _MULTIPLY.bind({"shrink": shrink(backend)}), (copy,))
    return copy


def large_factor(total: Expr, shrunk: Expr, limit: Expr = _MAX_NORM) -> Expr:
    """Return the factor of gradients: 1 if the norm is NaN, 0 if it is infinite.

    total: the sum of their squares. shrunk: that of the gradients times `shrink`. limit: the
    largest norm.
    """
    divisor = sqrt(total) + Expr.scalar("eps")
    within = where(limit < divisor, limit / divisor, 1.0)
    beyond = limit / sqrt(shrunk) * Expr.scalar("shrink")
    return where(total < math.inf, within, where(beyond < 1.0, beyond, 1.0))


def large_norm(backend: Backend, total: Array, shrunk: Array) -> Array:
    """Return the norm from both sums, as an array without axes."""
    out = backend.allocate((), total.dtype)
    scalars = _NORM.bind({"shrink": shrink(backend)})
    backend.elementwise(_NORM, (total, shrunk), scalars, (out,))
    return out

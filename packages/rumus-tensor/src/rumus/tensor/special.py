"""Elementwise functions that NumPy has no ufunc for, in its calling convention: `f(x, out)`."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Real: TypeAlias = NDArray[Any]

_SPLIT = 1.0  # below: a series in x^2; above: erfc
_END = 6.0  # erf is 1 from here on, in float64 as well


def sigmoid(x: Real, out: Real) -> None:
    """out = 1 / (1 + exp(-x)); exp overflows to infinity for very negative x, which gives 0."""
    np.negative(x, out)
    np.exp(out, out)
    np.add(out, 1, out)
    np.reciprocal(out, out)


def softplus(x: Real, out: Real) -> None:
    """out = log(1 + exp(x))."""
    np.logaddexp(x, 0, out)


def relu(x: Real, out: Real) -> None:
    """out = max(x, 0), NaN stays NaN."""
    np.maximum(x, 0, out=out)


def where(condition: Real, a: Real | float, b: Real | float, out: Real) -> None:
    """out = a where the condition holds, else b; `out` may be `a` or `b` itself."""
    if isinstance(b, float) and b == 0 and isinstance(a, np.ndarray):
        _select(a, condition, out)
    elif isinstance(a, float) and a == 0 and isinstance(b, np.ndarray):
        _select(b, np.logical_not(condition), out)
    else:
        np.copyto(out, np.where(condition, a, b), casting="same_kind")


def _select(value: Real, condition: Real, out: Real) -> None:
    """out = value where the condition holds, else +0.

    The bits as an integer, times 0 or 1: several times faster than a masked copy, and unlike a
    product of floats it makes 0 of NaN and infinity as well.
    """
    if value.dtype != out.dtype:
        np.copyto(out, np.where(condition, value, 0), casting="same_kind")
    else:
        bits = np.dtype(f"i{out.dtype.itemsize}")
        np.multiply(value.view(bits), condition, out=out.view(bits))


@cache
def _erf_coefficients() -> tuple[NDArray[Any], NDArray[Any]]:
    """Chebyshev fits of erf(x)/x over x^2 in [0, 1], and of exp(x^2) erfc(x) over 1/(1 + x/2)."""
    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    squares = 0.5 * (nodes + 1) * _SPLIT**2
    inner = [math.erf(math.sqrt(s)) / math.sqrt(s) for s in squares]
    low, high = 1 / (1 + _END / 2), 1 / (1 + _SPLIT / 2)
    xs = [2 / t - 2 for t in 0.5 * (nodes + 1) * (high - low) + low]
    outer = [math.exp(x * x) * math.erfc(x) for x in xs]
    fit = np.polynomial.chebyshev.chebfit
    return fit(nodes, inner, 14), fit(nodes, outer, 18)


def erf(x: Real, out: Real) -> None:
    """out = the error function of x, to 1e-14 in float64."""
    inner, outer = _erf_coefficients()
    value = np.polynomial.chebyshev.chebval
    size = np.minimum(np.abs(x, dtype=np.float64), _END)
    near = np.minimum(size, _SPLIT)
    small = near * value(2 * near * near / _SPLIT**2 - 1, inner)
    far = np.maximum(size, _SPLIT)
    low, high = 1 / (1 + _END / 2), 1 / (1 + _SPLIT / 2)
    position = 2 * (1 / (1 + far / 2) - low) / (high - low) - 1
    large = 1 - np.exp(-far * far) * value(position, outer)
    np.copyto(out, np.copysign(np.where(size < _SPLIT, small, large), x), casting="same_kind")

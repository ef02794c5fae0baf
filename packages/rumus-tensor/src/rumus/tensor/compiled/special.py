"""Elementwise functions that NumPy has no ufunc for, in its calling convention: `f(x, out)`."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Real: TypeAlias = NDArray[Any]

_SPLIT = 1.0  # below: a series in x^2; above: erfc
_END = 6.0  # erf is 1 from here on, even in float64
_FLAT = 4.0  # the same in float32
_BITS = {size: np.dtype(f"i{size}") for size in (1, 2, 4, 8)}
_FEW, _MANY = 2048, 32_768  # elements for which an array of zeros is worthwhile


def sigmoid(x: Real, out: Real) -> None:
    """out = 1 / (1 + exp(-x)); exp overflows to infinity for very negative x, which gives 0.

    Not np.negative: of NumPy 2.4.6, it reads other elements of columns 16 or 64 bytes apart.
    """
    np.multiply(x, -1, out)
    np.exp(out, out)
    np.add(out, 1, out)
    np.reciprocal(out, out)


def softplus(x: Real, out: Real) -> None:
    """out = log(1 + exp(x))."""
    np.logaddexp(x, 0, out)


def relu(x: Real, out: Real) -> None:
    """out = max(x, 0), NaN stays NaN.

    NumPy has a faster loop for two arrays than for an array and a number.
    """
    zeros = _zeros(x.dtype) if _FEW <= x.size <= _MANY and x.flags.c_contiguous else None
    np.maximum(x, 0 if zeros is None else zeros[: x.size].reshape(x.shape), out=out)


@cache
def _zeros(dtype: np.dtype[Any]) -> Real:
    """Zeros that nobody may change."""
    zeros = np.zeros(_MANY, dtype)
    zeros.flags.writeable = False
    return zeros


def where(condition: Real, a: Real | float, b: Real | float, out: Real) -> None:
    """out = a where the condition holds, else b; `out` may be `a` or `b` itself."""
    if isinstance(b, float) and b == 0 and isinstance(a, np.ndarray):
        _select(a, condition, out)
    elif isinstance(a, float) and a == 0 and isinstance(b, np.ndarray):
        _select(b, np.logical_not(condition), out)
    elif np.ndim(condition) == 0:  # the condition is a constant: no comparison is needed
        np.copyto(out, a if condition else b, casting="same_kind")
    else:
        np.copyto(out, np.where(condition, a, b), casting="same_kind")


def _select(value: Real, condition: Real, out: Real) -> None:
    """out = value where the condition holds, else +0.

    It multiplies the bits, as an integer, by 0 or 1: several times faster than a masked copy, and
    unlike a product of floats it also turns NaN and infinity into 0.
    """
    if value.dtype != out.dtype:
        np.copyto(out, np.where(condition, value, 0), casting="same_kind")
    else:
        bits = _BITS[out.dtype.itemsize]
        np.multiply(value.view(bits), condition, out.view(bits))


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


@cache
def erf_fraction() -> tuple[list[np.float32], list[np.float32]]:
    """P and Q, of degree 5, with erf(x) / x = P(s) / Q(s) for s = (x / 4)^2 in [0, 1], to 3e-8.

    A least-squares fit of P - f Q whose weights grow where the error is large, until it is nearly
    the same everywhere. All coefficients are positive, so no rounding error is magnified.
    """
    xs = _FLAT * (1 - np.cos(np.pi * (np.arange(200) + 0.5) / 200)) / 2
    s, f = (xs / _FLAT) ** 2, np.array([math.erf(x) / x for x in xs])
    powers, weights, q = np.vander(s, 6, increasing=True), np.ones(200), np.ones(200)
    columns = np.hstack([powers, -f[:, None] * powers[:, 1:]])
    for _ in range(60):
        scale = weights / (q * f)
        found = np.linalg.lstsq(columns * scale[:, None], f * scale, rcond=None)[0]
        above, below = found[:6], np.concatenate([[1.0], found[6:]])
        q = powers @ below
        error = np.abs(powers @ above / q / f - 1)
        weights *= (error / error.mean()) ** 0.3
        weights /= weights.max()
    above *= 1 + 2.0**-23  # so that the largest x give exactly 1 despite rounding
    return [np.float32(c) for c in above[::-1]], [np.float32(c) for c in below[::-1]]


def _erf_in_float32(x: Real, out: Real) -> None:
    """out = the error function of x, to 5e-7; `out` may be x."""
    above, below = erf_fraction()
    held, s, top, bottom = (np.empty_like(out) for _ in range(4))
    np.clip(x, np.float32(-_FLAT), np.float32(_FLAT), out=held)
    np.multiply(held, np.float32(1 / _FLAT), s)
    np.multiply(s, s, s)
    np.multiply(s, above[0], top)
    np.multiply(s, below[0], bottom)
    for a, b in zip(above[1:-1], below[1:-1], strict=True):
        np.add(top, a, top)
        np.multiply(top, s, top)
        np.add(bottom, b, bottom)
        np.multiply(bottom, s, bottom)
    np.add(top, above[-1], top)
    np.add(bottom, below[-1], bottom)
    np.multiply(top, held, top)
    np.divide(top, bottom, top)
    np.clip(top, np.float32(-1), np.float32(1), out=out)


def erf(x: Real, out: Real) -> None:
    """out = the error function of x, to 1e-14 in float64."""
    if x.dtype == out.dtype == np.float32:
        _erf_in_float32(x, out)
        return
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

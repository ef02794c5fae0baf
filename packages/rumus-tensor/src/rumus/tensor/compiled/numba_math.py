"""Functions of float32 that numba compiles into vector instructions.

numba calls the C library for each element of `math.exp`; these functions are short enough to be
inlined and have no branches, so loops over them vectorize. Errors are at most 3 units in the last
place, 5e-7 for erf. NaN gives NaN, and infinities give the limits.

Compiled loops in other modules that call `exp` stay in numba's cache until their own file changes:
after changing `exp`, remove the cache or touch those files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from rumus.tensor.compiled.special import erf_fraction
from rumus.tensor.compiled.whole_numba import whole_numba

NAMES: Final = ("exp", "tanh", "sigmoid", "erf")

_ONE, _TWO, _HALF = (np.float32(value) for value in (1, 2, 0.5))
# exp(x) = 2^n exp(r): n the integer nearest to x log2(e), found by adding 1.5 * 2^23, which leaves
# no room for a fraction. ln 2 is in two parts; the first times any n is exact.
_LOG2_E, _ROUND = np.float32(1.4426950408889634), np.float32(12582912)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOWEST, _HIGHEST = np.float32(-104), np.float32(89)  # beyond these: 0 and infinity
_BIAS, _MANTISSA = np.int32(127), np.int32(23)  # of the exponent; bits after it
_E2, _E3, _E4, _E5, _E6, _E7 = (np.float32(1 / f) for f in (2, 6, 24, 120, 720, 5040))
# tanh(x) = x (1 + x^2 T(x^2)) below 0.55, its series; above by exp.
_NEAR, _FAR = np.float32(0.55), np.float32(10)
_T1, _T2, _T3, _T4, _T5, _T6 = (
    np.float32(value)
    for value in (-1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075)
)
_FLAT = np.float32(4)  # erf is 1 from here on


def exp(x: Any) -> Any:
    """e^x, for loops in other modules to call after `compiled`."""
    held = _LOWEST if x < _LOWEST else (_HIGHEST if x > _HIGHEST else x)
    n = (held * _LOG2_E + _ROUND) - _ROUND
    r = (held - n * _LN2_HIGH) - n * _LN2_LOW
    series = _E2 + r * (_E3 + r * (_E4 + r * (_E5 + r * (_E6 + r * _E7))))
    value = _ONE + (r + r * r * series)
    # 2^n in two factors: n may exceed the range of one exponent.
    whole = np.int32(n if x == x else _ONE)
    half = whole >> np.int32(1)
    first = np.int32((half + _BIAS) << _MANTISSA).view(np.float32)
    second = np.int32((whole - half + _BIAS) << _MANTISSA).view(np.float32)
    return value * first * second


@cache
def compiled() -> Mapping[str, Callable[..., Any]]:
    """Return the functions in `NAMES`; numba compiles each on first use."""
    numba = whole_numba()
    from numba.extending import register_jitable

    register_jitable(nogil=True, error_model="numpy", fastmath={"contract"})(exp)
    njit = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
    (a5, a4, a3, a2, a1, a0), (b5, b4, b3, b2, b1, b0) = erf_fraction()

    def tanh(x: Any) -> Any:
        size = abs(x)
        square = x * x
        series = _T1 + square * (
            _T2 + square * (_T3 + square * (_T4 + square * (_T5 + square * _T6)))
        )
        near = x * (_ONE + square * series)
        held = _FAR if size > _FAR else size
        far = _ONE - _TWO / (exp(held + held) + _ONE)
        signed = -far if x < np.float32(0) else far
        return near if size < _NEAR else signed

    def sigmoid(x: Any) -> Any:
        return _ONE / (_ONE + exp(-x))

    def erf(x: Any) -> Any:
        held = -_FLAT if x < -_FLAT else (_FLAT if x > _FLAT else x)
        s = held / _FLAT
        s = s * s
        above = ((((a5 * s + a4) * s + a3) * s + a2) * s + a1) * s + a0
        below = ((((b5 * s + b4) * s + b3) * s + b2) * s + b1) * s + b0
        value = above * held / below
        return -_ONE if value < -_ONE else (_ONE if value > _ONE else value)

    return {"exp": njit(exp), "tanh": njit(tanh), "sigmoid": njit(sigmoid), "erf": njit(erf)}

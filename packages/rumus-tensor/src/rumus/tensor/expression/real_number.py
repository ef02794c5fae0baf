"""Arguments that measure: Python or NumPy numbers, but no strings or booleans."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, Final, TypeAlias

import numpy as np

from rumus.tensor.expression.printable import abridged


def real_number(name: str, value: Any) -> float:
    """Return `value`. TypeError if it is not a number, and for True and False.

    >>> real_number("p", 0.5)
    0.5
    >>> real_number("p", "0.5")
    Traceback (most recent call last):
    TypeError: p must be a number, not '0.5'
    """
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value.item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {abridged(value)}")
    return value  # type: ignore[return-value]


def positive_number(name: str, value: Any) -> float:
    """Return `value`. ValueError unless it is finite and positive, TypeError if it is not a number.

    >>> positive_number("eps", float("inf"))
    Traceback (most recent call last):
    ValueError: eps must be finite and positive, not inf
    """
    number = real_number(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be finite and positive, not {number}")
    return number


def finite_number(name: str, value: Any) -> float:
    """Return `value`. ValueError for NaN and infinity, TypeError if it is not a number.

    >>> finite_number("slope", float("nan"))
    Traceback (most recent call last):
    ValueError: slope must be finite, not nan
    """
    number = real_number(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, not {number}")
    return number


def limit(name: str, value: Any) -> float:
    """Return `value`, which may be infinite. ValueError for NaN, TypeError if it is not a number.

    >>> limit("low", float("-inf"))
    -inf
    """
    number = real_number(name, value)
    if math.isnan(number):
        raise ValueError(f"{name} must be a number, not nan")
    return number


# Declarations of an elementwise function's scalars, by which they are checked at each call.
Finite: TypeAlias = float
Positive: TypeAlias = float
Limit: TypeAlias = float
CHECKS: Final[Mapping[str, Callable[[str, Any], float]]] = {
    "Finite": finite_number, "Positive": positive_number, "Limit": limit,
}  # fmt: skip


def check_limits(of: str, low: object, high: object) -> None:
    """Raise ValueError for two numbers of which the first is larger; others are not looked at.

    of: the function's name.
    low: the lower limit.
    high: the upper one.

    >>> check_limits("clip", 1.0, -1.0)
    Traceback (most recent call last):
    ValueError: clip: low must be at most high, not 1.0 and -1.0
    """
    if isinstance(low, Real) and isinstance(high, Real) and low > high:
        raise ValueError(f"{of}: low must be at most high, not {low} and {high}")

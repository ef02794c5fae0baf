"""Arguments that count: Python or NumPy integers, but no fractions, which would be truncated."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from rumus.tensor.expression.printable import abridged


def whole_number(name: str, value: Any) -> int:
    """Return `value` as an integer. TypeError for a fraction, a string, True and False.

    >>> whole_number("count", np.int32(3))
    3
    >>> whole_number("count", 2.5)
    Traceback (most recent call last):
    TypeError: count must be a whole number, not 2.5
    """
    if not isinstance(value, (bool, np.bool_)):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} must be a whole number, not {abridged(value)}")

"""Shapes as arguments: one length or several, of Python or NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from rumus.tensor.expression.declared_type import is_ordered
from rumus.tensor.expression.whole_number import whole_number

_BEYOND: Final = 2**60  # elements, for which NumPy raises an error without the shape


def lengths_of(operation: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return a shape. TypeError for what is no whole number, ValueError for a negative one.

    >>> lengths_of("zeros", 3), lengths_of("zeros", [2, 0])
    ((3,), (2, 0))
    >>> lengths_of("zeros", (2, -1))
    Traceback (most recent call last):
    ValueError: zeros: the shape (2, -1) has a negative length
    """
    given: Any = shape
    if isinstance(given, (str, bytes, dict)) or not is_ordered(given):
        return lengths_of(operation, (whole_number(f"{operation}: the shape", given),))
    found = tuple(whole_number(f"{operation}: a length", n) for n in given)
    if any(n < 0 for n in found):
        raise ValueError(f"{operation}: the shape {found} has a negative length")
    if math.prod(found) >= _BEYOND:
        raise ValueError(f"{operation}: the shape {found} has more elements than any memory")
    return found

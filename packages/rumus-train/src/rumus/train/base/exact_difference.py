"""`difference`: in float64, also of integers that float64 rounds, such as identifiers and times."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import DType, Tensor, float32, float64, int32


def is_exact(array: NDArray[Any]) -> bool:
    """Whether float64 has each number that the dtype of an array has."""
    return not (array.dtype.kind in "iu" and array.dtype.itemsize == 8)


def difference(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return a - b in float64, rounded once.

    >>> import numpy as np
    >>> difference(np.array([2**53 + 1]), np.array([2**53])).tolist()
    [1.0]
    """
    if is_exact(a) and is_exact(b):
        exact: NDArray[np.float64] = np.subtract(a, b, dtype=np.float64)
        return exact
    (high, low), (other_high, other_low) = _halves(a), _halves(b)
    return (high - other_high) + (low - other_low)


def _halves(array: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two numbers of float64 whose sum is the element, exactly."""
    if is_exact(array):
        return array.astype(np.float64), np.zeros(())
    bits = array.dtype.type(32)
    high = array >> bits
    return high * np.float64(2**32), (array - (high << bits)).astype(np.float64)


def difference_there(a: Tensor, b: Tensor) -> Tensor:
    """Return a - b of tensors, where they are: in float32, or float64 if one is, rounded once."""
    kept = float64 if float64 in (a.dtype, b.dtype) else float32
    if a.dtype != int32 and b.dtype != int32:
        return a.astype(kept) - b.astype(kept)
    (high, low), (other_high, other_low) = (_halves_there(each, kept) for each in (a, b))
    return (high - other_high) + (low - other_low)


def _halves_there(x: Tensor, kept: DType) -> tuple[Tensor, Tensor | float]:
    """As `_halves`, in float32 or float64."""
    if x.dtype != int32:
        return x.astype(kept), 0.0
    high = x // 2**16
    return high.astype(kept) * 2**16, (x - high * 2**16).astype(kept)

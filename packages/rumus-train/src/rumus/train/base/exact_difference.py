"""`difference`: in float64, also of integers that float64 rounds, such as identifiers and times."""

from __future__ import annotations

from collections.abc import Sequence
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


def alike(arrays: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
    """Return arrays of batches in one dtype that has each of their numbers.

    ValueError if float64 and integers of 64 bits lack some.

    >>> import numpy as np
    >>> [a.dtype.name for a in alike([np.array([2**53 + 1]), np.array([1.0])])]
    ['int64', 'int64']
    """
    if len(dtypes := {array.dtype for array in arrays}) == 1 or all(map(is_exact, arrays)):
        return arrays
    for kind in (np.float64, np.int64, np.uint64):
        with np.errstate(invalid="ignore"):
            found = [array.astype(kind, copy=False) for array in arrays]
        if all(map(_is_same, arrays, found)):
            return found
    raise ValueError(
        f"batches are of {' and '.join(sorted(map(str, dtypes)))}, and no dtype has all of their "
        "numbers: convert predictions and targets of all batches to the same one"
    )


def _is_same(array: NDArray[Any], found: NDArray[Any]) -> bool:
    if is_exact(array) and is_exact(found):
        return True  # float64 has them all
    if array.dtype.kind == "f" and (np.abs(array) > 2.0**64).any():
        return False  # infinite ones as well
    return not difference(array, found).any()


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

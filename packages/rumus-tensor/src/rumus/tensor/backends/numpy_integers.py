"""Integers that are computed in more bits than they are stored in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def put_integers(operation: str, found: NDArray[Any], out: NDArray[Any]) -> None:
    """Write wider numbers to `out`; OverflowError, with `out` unchanged, for one it cannot hold."""
    limits = np.iinfo(out.dtype)
    if found.size and (found.min() < limits.min or found.max() > limits.max):
        beyond = found.max() if found.max() > limits.max else found.min()
        raise OverflowError(
            f"{operation}: {beyond} does not fit {out.dtype}; convert the tensor to float32 "
            "first, or compute it in NumPy"
        )
    np.copyto(out, found, casting="unsafe")

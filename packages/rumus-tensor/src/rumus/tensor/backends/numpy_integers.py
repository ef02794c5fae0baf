"""Integers that are computed in more bits than they are stored in, or are made of floats."""

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


def convert(source: NDArray[Any], out: NDArray[Any]) -> None:
    """Write `source` to `out`, of any dtype, as other backends do.

    Floats become integers without their fraction; those beyond the integers become the nearest one,
    and NaN 0. Processors differ there.
    """
    if source.dtype.kind == "f" and out.dtype.kind == "i":
        limits = np.iinfo(out.dtype)
        source = np.where(source == source, source, 0).astype(np.float64, copy=False)
        source = np.clip(source, limits.min, limits.max)
    np.copyto(out, source, casting="unsafe")

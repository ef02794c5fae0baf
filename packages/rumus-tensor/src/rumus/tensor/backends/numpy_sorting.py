"""Cumulative sums and sorting in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.backends.numpy_integers import put_integers
from rumus.tensor.memory.fused import FusedName

Numbers = NDArray[Any]


def cumsum(x: Numbers, out: Numbers, reverse: bool = False) -> None:
    """out[:, i] = the sum of x[:, :i + 1], or of x[:, i:] in reverse, added up in 64 bits.

    OverflowError, with `out` unchanged, for integers that it cannot hold.
    """
    along = slice(None, None, -1 if reverse else 1)
    with np.errstate(all="ignore"):
        wide = np.int64 if x.dtype.kind == "i" else np.float64
        sums = np.cumsum(x[:, along], 1, wide)[:, along]
        if x.dtype.kind == "i":
            put_integers("cumsum", sums, out)
        else:
            np.copyto(out, sums, casting="same_kind")


def sort(x: Numbers, values: Numbers, indices: Numbers, descending: bool) -> None:
    """The first columns of the sorted rows of x, and the indices of their elements.

    The sort is stable. NaN counts as the largest.
    """
    count = values.shape[1]
    if descending:  # reversed twice, so that equal elements keep their order
        turned = np.argsort(x[:, ::-1], 1, kind="stable")[:, ::-1]
        found = x.shape[1] - 1 - turned[:, :count]
    else:
        found = np.argsort(x, 1, kind="stable")[:, :count]
    np.copyto(indices, found, casting="same_kind")
    np.copyto(values, np.take_along_axis(x, found, 1))


def sort_gradient(indices: Numbers, gradient: Numbers, into: Numbers) -> None:
    """into[row, indices[row, i]] = gradient[row, i], 0 elsewhere."""
    into.fill(0)
    np.put_along_axis(into, indices, gradient, 1)


SORTING: Final[Mapping[FusedName, Callable[..., None]]] = {
    "cumsum": cumsum,
    "sort": sort,
    "sort_gradient": sort_gradient,
}

"""Arrays with a mask, which `np.asarray` would drop without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def unmasked(data: ArrayLike) -> NDArray[Any]:
    """Return `data` as a plain array. ValueError if elements are masked, or rows not equally long.

    TypeError for a dtype that NumPy lacks, such as PyTorch's bfloat16.

    >>> unmasked([1, 2])
    array([1, 2])
    >>> unmasked(np.ma.masked_array([1.0, -999.0], [False, True]))
    Traceback (most recent call last):
        ...
    ValueError: 1 elements of the array are masked: fill them with data.filled(value)
    """
    if type(data) is np.ndarray:
        return data
    mask = getattr(data, "mask", False)
    if isinstance(data, np.ndarray) and np.any(mask):
        raise ValueError(
            f"{np.count_nonzero(mask)} elements of the array are masked: fill them with "
            "data.filled(value)"
        )
    try:
        return np.asarray(data)
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ValueError(
            "the data are lists of different lengths, which make no array: fill up the shorter ones"
        ) from None
    except TypeError as error:
        if "ScalarType" not in str(error):
            raise
        kind = str(error).rpartition(" ")[2]
        raise TypeError(
            f"data of dtype {kind} cannot become an array, since NumPy has no such dtype: convert "
            "it first, as x.float() does in PyTorch"
        ) from None

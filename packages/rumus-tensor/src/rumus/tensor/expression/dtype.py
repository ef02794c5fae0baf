"""The five dtypes, and their promotion.

`float32` is for training, `int32` for indices, `bool_` for masks. `float16` is for storage:
arithmetic on it runs in float32. `float64` is for gradient checks and exists only on the CPU.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from rumus.tensor.expression.printable import abridged

DType: TypeAlias = "np.dtype[Any]"

float32: Final[DType] = np.dtype(np.float32)
float16: Final[DType] = np.dtype(np.float16)
float64: Final[DType] = np.dtype(np.float64)
int32: Final[DType] = np.dtype(np.int32)
bool_: Final[DType] = np.dtype(np.bool_)

_RANK: Final = {bool_: 0, int32: 1, float16: 2, float32: 3, float64: 4}
_NAMES: Final = ", ".join(map(str, _RANK))


def as_dtype(dtype: DTypeLike) -> DType:
    """Return `dtype` as one of the five; TypeError lists them if it is another one, or None."""
    given: Any = dtype
    if given is None:  # float64 to NumPy
        raise TypeError(f"dtype None is not supported; use one of {_NAMES}")
    if not isinstance(given, type) and hasattr(given, "dtype"):  # NumPy takes a tensor's
        kind = type(given).__name__
        raise TypeError(f"dtype must be a dtype, not a {kind}: write x.dtype, or one of {_NAMES}")
    try:
        found: DType = np.dtype(given)
    except (TypeError, RecursionError):
        raise TypeError(f"dtype {abridged(given)} is not supported; use one of {_NAMES}") from None
    if found not in _RANK:
        raise TypeError(f"dtype {found} is not supported; use one of {_NAMES}")
    return found


def is_floating(dtype: DType) -> bool:
    """Whether a gradient can flow through values of this dtype."""
    return dtype.kind == "f"


@cache
def promote(*dtypes: DType) -> DType:
    """Return the dtype that holds a mixture: bool < int32 < float16 < float32 < float64."""
    return max(dtypes, key=_RANK.__getitem__)


def default_dtype(array: np.ndarray[Any, DType]) -> DType:
    """Return the default dtype of data: float32, int32 or bool.

    Raises TypeError for complex numbers, text and objects.
    """
    kind = array.dtype.kind
    if kind == "f":
        return float16 if array.dtype == float16 else float32
    if kind in "iu":
        return int32
    if kind == "b":
        return bool_
    raise TypeError(
        f"data of dtype {array.dtype} cannot become a tensor; convert it to numbers first, as "
        "x.astype(numpy.float32) does"
    )

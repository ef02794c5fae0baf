"""Whole numbers that NumPy rounds where it joins columns or lists to one array of floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.train.base.printable import printable

_LARGE: Final = 2.0**53  # from here on, float64 lacks some whole numbers


def refuse_rounded(name: str, given: Any, array: NDArray[Any]) -> None:
    """Raise ValueError for a whole number that its array has not, for a fraction beside it.

    name: of what is given, for the message.
    given: a data frame, a table of pyarrow, or lists; an array joins nothing.
    array: NumPy's of it.

    >>> refuse_rounded("x", [[2**53 + 1, 0.5]], np.asarray([[2**53 + 1, 0.5]]))
    Traceback (most recent call last):
    ...
    ValueError: x: 9007199254740993 becomes 9007199254740992 in float64, the dtype that all \
numbers have together: give an array for each dtype, or convert all of them to float64 first
    """
    if isinstance(given, np.ndarray) or array.dtype != np.float64 or not _may_join(given):
        return
    for place in np.argwhere(np.abs(array) >= _LARGE).tolist():
        value, kept = _element(given, place), float(array[tuple(place)])
        if isinstance(value, (int, np.integer)) and int(value) != kept:
            names = getattr(given, "columns", None)
            column = "" if names is None else f" column {printable(repr(_named(given, place[1])))}:"
            raise ValueError(
                f"{name}:{column} {value} becomes {int(kept)} in float64, the dtype that all "
                "numbers have together: give an array for each dtype, or convert all of them to "
                "float64 first"
            )


def _may_join(given: Any) -> bool:
    """Whether there may be whole numbers beside fractions: not in a series of one dtype."""
    return isinstance(given, (list, tuple)) or getattr(given, "ndim", 2) == 2


def _named(given: Any, number: int) -> str:
    names: Sequence[Any] = getattr(given, "column_names", None) or given.columns
    return str(names[number])


def _element(given: Any, place: Sequence[int]) -> object:
    """One number as it was given."""
    if hasattr(given, "iat"):  # a data frame of pandas, whose rows have one dtype, too
        return given.iat[tuple(place)]
    if hasattr(given, "column_names"):  # a table of pyarrow
        return given.column(place[1])[place[0]].as_py()
    for at in place:
        given = given[at] if isinstance(given, (list, tuple)) else np.asarray(given)[at]
    return given

"""Whole numbers that NumPy rounds where it joins columns or lists to one array of floats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rumus.tensor.expression.masked import unmasked
from rumus.train.base.exact_difference import difference
from rumus.train.base.printable import printable

_LARGE: Final = 2.0**53  # from here on, float64 lacks some whole numbers


def exact_array(value: ArrayLike) -> NDArray[Any]:
    """Return `unmasked(value)`; ValueError for lists of which it rounds a whole number."""
    array = unmasked(value)
    if isinstance(value, (list, tuple)):
        refuse_rounded("the list", value, array)
    return array


def refuse_rounded(name: str, given: Any, array: NDArray[Any]) -> None:
    """Raise ValueError for a whole number that its array has not, for a fraction beside it.

    Or for a missing number beside it, which is NaN.

    name: of what is given, for the message.
    given: an object of pandas or pyarrow, or lists; an array joins nothing.
    array: NumPy's of it.

    >>> refuse_rounded("x", [[2**53 + 1, 0.5]], np.asarray([[2**53 + 1, 0.5]]))
    Traceback (most recent call last):
    ...
    ValueError: x: 9007199254740993 becomes 9007199254740992 in float64, the dtype that all \
numbers have together: give an array for each dtype, or convert all of them to float64 first
    """
    if isinstance(given, np.ndarray) or array.dtype != np.float64:
        return
    read = _of_lists if isinstance(given, (list, tuple)) else _of_columns
    for column, value, kept in read(given, array):
        told = "" if column is None else f" column {printable(repr(column))}:"
        raise ValueError(
            f"{name}:{told} {value} becomes {int(kept)} in float64, the dtype that all numbers "
            "have together: give an array for each dtype, or convert all of them to float64 first"
        )


def column_names(given: Any) -> list[str]:
    """Return the names of the columns of a data frame or a table; none for anything else."""
    names = getattr(given, "column_names", None)
    if names is None and getattr(given, "ndim", 0) == 2:
        names = getattr(given, "columns", None)
    return [] if names is None else [str(name) for name in names]


def _of_lists(given: Any, array: NDArray[Any]) -> Iterator[tuple[str | None, int, float]]:
    for place in np.argwhere(np.abs(array) >= _LARGE).tolist():
        value, kept = given, float(array[tuple(place)])
        for at in place:
            value = value[at] if isinstance(value, (list, tuple)) else np.asarray(value)[at]
        if isinstance(value, (int, np.integer)) and int(value) != kept:
            yield None, int(value), kept


def _of_columns(given: Any, array: NDArray[Any]) -> Iterator[tuple[str | None, int, float]]:
    names = column_names(given)
    for number in range(array.shape[1] if array.ndim == 2 else 1):
        column = given
        if names:
            column = given.iloc[:, number] if hasattr(given, "iloc") else given.column(number)
        if (found := _whole_numbers(column)) is None:
            continue
        whole, known = found
        kept = (array[:, number] if array.ndim == 2 else array)[known]
        for place in np.flatnonzero(difference(whole, kept)).tolist():
            yield names[number] if names else None, int(whole[place]), float(kept[place])


def _whole_numbers(column: Any) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
    """The whole numbers of 64 bits of a column, and which there are; None for another dtype."""
    if hasattr(column, "drop_null"):  # of pyarrow
        if str(column.type) not in ("int64", "uint64"):
            return None
        return np.asarray(column.drop_null()), np.asarray(column.is_valid(), np.bool_)
    dtype = getattr(column, "dtype", None)
    if getattr(dtype, "kind", "") not in "iu" or getattr(dtype, "itemsize", 0) != 8:
        return None
    known = ~np.asarray(column.isna(), np.bool_)
    return column[known].to_numpy(np.dtype(f"{dtype.kind}8")), known  # type: ignore[union-attr]

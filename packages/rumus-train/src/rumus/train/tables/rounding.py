"""What a column loses in its dtype: infinite numbers, digits of whole numbers, seconds."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.printable import printable

_DAY: Final = 86_400  # seconds
_A_SECOND: Final = 1 - 1e-3  # days in float64 have it within microseconds


def require_finite(shown: str, name: str, numbers: NDArray[Any], found: NDArray[Any]) -> None:
    """Raise ValueError for a number of a column that its dtype has not, and warn of rounding.

    numbers: as read. found: in the dtype.
    """
    if (far := np.isfinite(numbers) & ~np.isfinite(found)).any():
        raise ValueError(
            f"{shown}: {numbers[far][0]} in column {printable(repr(name))} is not {found.dtype}; "
            f"{holding(numbers[far][0], found.dtype)}"
        )
    warn_of_rounding(shown, name, numbers, found)


def holding(number: float, dtype: np.dtype[Any]) -> str:
    """Return which dtype holds a number that this one does not.

    >>> holding(1e39, np.dtype(np.float32))
    'a float64 dtype= or target_dtype= holds it'
    """
    value: float = np.asarray(number).item()
    is_whole = float(value).is_integer() and -(2**63) <= value < 2**63
    if math.isinf(value) and dtype.kind == "f":
        return "no dtype holds it: correct it, or leave the column out with columns=[...]"
    kind = "float64" if dtype.kind == "f" else "int64" if is_whole else "floating"
    if kind == str(dtype):  # a whole number with a point or an exponent
        kind = "floating"
    return f"{'an' if kind == 'int64' else 'a'} {kind} dtype= or target_dtype= holds it"


def warn_of_rounding(shown: str, name: str, numbers: NDArray[Any], found: NDArray[Any]) -> bool:
    """Warn of large numbers that a floating dtype rounds; return whether there are any.

    Of whole ones, and of others that lose more than their fractions. And of numbers that become 0
    in it.

    numbers: as read. found: in the dtype.
    """
    if found.dtype.kind != "f" or numbers.dtype == found.dtype:
        return False
    if (vanished := (found == 0) & (numbers != 0)).any():
        tell_of_vanished(shown, name, str(numbers[vanished][0]), found.dtype)
    place = _first_rounded(numbers, found)
    if place is not None:
        value = numbers[place]
        cell = str(int(value)) if value == np.trunc(value) else str(value)
        tell_of_rounding(shown, name, cell, found[place])
    return place is not None


def tell_of_rounding(shown: str, name: str, cell: str, found: Any) -> None:
    """Warn of a large number that was rounded."""
    kind = "large" if "." in cell else "whole"
    warn_user(
        f"{shown}: column {printable(repr(name))} has {kind} numbers that {found.dtype} rounds, "
        f"{cell} to {int(found)}; {_keeps(found.dtype)}"
    )


def tell_of_vanished(shown: str, name: str, cell: str, dtype: np.dtype[Any]) -> None:
    """Warn of a number that became 0."""
    warn_user(
        f"{shown}: column {printable(repr(name))} has numbers too small for {dtype}, which become "
        f"0, such as {cell}; keep them with a float64 dtype= or target_dtype="
    )


def is_off(days: NDArray[Any], found: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where times of day are rounded by a second or more.

    days: since 1970, as read. found: in the dtype.
    """
    return np.asarray(_lost(days, found) >= _A_SECOND)


def _lost(days: NDArray[Any], found: NDArray[Any]) -> NDArray[np.float64]:
    """The seconds that are lost."""
    seconds: NDArray[np.float64] = np.abs(days - found.astype(np.float64)) * _DAY
    return seconds


def warn_of_times(shown: str, name: str, days: NDArray[Any], found: NDArray[Any]) -> None:
    """Warn of times of day that a dtype rounds by a second or more.

    days: since 1970, as read. found: in the dtype.
    """
    if is_off(days, found).any():
        lost = _lost(days, found)
        warn_user(
            f"{shown}: column {printable(repr(name))} has times of day that {found.dtype} rounds, "
            f"by up to {np.nanmax(lost):.0f} seconds; {_keeps(found.dtype)}"
        )


def _keeps(dtype: np.dtype[Any]) -> str:
    """What keeps numbers that a dtype rounds."""
    if dtype.itemsize == 8:
        return "keep them with an int64 dtype= or target_dtype="
    return (
        "keep them with a float64 dtype= or target_dtype=, or subtract their mean first with "
        "standardize=True"
    )


def _first_rounded(numbers: NDArray[Any], found: NDArray[Any]) -> int | None:
    """The index of the first large number that the dtype rounds, if there is one."""
    large = (np.abs(found) >= 2.0 ** (np.finfo(found.dtype).nmant + 1)) & np.isfinite(found)
    for place in np.flatnonzero(large).tolist():
        value, rounded = numbers[place], found[place]
        if abs(int(value) - int(rounded)) > (value != np.trunc(value)):
            return int(place)
    return None

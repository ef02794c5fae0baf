"""What a column loses in its dtype: infinite numbers, digits of whole numbers, seconds."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.printable import listed, printable

_DAY: Final = 86_400  # seconds
_A_SECOND: Final = 1 - 1e-3  # days in float64 have it within microseconds


class Roundings:
    """What the columns of one table lose in their dtypes, told once for each kind of loss.

    shown: the name of the table.
    """

    def __init__(self, shown: str) -> None:
        self.shown = shown
        # The columns of each kind and of what keeps their numbers, with an example of each column.
        self._found: dict[tuple[str, str], dict[str, str]] = {}
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def note(self, name: str, what: str, example: str, keeps: str) -> None:
        """Note that a column has what is lost; its first example counts."""
        self._names.add(name)
        self._found.setdefault((what, keeps), {}).setdefault(name, example)

    def note_rounded(self, name: str, cell: str, found: Any) -> None:
        """Note a large number that was rounded."""
        kind = "large" if "." in cell else "whole"
        example = f"{cell} to {int(found)}"
        self.note(name, f"{kind} numbers that {found.dtype} rounds", example, _keeps(found.dtype))

    def note_vanished(self, name: str, cell: str, dtype: np.dtype[Any]) -> None:
        """Note a number that became 0."""
        what = f"numbers too small for {dtype}, which become 0"
        self.note(name, what, f"such as {cell}", "keep them with a float64 dtype= or target_dtype=")

    def note_numbers(self, name: str, numbers: NDArray[Any], found: NDArray[Any]) -> None:
        """Note large numbers of a column that a floating dtype rounds, and those that become 0.

        Whole ones, and others that lose more than their fractions.

        numbers: as read. found: in the dtype.
        """
        if found.dtype.kind != "f" or numbers.dtype == found.dtype:
            return
        if (vanished := (found == 0) & (numbers != 0)).any():
            self.note_vanished(name, str(numbers[vanished][0]), found.dtype)
        place = _first_rounded(numbers, found)
        if place is not None:
            value = numbers[place]
            cell = str(int(value)) if value == np.trunc(value) else str(value)
            self.note_rounded(name, cell, found[place])

    def note_times(self, name: str, days: NDArray[Any], found: NDArray[Any]) -> None:
        """Note times of day that a dtype rounds by a second or more.

        days: since 1970, as read. found: in the dtype.
        """
        if is_off(days, found).any():
            most = f"by up to {np.nanmax(_lost(days, found)):.0f} seconds"
            what = f"times of day that {found.dtype} rounds"
            self.note(name, what, most, _keeps(found.dtype))

    def tell(self) -> None:
        """Warn of what was noted, once for each kind; a second call has nothing to tell."""
        found, self._found, self._names = self._found, {}, set()
        for (what, keeps), examples in found.items():
            first, example = next(iter(examples.items()))
            is_one = len(examples) == 1
            where = "" if is_one else f" in {printable(repr(first))}"
            warn_user(
                f"{self.shown}: column{'' if is_one else 's'} {listed(examples)} "
                f"{'has' if is_one else 'have'} {what}, {example}{where}; {keeps}"
            )


def require_finite(
    roundings: Roundings, name: str, numbers: NDArray[Any], found: NDArray[Any]
) -> None:
    """Raise ValueError for a number of a column that its dtype has not, and note what it rounds.

    numbers: as read. found: in the dtype.
    """
    if (far := np.isfinite(numbers) & ~np.isfinite(found)).any():
        raise ValueError(
            f"{roundings.shown}: {numbers[far][0]} in column {printable(repr(name))} is not "
            f"{found.dtype}; {holding(numbers[far][0], found.dtype)}"
        )
    roundings.note_numbers(name, numbers, found)


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


def is_off(days: NDArray[Any], found: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where times of day are rounded by a second or more.

    days: since 1970, as read. found: in the dtype.
    """
    return np.asarray(_lost(days, found) >= _A_SECOND)


def _lost(days: NDArray[Any], found: NDArray[Any]) -> NDArray[np.float64]:
    """The seconds that are lost."""
    seconds: NDArray[np.float64] = np.abs(days - found.astype(np.float64)) * _DAY
    return seconds


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

"""The number in a cell of a CSV file, and advice for a cell without one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.train.base.printable import printable
from rumus.train.tables.feature_encoding import MISSING

# Python accepts more than a table means by a number: 1_000, infinity, digits of any script.
_PLAIN: Final = {"f": re.compile(r"[0-9+\-.eE ]*"), "i": re.compile(r"[0-9+\- ]*")}
_NOT_FINITE: Final = frozenset({"nan", "NaN", "inf", "Inf", "+inf", "-inf", "-Inf"})


def numbers_of(cells: Sequence[str], dtype: np.dtype[Any], missing: float | None) -> NDArray[Any]:
    """Return cells as numbers, rounded to the dtype.

    Raises ValueError if one is not a number. missing: the value of a missing cell; None raises.
    """
    if missing is not None:
        cells = [repr(missing) if cell.strip() in MISSING else cell for cell in cells]
    if not all(map(_is_spelled(dtype.kind, cells), cells)):
        raise ValueError("a cell that is not a number")
    if dtype.kind != "f":
        return np.array([int(cell) for cell in cells], dtype)  # NumPy raises if it does not fit
    values = np.fromiter(map(float, cells), np.float64, len(cells))
    with np.errstate(over="ignore"):
        found = values.astype(dtype)
    infinite = np.flatnonzero(np.isinf(found)).tolist()
    if any(cells[i].strip() not in _NOT_FINITE for i in infinite):
        raise ValueError("a number beyond the dtype's largest")
    return found


def _is_spelled(kind: str, cells: Sequence[str]) -> Any:
    """A test whether a cell may be a number; vectorized for the usual characters."""
    plain = _PLAIN["f" if kind == "f" else "i"]
    if plain.fullmatch("".join(cells)):
        return lambda cell: True
    special = _NOT_FINITE if kind == "f" else frozenset()
    return lambda cell: plain.fullmatch(cell) is not None or cell.strip() in special


def first_that_is_none(cells: Sequence[str], dtype: np.dtype[Any], missing: float | None) -> int:
    """Return the index of the first cell that is not a number of this dtype; there must be one.

    It bisects, since testing cell by cell takes a hundred times as long as all at once.
    """
    start, stop = 0, len(cells)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            numbers_of(cells[start:middle], dtype, missing)
        except (ValueError, OverflowError):
            stop = middle
        else:
            start = middle
    return start


# Patterns of cells that are not numbers, and advice for each.
_HINTS: Final = (
    (
        re.compile(r"(true|false|yes|no)", re.IGNORECASE),
        "booleans=[{name}] reads the column as truth values, 1 and 0",
    ),
    (
        re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?"),
        "thousands=',' reads commas as thousands separators, decimal=',' as decimal points",
    ),
    (
        re.compile(r"[+-]?\d*(\.\d{3})*,\d+"),
        "decimal=',' reads the comma as a decimal point, and thousands='.' points as thousands "
        "separators",
    ),
    (
        re.compile(r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?"),
        "dates=[{name}] reads the column as dates, as days since 1970",
    ),
    (
        re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}( .*)?"),
        "dates={{{name}: '%d.%m.%Y'}}, or the column's format, reads the column as dates, "
        "as days since 1970",
    ),
)  # fmt: skip


def advice(cell: str, name: str) -> str:
    """Return advice for a cell that is not a number."""
    cell = cell.strip()
    if cell in MISSING:
        return (
            "missing=0.0 or missing=float('nan') replaces it with that number, missing='mean' "
            "with the mean of its column"
        )
    for pattern, hint in _HINTS:
        if len(cell) < 100 and pattern.fullmatch(cell):
            return hint.format(name=repr(name))
    return (
        f"categories=[{printable(repr(name))}] reads the column as texts, with one feature for "
        f"each; target={printable(repr(name))}, target_dtype=str reads it as the target's class "
        "names; columns=[...] leaves it out"
    )

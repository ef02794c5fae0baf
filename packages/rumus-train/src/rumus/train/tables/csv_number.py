"""The number in a cell of a CSV file, and advice for a cell without one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.train.base.printable import printable
from rumus.train.tables.feature_encoding import MISSING
from rumus.train.tables.rounding import holding

DELIMITERS: Final = ";\t|, "  # that files have, in the order in which they are looked for
# Python accepts more than a table means by a number: 1_000, infinity, digits of any script.
_PLAIN: Final = {"f": re.compile(r"[0-9+\-.eE ]*"), "i": re.compile(r"[0-9+\- ]*")}
_NOT_FINITE: Final = frozenset({"nan", "NaN", "inf", "Inf", "+inf", "-inf", "-Inf"})


def numbers_of(cells: Sequence[str], dtype: np.dtype[Any], missing: float | None) -> NDArray[Any]:
    """Return cells as numbers, rounded to the dtype.

    Raises ValueError if one is not a number. missing: the value of a missing cell; None raises.
    """
    if missing is not None:
        is_whole = dtype.kind != "f" and float(missing).is_integer()
        filled = str(int(missing)) if is_whole else repr(float(missing))
        cells = [filled if cell.strip() in MISSING else cell for cell in cells]
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


# Patterns of cells that are not numbers, and advice for each; _KINDS are of features only.
_KINDS: Final = (
    (
        re.compile(r"(true|false|yes|no)", re.IGNORECASE),
        "booleans=[{name}] reads the column as truth values, 1 and 0",
    ),
    (
        re.compile(r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?"),
        "dates=[{name}] reads the column as dates, as days since 1970",
    ),
    (
        re.compile(r"\d{1,2}[-/.]\d{1,2}[-/.]\d{2}( .*)?"),
        "dates={{{name}: '%d.%m.19%y'}}, or the column's format with the century of its years, "
        "reads the column as dates, as days since 1970",
    ),
    (
        re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}( .*)?"),
        "dates={{{name}: '%d.%m.%Y'}}, or the column's format, reads the column as dates, "
        "as days since 1970",
    ),
)  # fmt: skip
_MARKS: Final = " _'\u00a0\u202f"  # of thousands
_SPELLINGS: Final = (
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
        re.compile(r"[+-]?\d{1,3}([ _'\u00a0\u202f]\d{3})+(\.\d*)?"),
        "thousands={mark} reads that mark as a thousands separator",
    ),
    (
        re.compile(r"[+-]?(inf(inity)?|nan)", re.IGNORECASE),
        "a floating dtype reads nan, inf and -inf: write it so",
    ),
    (
        re.compile(r"\(?[+\-\u2212\u2013]?[$€£¥]? ?\d[\d.,]* ?[%$€£¥+\-]?\)?"),
        "remove what is no number from the cells, or leave the column out with columns=[...]",
    ),
)  # fmt: skip


def advice(
    cell: str, name: str, dtype: np.dtype[Any], missing: float | None, *, is_target: bool
) -> str:
    """Return advice for a cell that is not a number of this dtype.

    missing: the value of a missing cell, if there is one.
    """
    given, cell, shown = cell, cell.strip(), printable(repr(name))
    if (delimiter := _delimiter(cell, name)) is not None:
        return f"delimiter={delimiter!r} reads it as several columns"
    if cell in MISSING:
        if is_target:
            return "missing_target='drop' skips such lines"
        if missing is not None:
            return f"nor is missing={missing}: {holding(missing, dtype)}"
        if dtype.kind != "f":
            return f"missing=0 replaces it with that number; {dtype} has no nan"
        return (
            "missing=0.0 or missing=float('nan') replaces it with that number, missing='mean' "
            "with the mean of its column"
        )
    if is_number(cell):
        if cell != given.strip(" \t"):
            return "remove the control characters or special spaces beside the number"
        return holding(float(cell), dtype)
    for pattern, hint in _SPELLINGS if is_target else _KINDS + _SPELLINGS:
        if len(cell) < 100 and pattern.fullmatch(cell):
            mark = next((repr(each) for each in cell if each in _MARKS), "")
            return hint.format(name=shown, mark=mark)
    if is_target:
        return "target_dtype=str reads the column as the names of classes"
    return (
        f"categories=[{shown}] reads the column as texts, with one feature for each; "
        f"target={shown}, target_dtype=str reads it as the target's class names; columns=[...] "
        "leaves it out"
    )


def _delimiter(cell: str, name: str) -> str | None:
    """The delimiter that a column name and its cell have as often, if there is one."""
    for each in DELIMITERS:
        is_one = each != " " or all(map(is_number, cell.split(each)))  # texts have spaces, too
        if is_one and name.count(each) == cell.count(each) > 0:
            return each
    return None


def is_number(cell: str) -> bool:
    """Whether a cell is a plain number, of whatever size."""
    try:
        float(cell)
    except ValueError:
        return False
    return _PLAIN["f"].fullmatch(cell) is not None

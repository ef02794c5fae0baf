"""Columns that merely name the rows of a table.

Those that pandas and R add by default are left out. A column of any other name was added on
purpose; if it only counts rows, a warning says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.printable import listed, printable

# What pandas and tibble make of a column without a name, each time that such a file is read and
# written again; and how data frames, merges, tibbles and databases of R call row names.
_NAMES: Final = re.compile(
    r"Unnamed: \d+(\.\d+)*|\.\.\.1|__index_level_\d+__|rownames?|row_names|[Rr]ow\.names"
)
# Others call their data so, too.
_COUNTS: Final = re.compile(
    r"X(\.\d+)?|V1|_c0|rn|\.\.\.\d+|(?i:#|level_\d+|index|idx|no\.?|nr\.?|obs\.?)|"
    r"(?i:(column|field)1|_?row|row[_ .]?(index|number|num|names?|no|nr))"
)
# What pandas makes of an index, that of a shuffled frame or of a part of one, too.
_OF_AN_INDEX: Final = re.compile(r"index|level_\d+")
_PART: Final = 10  # times the rows of a part, at most, has the whole
_IDENTIFIES: Final = re.compile(r"(?i:(.*[_ .-])?(id|uid|rowid))|.*[a-z]I[dD]")


def row_names(
    names: Sequence[str], targets: Collection[str], known: Collection[str] = ()
) -> list[str]:
    """Return the columns left out as row names; at least one column remains.

    known: columns of which the file itself says so.
    """
    found = [
        name
        for place, name in enumerate(names)
        if name not in targets
        and (_NAMES.fullmatch(name) or name in known or (not name and place == 0))
    ]
    return found if len(found) < len(names) else []


def warn_of_row_names(shown: str, names: Sequence[str]) -> None:
    """Warn if columns are left out."""
    if names:
        many = len(names) > 1
        told = listed(names)
        warn_user(
            f"{shown}: column{'s' if many else ''} {told} {'are' if many else 'is'} left out as "
            f"{'those' if many else 'that'} of row names; give columns=[...] to choose",
        )


def warn_of_counting(shown: str, names: Sequence[str], numbers: NDArray[Any]) -> None:
    """Warn about features that are named like row numbers and number rows.

    numbers: (rows, columns).
    """
    found = [
        name
        for name, column in zip(names, numbers.T, strict=True)
        if (_COUNTS.fullmatch(name) and _is_counting(column))
        or (_OF_AN_INDEX.fullmatch(name) and _is_of_some_rows(column))
        or (_IDENTIFIES.fullmatch(name) and _is_identifying(column))
    ]
    if found:
        told = listed(found)
        warn_user(
            f"{shown}: {told} has a different number in each row and is read as a feature; give "
            "columns=[...] to leave it out, or to confirm it",
        )


def warn_of_new(shown: str, targets: Iterable[str], names: Iterable[str]) -> None:
    """Warn of a table that lacks the targets of the first, but has columns that the first has not.

    Which may be the targets by another name.

    names: of the new columns.
    """
    of_rows = (_NAMES, _COUNTS, _OF_AN_INDEX, _IDENTIFIES)
    new = [name for name in names if name and not any(each.fullmatch(name) for each in of_rows)]
    if new and (told := ", ".join(map(repr, targets))):
        warn_user(
            f"{shown} has no target {printable(told)}, so the samples "
            f"have none; should {printable(repr(new[0]))} be it?"
        )


def _is_counting(column: NDArray[Any]) -> bool:
    return len(column) > 1 and bool((np.diff(column.astype(np.float64)) == 1).all())


def _is_of_some_rows(column: NDArray[Any]) -> bool:
    is_near = bool(((column >= 0) & (column < _PART * len(column))).all())
    return is_near and _is_identifying(column)


def _is_identifying(column: NDArray[Any]) -> bool:
    values = column.astype(np.float64)
    is_whole = bool((np.isfinite(values) & (values == np.trunc(values))).all())
    return len(values) > 1 and is_whole and len(np.unique(values)) == len(values)

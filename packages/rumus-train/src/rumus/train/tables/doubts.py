"""What a table may mean otherwise: told once, where nothing in it tells for sure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.printable import listed, printable

# What others call the number of the part of a division that a sample belongs to.
_OF_PART: Final = re.compile(
    r"(?i:(cv|k)?[_ .-]?folds?([_ .-]?(id|no|num|number|idx|index))?"
    r"|(data[_ .-]?)?(split|subset|partition)s?|is[_ .-]?(train|test|val|valid|validation|holdout))"
)
_PARTS: Final = 100  # a division has no more
_OF_WEIGHT: Final = re.compile(
    r"(?i:(sample|instance|case|class|obs|observation|row)[_ .-]?(weights?|wts?))"
)
# Of bodies, too: those of samples are about 1 in the mean, as programs make them.
_MAY_WEIGH: Final = re.compile(r"(?i:weights?|wts?|w)")
_NEAR: Final = 1e-3
# What stands for a number that was not measured: as many nines as are out of reach, and the limits
# of dtypes, which pictures of the ground have.
_NINES: Final = [float(10**digits - 1) for digits in range(2, 10)]
_LIMITS: Final = [
    *(float(np.iinfo(kind).min) for kind in (np.int16, np.int32, np.int64)),
    *(float(np.iinfo(kind).max) for kind in (np.int32, np.int64)),
    *(sign * float(np.finfo(kind).max) for kind in (np.float32, np.float64) for sign in (1, -1)),
]
_SENTINELS: Final = (*_NINES, *(-number for number in _NINES), *_LIMITS)
# Days since 1970 of the first and last dates of Python, of spreadsheets, and of 1900 and 1970.
_DATES: Final = (-719_162.0, 2_932_896.0, -25_569.0, -25_567.0, 0.0)
_OFTEN: Final = 10  # lines, at least, that tell how often texts occur


def warn_of_divisions(shown: str, names: Sequence[str], numbers: NDArray[Any]) -> None:
    """Warn of features that are named like parts of a division, or weights of samples.

    names, numbers: of the numeric columns, (rows, columns).
    """
    found = [
        name
        for name, column in zip(names, numbers.T, strict=True)
        if (_OF_PART.fullmatch(name) and _may_be_parts(column))
        or (_OF_WEIGHT.fullmatch(name) and (column >= 0).all())
        or (_MAY_WEIGH.fullmatch(name) and _is_near_1(column))
    ]
    if found:
        told = listed(found)
        warn_user(
            f"{shown}: {told} {'are' if len(found) > 1 else 'is'} named like what divides or "
            "weighs samples, and read as a feature; give columns=[...] to leave it out, or to "
            "confirm it"
        )


def _may_be_parts(column: NDArray[Any]) -> bool:
    parts = np.unique(column[:: max(1, len(column) // 10_000)])
    return len(parts) <= _PARTS and bool((parts == np.trunc(parts)).all())


def _is_near_1(column: NDArray[Any]) -> bool:
    """Whether numbers are 1 in the mean; not all of them, which weigh nothing."""
    values = column.astype(np.float64)
    if not np.isfinite(values).all():
        return False
    is_one = bool(len(values)) and abs(float(values.mean()) - 1) < _NEAR
    return is_one and bool((values >= 0).all()) and bool((values != values[0]).any())


def warn_of_sentinels(
    shown: str,
    names: Sequence[str],
    numbers: NDArray[Any],
    missing: float | str | None,
    advice: str,
    dates: Collection[str] = (),
) -> None:
    """Warn of a column with a number that stands for missing ones, such as -999.

    It is the smallest or largest of its column, and further from the others than they are from each
    other.

    names, numbers: of the numeric columns, (rows, columns).
    missing: the number that missing ones have become, if they have one.
    advice: how to say what it is, with {0} for it.
    dates: the columns of days, of which such a number is a date.
    """
    if not len(numbers) or not names:
        return
    finite = np.where(np.isfinite(numbers), numbers, numbers.dtype.type(0))
    known = _known(numbers.dtype, missing)
    days = [place for place, name in enumerate(names) if name in dates]
    for extreme in (finite.min(0), finite.max(0)):
        may_be = np.isin(extreme, known)
        may_be[days] = np.isin(extreme[days].astype(np.float64), _DATES)
        for place in np.flatnonzero(may_be).tolist():
            if _is_far(numbers[:, place], extreme[place]):
                value = float(extreme[place])
                told = f"{value:.0f}" if abs(value) < 1e15 else f"{value:.7g}"
                if place in days:
                    told = (date(1970, 1, 1) + timedelta(value)).isoformat()
                warn_user(
                    f"{shown}: column {printable(repr(names[place]))} has {told}, far from all "
                    f"its other numbers, and is read like them; if it stands for a missing one, "
                    f"{advice.format(told)}"
                )
                return


def _known(dtype: np.dtype[Any], missing: float | str | None) -> NDArray[Any]:
    """The numbers of a dtype that may stand for missing ones, except for one that was given."""
    if dtype.kind == "f":
        most = float(np.finfo(dtype).max)
        found = np.array([each for each in _SENTINELS if abs(each) <= most], dtype)
    else:
        limits = np.iinfo(dtype)
        found = np.array([n for n in map(int, _SENTINELS) if limits.min <= n <= limits.max], dtype)
    return found if missing is None or isinstance(missing, str) else found[found != missing]


def _is_far(column: NDArray[Any], value: Any) -> bool:
    """Whether a number is further from others than they are from each other."""
    values = column[np.isfinite(column)].astype(np.float64)
    others = values[values != value]
    if not others.size:
        return False
    low, high = float(others.min()), float(others.max())
    gap = max(low - float(value), float(value) - high)
    return low < high and gap > high - low


def warn_of_second_header(shown: str, line: int, texts: Mapping[str, Sequence[str]]) -> None:
    """Warn of a first line of data whose texts occur in no other line, unlike all others.

    It may hold units, or types, of the columns.

    line: its number. texts: those of each column of texts, line by line.
    """
    first = [found[0] for found in texts.values() if found]
    if len(texts) < 2 or len(first) < 2 or any(len(found) <= _OFTEN for found in texts.values()):
        return
    for found in texts.values():
        counts = Counter(found)
        if counts[found[0]] > 1 or any(n < 2 for text, n in counts.items() if text != found[0]):
            return
    told = ", ".join(printable(repr(text)) for text in first[:3])
    warn_user(
        f"{shown}:{line}: {told} occur in no other line, while all other texts of their columns "
        "do: remove the line if it holds units or types of the columns"
    )


def warn_of_summary(shown: str, where: str, numbers: NDArray[Any]) -> None:
    """Warn of a last row that is the sum or the mean of all others, as spreadsheets have.

    where: the row is. numbers: of the numeric columns, (rows, columns).
    """
    if len(numbers) <= _OFTEN or not numbers.shape[1] or not np.isfinite(numbers[-1]).all():
        return
    is_sum, is_mean = (np.ones(numbers.shape[1], np.bool_) for _ in range(2))
    for columns in (slice(0, 1), slice(1, None)):  # the first one tells most tables apart
        values = numbers[:-1, columns].astype(np.float64)
        with np.errstate(invalid="ignore"):  # of infinities
            sums = values.sum(0)
        for found, summary in ((is_sum, sums), (is_mean, sums / len(values))):
            found[columns] = np.isclose(summary, numbers[-1, columns], rtol=1e-5, atol=0)
        if not is_sum.all() and not is_mean.all():
            return
    others, last = np.abs(numbers[:-1]), np.abs(numbers[-1])
    if is_sum.all():
        is_of_many = (np.count_nonzero(others, axis=0) >= _OFTEN) & (others.max(0) <= last / 2)
    else:  # which a row of numbers has by accident, too, but not one that no other row has
        is_of_many = (others != last).all(0)
    if is_of_many.any():
        kind = "sum" if is_sum.all() else "mean"
        warn_user(
            f"{shown}{where}: the last row is the {kind} of all others in each column of numbers: "
            "remove it if it is no sample"
        )


def warn_of_one_target(shown: str, targets: NDArray[Any]) -> None:
    """Warn of numeric targets that are all equal, as a part of a sorted table has them."""
    if len(targets) > _OFTEN and (targets == targets[0]).all():
        warn_user(
            f"{shown}: all {len(targets):,} rows have the target {targets[0]}, as of a part of a "
            "table that is sorted: nothing can be learned from it"
        )


def warn_of_one_class(shown: str, classes: Sequence[str], rows: int) -> None:
    """Warn of classes of which the table has one only, as a part of a sorted one.

    classes: that were found in so many rows.
    """
    if len(classes) == 1 and rows > _OFTEN:
        warn_user(
            f"{shown}: all {rows:,} rows are of the class {printable(repr(classes[0]))}, as of a "
            "part of a table that is sorted; give classes=[...] of the whole data set"
        )

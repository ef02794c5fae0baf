"""Features that are the target itself, in other words or other units: the model sees its answer."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.expression.user_warning import warn_user
from rumus.train.base.printable import printable
from rumus.train.tables.feature_encoding import FeatureEncoding

_SURE: Final = 10  # rows in which two columns are not alike by accident
_LOOK: Final = 1000  # rows at a time
_FEW: Final = 8  # targets beside each of which all columns are looked at
_ROUNDED: Final = 1e-3  # of the number that stands for a column
_WRITTEN: Final = 1e-6  # of the range of a column that its digits tell, at least


def warn_of_answers(
    shown: str,
    encoding: FeatureEncoding,
    numbers: NDArray[Any],
    features: NDArray[Any],
    targets: NDArray[Any],
    are_classes: bool,
) -> None:
    """Warn of a column from which a target follows, and which follows from the target.

    As a number that is the target, maybe in another unit or negated, does, and as codes or names of
    its classes do.

    numbers: of the numeric columns, as read. features: of all columns.
    are_classes: whether the targets are numbers of classes, which measure nothing.
    """
    if len(features) < _SURE:
        return
    columns = targets.reshape(len(targets), -1).T
    places = None if len(columns) <= _FEW else _near(numbers, columns)
    names, every = encoding.numbers, np.arange(numbers.shape[1])
    for number, target in enumerate(columns):
        column, how = "", ""
        if not are_classes:
            some = every if places is None else places[number]
            place, how = _linear(numbers[:, some], target)
            column = "" if place is None else names[int(some[place])]
        if not column and places is None:
            column = _coded(encoding, features, target)
            kind = "text" if column in encoding.categories else "number"
            how = f"is another {kind} for each {'class' if are_classes else 'target'}"
        if column:
            warn_user(
                f"{shown}: the feature {printable(repr(column))} {how}, so the model sees its "
                "answer; give columns=[...] to leave it out, or to confirm it"
            )
            return


def _near(numbers: NDArray[Any], targets: NDArray[Any]) -> list[NDArray[np.intp]]:
    """The columns that may be a factor times each target and an offset, by their first rows.

    Found by sorting: each target beside each column would take quadratic time.
    """
    ours, theirs = _canonical(numbers[:_SURE]), _canonical(targets[:, :_SURE].T)
    order = np.argsort(ours)  # NaN last
    near = _ROUNDED * (1 + np.abs(theirs))
    start = np.searchsorted(ours[order], theirs - near)
    stop = np.searchsorted(ours[order], theirs + near, side="right")
    return [order[a:b] for a, b in zip(start, stop, strict=True)]


def _canonical(rows: NDArray[Any]) -> NDArray[np.float64]:
    """One number for each column that no factor and no offset changes; NaN for a constant one."""
    steps = rows.astype(np.float64) - rows[0]
    first = steps[(steps != 0).argmax(0), np.arange(steps.shape[1])]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = np.sqrt(np.arange(2.0, 2 + len(steps))) @ (steps / first)
    return found


def _linear(numbers: NDArray[Any], target: NDArray[Any]) -> tuple[int | None, str]:
    """The place of the first column that is a factor times the target and an offset, and which.

    Where it is not missing.
    """
    low, high = int(target.argmin()), int(target.argmax())
    if not target[low] < target[high] or not numbers.shape[1]:
        return None, ""
    first, last = numbers[low].astype(np.float64), numbers[high].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        factors = (last - first) / (float(target[high]) - float(target[low]))
        held = np.finfo(numbers.dtype).eps if numbers.dtype.kind == "f" else 0.0
        near = np.abs(last - first) * _WRITTEN + np.maximum(np.abs(first), np.abs(last)) * held
    alike = np.flatnonzero(np.isfinite(factors) & (factors != 0))
    known = np.zeros(len(first), np.intp)  # rows of each column
    for start in range(0, len(numbers), _LOOK):
        if not alike.size:
            return None, ""
        rows = slice(start, start + _LOOK)
        steps = target[rows, None].astype(np.float64) - float(target[low])
        expected = first[alike] + factors[alike] * steps
        values = numbers[rows][:, alike]
        is_missing = np.isnan(values)
        known[alike] += np.count_nonzero(~is_missing, axis=0)
        alike = alike[(is_missing | (np.abs(values - expected) <= near[alike])).all(0)]
    alike = alike[known[alike] >= _SURE]
    if not alike.size:
        return None, ""
    place = int(alike[0])
    is_equal = bool(factors[place] == 1 and first[place] == target[low])
    told = "is equal to the target" if is_equal else "is a factor times the target and an offset"
    is_whole = known[place] == len(numbers)
    return place, f"{told} in all rows{'' if is_whole else ' that have it'}"


def _coded(encoding: FeatureEncoding, features: NDArray[Any], target: NDArray[Any]) -> str:
    """The first column whose features are the same for all rows of a class, and for no others."""
    few = target[:_LOOK]
    if len(np.unique(few)) > len(few) // 2:
        return ""  # the numbers of a regression, most of which occur once
    classes, first = np.unique(target, return_index=True)
    if not 1 < len(classes) <= len(target) // 2:
        return ""
    places = np.searchsorted(classes, target)
    codes = features[first]
    same = np.arange(features.shape[1])
    for start in range(0, len(features), _LOOK):
        if not same.size:
            return ""
        rows = slice(start, start + _LOOK)
        same = same[(features[rows][:, same] == codes[:, same][places[rows]]).all(0)]
    is_same = np.zeros(features.shape[1], np.bool_)
    is_same[same] = True
    stop = 0
    for column in encoding.columns:
        start, stop = stop, stop + len(encoding.categories.get(column, ("",)))
        if is_same[start:stop].all():
            different = np.unique(codes[:, start:stop], axis=0)
            if len(different) == len(classes):
                return column
    return ""

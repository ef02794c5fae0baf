"""The labels of rows that pandas keeps, by which it would join what is given together."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np

from rumus.train.base.printable import printable


def check_row_order(named: Iterable[tuple[str, object]]) -> None:
    """Raise ValueError for two objects of pandas with the same row labels in another order.

    Or with labels of other rows. Rows are paired by position here. Labels of another kind, and
    those that count from 0, as of an index that was reset, say nothing about which rows belong
    together.

    named: each with its name for messages.
    """
    indexes = ((name, labels_of(value)) for name, value in named)
    labels = {id(index): (name, index) for name, index in indexes if index is not None}
    for (first, one), (second, other) in combinations(labels.values(), 2):
        refuse_another_order(first, one, second, other)


def labels_of(value: object) -> Any | None:
    """Return the index of an object of pandas, None for anything else.

    >>> labels_of([1, 2]) is None
    True
    """
    index = getattr(value, "index", None)
    return index if hasattr(index, "factorize") else None


def refuse_another_order(first: str, one: Any | None, second: str, other: Any | None) -> None:
    """Raise ValueError for two indexes with the same labels in another order.

    first, second: what has them, for messages. one, other: None if there are none. The first may
        be an array of the positions of rows in a file.
    """
    if one is None or other is None:
        return
    if isinstance(one, np.ndarray):
        is_of_all = other.is_unique and len(one) == len(other) and other.isin(one).all()
        if is_of_all and not np.array_equal(one, other):
            raise ValueError(
                f"{second} has the row labels of {first} in another order than its file, but they "
                "are paired row by row: reorder it by its labels, as with sort_index(), or give "
                "its to_numpy() if it has the order of the file"
            )
    elif _is_reordered(one, other):
        raise ValueError(
            f"{first} and {second} have the same row labels in another order, but are paired "
            "row by row: reorder the second as second.loc[first.index], or give to_numpy() of "
            "both if their rows belong together as they are"
        )
    elif _are_of_others(one, other):
        raise ValueError(
            f"{first} and {second} have labels of different rows, such as "
            f"{printable(repr(_other_label(one, other)))}, but are paired row by row: take the "
            "rows of both from one frame, or give to_numpy() of both if they belong together"
        )


def refuse_labels(given: Any, labels: Any | None) -> None:
    """Raise ValueError for an index of pandas that has labels of rows and not their positions.

    labels: of the rows. If they count the rows from 0, they are positions, too.
    """
    if labels is None or not len(given):
        return
    if given.isin(labels).all() and not np.array_equal(labels, np.arange(len(labels))):
        raise ValueError(
            "indices are row labels of pandas, but count rows from 0: give "
            "frame.index.get_indexer(indices), or indices.to_numpy() if they are positions"
        )


def _is_reordered(one: Any, other: Any) -> bool:
    """Whether two indexes have the same labels, each as often, in another order."""
    if len(one) != len(other) or one.equals(other):
        return False
    numbers, _ = one.append(other).factorize()
    ours, theirs = numbers[: len(one)], numbers[len(one) :]
    is_same = np.array_equal(np.sort(ours), np.sort(theirs))
    return is_same and not np.array_equal(ours, theirs)


def _are_of_others(one: Any, other: Any) -> bool:
    """Whether two indexes of one kind name different rows, and neither just counts its own."""
    if one.equals(other) or one.inferred_type != other.inferred_type or one.nlevels > 1:
        return False
    counted = np.arange(len(one))
    return len(one) == len(other) and not any(
        each.inferred_type == "integer" and np.array_equal(each, counted) for each in (one, other)
    )


def _other_label(one: Any, other: Any) -> Any:
    """The first label that one of two indexes has where the other one has another."""
    return one[int(np.flatnonzero(np.asarray(one != other))[0])]

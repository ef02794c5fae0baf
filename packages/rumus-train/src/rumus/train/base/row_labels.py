"""The labels of rows that pandas keeps, by which it would join what is given together."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np


def check_row_order(named: Iterable[tuple[str, object]]) -> None:
    """Raise ValueError for two objects of pandas with the same row labels in another order.

    Rows are paired by position here. Other labels, as of an index that was reset, say nothing about
    which rows belong together.

    named: each with its name for messages.
    """
    indexes = ((name, getattr(value, "index", None)) for name, value in named)
    labels = {id(index): (name, index) for name, index in indexes if hasattr(index, "factorize")}
    for (first, one), (second, other) in combinations(labels.values(), 2):
        if _is_reordered(one, other):
            raise ValueError(
                f"{first} and {second} have the same row labels in another order, but are paired "
                "row by row: reorder the second as second.loc[first.index], or give to_numpy() of "
                "both if their rows belong together as they are"
            )


def _is_reordered(one: Any, other: Any) -> bool:
    """Whether two indexes have the same labels, each as often, in another order."""
    if len(one) != len(other) or one.equals(other):
        return False
    numbers, _ = one.append(other).factorize()
    ours, theirs = numbers[: len(one)], numbers[len(one) :]
    is_same = np.array_equal(np.sort(ours), np.sort(theirs))
    return is_same and not np.array_equal(ours, theirs)

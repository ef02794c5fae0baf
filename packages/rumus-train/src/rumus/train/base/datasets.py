"""`datasets_of`: the dataset that a loader reads, and those that it is a subset of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def datasets_of(loader: object) -> Iterator[Any]:
    """Yield a loader's dataset, then the one that it is a subset of, and so on; none of a list.

    >>> [*datasets_of([1, 2, 3])]
    []
    """
    dataset = getattr(loader, "dataset", None)
    while dataset is not None:
        yield dataset
        dataset = getattr(dataset, "dataset", None)

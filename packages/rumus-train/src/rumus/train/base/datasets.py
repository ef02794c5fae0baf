"""`datasets_of`: the dataset that a loader reads, and those that it is a subset of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

_MOST: Final = 1000


def datasets_of(loader: object) -> Iterator[Any]:
    """Yield a loader's dataset, then the one that it is a subset of, and so on; none of a list.

    Each is yielded once, and at most a thousand: a dataset may hold itself.

    >>> [*datasets_of([1, 2, 3])]
    []
    """
    dataset, seen = getattr(loader, "dataset", None), set[int]()
    while dataset is not None and id(dataset) not in seen and len(seen) < _MOST:
        yield dataset
        seen.add(id(dataset))
        dataset = getattr(dataset, "dataset", None)

"""`random_split`: splits a dataset into random parts, such as training and validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from numbers import Integral
from typing import Any, Final

import numpy as np

from rumus.tensor.expression.declared_type import is_ordered, shown
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.whole_number import whole_number
from rumus.train.base.random_stream import Purpose, permutation
from rumus.train.data.dataset import Dataset, Subset, check_dataset

TOLERANCE: Final = 1e-6  # for the sum of fractions: three times 1/3 is not 1


def random_split(dataset: Dataset, parts: Sequence[float], *, seed: int = 0) -> list[Subset]:
    """Return disjoint random parts that together cover the dataset.

    dataset: the dataset to split.
    parts: integer lengths whose sum is the dataset's length, or float fractions whose sum is 1,
        rounded to whole samples. The parts depend only on the seed, the length and `parts`.
    seed: the seed of the order.

    Raises ValueError for other sums, and for a part without samples; TypeError for parts that are
    no list of numbers.

    >>> from rumus.train import ArrayDataset, random_split
    >>> train, test = random_split(ArrayDataset(range(10)), [0.8, 0.2], seed=1)
    >>> len(train), len(test), sorted({*train.indices.tolist(), *test.indices.tolist()})
    (8, 2, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    given: Any = parts
    if isinstance(given, (str, bytes, Mapping)) or not is_ordered(given):
        raise TypeError(
            f"random_split: parts must be a list of fractions or lengths, not {shown(given)}: "
            "random_split(dataset, [0.8, 0.2])"
        )
    parts = [real_number("random_split: a part", part) for part in given]
    check_dataset("random_split", dataset)
    if whole_number("random_split: seed", seed) < 0:
        raise ValueError(f"random_split: seed must be at least 0, not {seed}")
    total = len(dataset)
    bounds = _bounds(list(parts), total)
    empty = [i for i, (start, stop) in enumerate(pairwise(bounds)) if start >= stop]
    if empty:
        raise ValueError(f"part {empty[0]} of {list(parts)} gets none of the {total} samples")
    order = permutation(seed, Purpose.SPLIT, total)
    return [Subset(dataset, part) for part in np.split(order, bounds[1:-1])]


def _bounds(parts: list[float], total: int) -> list[int]:
    """The starts and ends of the parts."""
    if not parts:
        raise ValueError("random_split needs at least one part")
    if all(isinstance(part, Integral) for part in parts):
        lengths = [int(part) for part in parts]
        if min(lengths) < 0 or sum(lengths) != total:
            raise ValueError(f"lengths {lengths} do not add up to the {total} samples")
        return [0, *np.cumsum(lengths).tolist()]
    if not all(0 <= part <= 1 for part in parts) or abs(math.fsum(parts) - 1) > TOLERANCE:
        raise ValueError(
            f"fractions {parts} must be in [0, 1] and add up to 1; give lengths as integers"
        )
    sums = accumulate(map(Fraction, parts[:-1]))  # exact, as math.fsum, which would add all anew
    return [0, *(math.floor(float(each) * total + 0.5) for each in sums), total]

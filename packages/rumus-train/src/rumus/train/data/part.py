"""`Part`: the rows of a global batch that one rank computes.

A batch is split into shards, whose number is fixed for the run. Each rank has consecutive ones, so
that a shard has the same rows for any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from rumus.train.base.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Part:
    """A rank's shards of a global batch.

    samples: of the global batch. start: its first row there. first: the index of its first shard.
        rows: (start, stop) of each of its shards among its own rows; shards may be empty if the
        batch has fewer samples than shards.

    >>> Part.of(samples=10, shards=4, rank=1, size=2)
    Part(samples=10, start=5, first=2, rows=((0, 2), (2, 5)))
    """

    samples: int
    start: int
    first: int
    rows: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, samples: int, shards: int, rank: int, size: int) -> Self:
        """Return the part of `rank` out of `size` of a batch split into `shards`."""
        count = shards // size
        first = rank * count
        bounds = [samples * shard // shards for shard in range(first, first + count + 1)]
        start = bounds[0]
        rows = tuple((a - start, b - start) for a, b in pairwise(bounds))
        return cls(samples, start, first, rows)

    @property
    def stop(self) -> int:
        """The end of its rows in the global batch."""
        return self.start + self.rows[-1][1]


def check_shards(shards: int, batch_size: int, ranks: Ranks) -> int:
    """Return the number of shards, which must split evenly among the ranks, in a binary tree."""
    each, rest = divmod(shards, ranks.size)
    if shards < 1 or rest or (ranks.size > 1 and each & (each - 1)):
        raise ValueError(
            f"shards={shards} cannot be distributed to {ranks.size} ranks: each must get the same "
            "number, and that must be a power of two; shards=8 works for 1, 2, 4 and 8 ranks"
        )
    if batch_size < shards:
        raise ValueError(
            f"batch_size={batch_size} is smaller than shards={shards}: each shard needs at least "
            "one sample of each batch; batch_size counts all ranks together"
        )
    return shards

"""`Part`: the rows of a global batch that one rank computes.

A batch is cut into shards, whose number belongs to the run. Each rank has some that follow each
other, so that a shard has the same rows however many ranks there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from rumus.train.base.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Part:
    """The shards of a global batch that a rank has.

    samples: of the global batch. start: where its rows begin in that. first: the number of its
    first shard. rows: (start, stop) of each of its shards among its own rows; a shard may be empty
    where the batch is smaller than the number of shards.

    >>> Part.of(samples=10, shards=4, rank=1, size=2)
    Part(samples=10, start=5, first=2, rows=((0, 2), (2, 5)))
    """

    samples: int
    start: int
    first: int
    rows: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, samples: int, shards: int, rank: int, size: int) -> Self:
        """Return what `rank` of `size` has of a batch that is cut into `shards`."""
        count = shards // size
        first = rank * count
        bounds = [samples * shard // shards for shard in range(first, first + count + 1)]
        start = bounds[0]
        rows = tuple((a - start, b - start) for a, b in pairwise(bounds))
        return cls(samples, start, first, rows)

    @property
    def stop(self) -> int:
        """Where its rows end in the global batch."""
        return self.start + self.rows[-1][1]


def check_shards(shards: int, batch_size: int, ranks: Ranks) -> int:
    """Return a number of shards that can be dealt to the ranks, in a binary tree. ValueError."""
    each, rest = divmod(shards, ranks.size)
    if shards < 1 or rest or (ranks.size > 1 and each & (each - 1)):
        raise ValueError(
            f"shards={shards} cannot be dealt to {ranks.size} ranks: each must get the same "
            "number of them, and that must be a power of two; shards=8 suits 1, 2, 4 and 8 ranks"
        )
    if batch_size < shards:
        raise ValueError(
            f"batch_size={batch_size} is smaller than shards={shards}: a shard has at least one "
            "sample of each batch; batch_size is that of all ranks together"
        )
    return shards

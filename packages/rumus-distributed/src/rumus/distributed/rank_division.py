"""`RankDivision`: optimizer state divided among the ranks (ZeRO-1)."""

from __future__ import annotations

from typing import Any

from rumus.distributed.link import Link, bounds
from rumus.optim import FusedOptimizer, Optimizer
from rumus.tensor import Backend
from rumus.tensor.memory.backend import Array

_LEAST = 64  # elements that a rank without a part steps as well, to the same bits as their owner


class RankDivision:
    """The parts of flat memory by `bounds`; see `rumus.optim.engine.division.Division`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def part(self, size: int) -> slice:
        """Return the bounds of this rank's part of `size` elements."""
        start, stop = bounds(size, self._link.size)[self._link.rank :][:2]
        return slice(start, stop) if stop > start else slice(0, min(_LEAST, size))

    def collect(self, backend: Backend, whole: Array) -> None:
        """Write the other ranks' parts of a flat array into it."""
        self._link.collect(backend, whole)

    def put_together(self, optimizer: FusedOptimizer[Any]) -> None:
        """Give every rank the parameters stepped by the others."""
        for segment in optimizer.segments:
            self.collect(segment.arena.backend, segment.arena.values)


def divided(optimizer: Optimizer[Any], link: Link) -> tuple[FusedOptimizer[Any], RankDivision]:
    """Let each rank keep its part of the state. Raises TypeError if that is impossible."""
    if not isinstance(optimizer, FusedOptimizer):
        raise TypeError(
            f"zero=True: {optimizer} cannot be divided; use a rule-based optimizer such as AdamW"
        )
    division = RankDivision(link)
    try:
        optimizer.divide(division)
    except TypeError as error:
        raise TypeError(f"zero=True: {error}") from None
    return optimizer, division

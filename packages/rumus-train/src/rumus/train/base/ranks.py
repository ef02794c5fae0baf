"""`Ranks`: the processes that train together, as seen by data loading."""

from __future__ import annotations

from typing import Protocol


class Ranks(Protocol):
    """Processes that run the same program, numbered from 0; `rumus.distributed.ranks()` makes them.

    rank: the number of this one. size: the number of processes.
    """

    @property
    def rank(self) -> int:
        """The number of this process."""
        ...

    @property
    def size(self) -> int:
        """The number of processes."""
        ...

"""The memory plan of a replayed step: one block, whose parts are reused over time.

Once a step has run, its allocations and their lifetimes are known. So each array gets a place in
advance, and arrays that never live at the same time share memory.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ALIGNMENT: Final = 64  # bytes: a cache line


@dataclass(slots=True)
class Lifetime:
    """A number of bytes needed from call `birth` on, until before call `death`."""

    size: int
    birth: int
    death: int


def planned(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Return the offset of each, and the total number of bytes.

    In order of birth, each gets the smallest hole that it fits into, the lowest if several are
    equal.

    >>> planned([Lifetime(64, 0, 1), Lifetime(100, 0, 2), Lifetime(64, 1, 2)])
    ([0, 64, 0], 192)
    """
    holes, starts, end = _Holes(), [0] * len(lifetimes), 0
    ending: list[tuple[int, int]] = []  # (death, number) of the live ones
    for number in sorted(range(len(lifetimes)), key=lambda n: (lifetimes[n].birth, n)):
        life = lifetimes[number]
        while ending and ending[0][0] <= life.birth:
            _, gone = ending.pop(0)
            holes.give(starts[gone], _padded(lifetimes[gone].size))
        needed = _padded(life.size)
        found = holes.take(needed)
        if found is None:
            found, end = holes.extend(end, needed)
        starts[number] = found
        insort(ending, (life.death, number))
    return starts, end


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class _Holes:
    """Free parts, none of them adjacent."""

    def __init__(self) -> None:
        self._by_size: list[tuple[int, int]] = []  # (size, start)
        self._starts: dict[int, int] = {}  # start -> size
        self._ends: dict[int, int] = {}  # the byte after -> start

    def take(self, size: int) -> int | None:
        """Take memory from a large enough hole and return its start; None if there is none."""
        at = bisect_left(self._by_size, (size, 0))
        if at == len(self._by_size):
            return None
        found, start = self._by_size[at]
        self._remove(start)
        if found > size:
            self._add(start + size, found - size)
        return start

    def extend(self, end: int, size: int) -> tuple[int, int]:
        """Extend the memory, using a hole at its end; return the start and the new end."""
        start = self._ends.get(end)
        if start is None:
            return end, end + size
        self._remove(start)
        return start, start + size

    def give(self, start: int, size: int) -> None:
        """Free a part, and merge it with its neighbors."""
        if start in self._ends:
            before = self._ends[start]
            size += self._starts[before]
            self._remove(before)
            start = before
        if start + size in self._starts:
            behind = start + size
            size += self._starts[behind]
            self._remove(behind)
        if size:
            self._add(start, size)

    def _add(self, start: int, size: int) -> None:
        self._starts[start] = size
        self._ends[start + size] = start
        insort(self._by_size, (size, start))

    def _remove(self, start: int) -> None:
        size = self._starts.pop(start)
        del self._ends[start + size]
        self._by_size.pop(bisect_left(self._by_size, (size, start)))

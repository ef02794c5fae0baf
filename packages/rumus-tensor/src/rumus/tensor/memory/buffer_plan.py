"""Where the arrays of a repeated step lie: one block of memory, its parts used one after another.

What a step allocates and for how long is known once it has run. So each array gets a place in
advance, and arrays that are never there at the same time share it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ALIGNMENT: Final = 64  # bytes: a line of the cache


@dataclass(slots=True)
class Lifetime:
    """Bytes that are needed from the call number `birth` on, and before that of `death`."""

    size: int
    birth: int
    death: int


def planned(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Return the first byte of each, and how many there are in all.

    In the order of their births; each gets the smallest hole that it fits into, and of several
    equal ones the lowest.

    >>> planned([Lifetime(64, 0, 1), Lifetime(100, 0, 2), Lifetime(64, 1, 2)])
    ([0, 64, 0], 192)
    """
    holes, starts, end = _Holes(), [0] * len(lifetimes), 0
    ending: list[tuple[int, int]] = []  # (death, number) of those that are there
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
    """Free parts, none of them beside another."""

    def __init__(self) -> None:
        self._by_size: list[tuple[int, int]] = []  # (size, start)
        self._starts: dict[int, int] = {}  # start -> size
        self._ends: dict[int, int] = {}  # the byte behind -> start

    def take(self, size: int) -> int | None:
        """Return the start of a hole that is large enough, now smaller; None if there is none."""
        at = bisect_left(self._by_size, (size, 0))
        if at == len(self._by_size):
            return None
        found, start = self._by_size[at]
        self._remove(start)
        if found > size:
            self._add(start + size, found - size)
        return start

    def extend(self, end: int, size: int) -> tuple[int, int]:
        """Return the start of new memory at the end, with the hole before it, and the new end."""
        start = self._ends.get(end)
        if start is None:
            return end, end + size
        self._remove(start)
        return start, start + size

    def give(self, start: int, size: int) -> None:
        """Take a part back, and join it with its neighbours."""
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

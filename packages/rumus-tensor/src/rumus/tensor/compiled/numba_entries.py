"""Lists of compiled functions that run one after the other without Python between them.

An entry is a function of three integers: `place`, from where on its own numbers lie, and what it
goes over, start..stop. A captured step has some thirty of them, of a few microseconds each. To call
one from Python takes about one, and to share it with a thread that Python has to tell takes ten. So
a list of them runs in one compiled loop, which shares the larger ones with threads that look for
work in such a loop as well (`thread_team.py`). How an entry is cut into parts depends on the
number of threads alone. A thread that is not there in time does not do its part: whoever claims a
part first does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rumus.tensor.compiled.numba_addresses import call, exchanged, int64s, loaded, stored, teach
from rumus.tensor.compiled.numba_waiting import ASKED, CLAIMED, DONE, PART, STATE
from rumus.tensor.compiled.shared_work import team_of_loops
from rumus.tensor.compiled.whole_numba import whole_numba

ROW: Final = 4  # numbers of an entry in a list: its address, its place, its length, its parts


class BoundEntry:
    """An entry with its place. Calling it runs it.

    numbers: what lies in its place. alive: what these are addresses of.
    """

    __slots__ = ("_is_shared", "_place", "alive", "numbers", "row")

    def __init__(
        self, entry: int, numbers: Sequence[int], length: int, parts: int, alive: object
    ) -> None:
        self.numbers = np.array(numbers, np.int64)
        self.alive = alive
        place = self.numbers.ctypes.data
        self.row = np.array([entry, place, length, min(parts, length)], np.int64)
        self._place = self.row.ctypes.data
        self._is_shared = min(parts, length) > 1

    def __call__(self) -> None:
        """Run it."""
        _run_all(self._place, 1, self._is_shared)


class EntryList:
    """Entries that follow each other. Calling it runs them."""

    def __init__(self, entries: Sequence[BoundEntry]) -> None:
        self._entries = tuple(entries)
        self._rows = np.concatenate([entry.row for entry in entries])
        self._place = self._rows.ctypes.data
        self._is_shared = any(entry.row[3] > 1 for entry in entries)

    def __call__(self) -> None:
        """Run them."""
        _run_all(self._place, len(self._entries), self._is_shared)


def joined(commands: Sequence[Callable[[], object]]) -> list[Callable[[], object]]:
    """Return commands with a list in the place of entries that follow each other."""
    found: list[Callable[[], object]] = []
    entries: list[BoundEntry] = []
    for command in (*commands, None):
        if isinstance(command, BoundEntry):
            entries.append(command)
            continue
        if entries:
            found.append(entries[0] if len(entries) == 1 else EntryList(entries))
            entries = []
        if command is not None:
            found.append(command)
    return found


def _run_all(rows: int, count: int, is_shared: bool) -> None:
    """Run so many entries, with the threads of the team if nobody else has it.

    rows: where they lie.
    """
    loop, team = _compiled(), team_of_loops() if is_shared else None
    if team is None or not team.lock.acquire(blocking=False):
        loop(rows, count, 0)
        return
    try:
        team.wake()
        loop(rows, count, team.state)
    finally:
        team.lock.release()


def _run(rows: int, count: int, state: int) -> None:
    """For numba to compile. state: of the threads, 0 where there are none."""
    for number in range(count):
        row = int64s(rows + 8 * ROW * number)
        entry, place, length, parts = row[0], row[1], row[2], row[3]
        if parts < 2:
            call(entry, place, 0, length)
            continue
        if state != 0:
            for part in range(1, parts):
                own = state + 8 * STATE * (part - 1)
                numbers = int64s(own)
                numbers[PART], numbers[PART + 1] = entry, place
                numbers[PART + 2], numbers[PART + 3] = (
                    length * part // parts,
                    length * (part + 1) // parts,
                )
                stored(own, numbers[ASKED] + 1)
        call(entry, place, 0, length // parts)
        for part in range(1, parts):
            own = state + 8 * STATE * (part - 1)
            asked = 0 if state == 0 else int64s(own)[ASKED]
            if state == 0 or exchanged(own + 8 * CLAIMED, asked - 1, asked):
                call(entry, place, length * part // parts, length * (part + 1) // parts)
                if state != 0:
                    int64s(own)[DONE] = asked
            else:
                while loaded(own + 8 * DONE) < asked:
                    pass


def address_of(array: NDArray[Any]) -> int:
    """Return where an array begins."""
    return int(array.__array_interface__["data"][0])


def fixed_entry(function: Callable[[int, int, int], None]) -> int:
    """Compile a function of a module as an entry, and return its address. Call it once."""
    numba = whole_numba()

    teach()
    entry: Any = numba.cfunc("void(int64, int64, int64)", cache=True)(function)
    _entries.append(entry)
    return int(entry.address)


_entries: Final[list[Any]] = []  # others have their addresses


@cache
def _compiled() -> Callable[[int, int, int], None]:
    numba = whole_numba()

    teach()
    loop: Callable[[int, int, int], None] = numba.njit(nogil=True, cache=True)(_run)
    return loop

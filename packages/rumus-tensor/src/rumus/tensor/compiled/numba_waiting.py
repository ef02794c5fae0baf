"""Polling a number that another thread writes, in a loop without the interpreter lock.

The number is loaded atomically: a compiler would load it once, since the loop itself changes
nothing. Whoever looks may do parts of compiled work meanwhile, which need no interpreter at all;
see `numba_entries`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from rumus.tensor.compiled.numba_addresses import call, exchanged, int64s, loaded, stored, teach
from rumus.tensor.compiled.whole_numba import whole_numba

STATE: Final = 32  # numbers that a thread is asked by, those it looks at in lines of their own
ASKED, CLAIMED, DONE, PART = 0, 8, 16, 24  # where; a part is an entry, its place, start and stop


def _look(address: int, number: int, times: int, state: int, longer: int) -> bool:
    """For numba to compile: state is 0 for those who do no parts; after one they look longer."""
    left = times
    while left > 0:
        left -= 1
        if loaded(address) >= number:
            return True
        if state == 0:
            continue
        numbers = int64s(state)
        asked = loaded(state + 8 * ASKED)
        if asked > numbers[CLAIMED] and exchanged(state + 8 * CLAIMED, asked - 1, asked):
            call(numbers[PART], numbers[PART + 1], numbers[PART + 2], numbers[PART + 3])
            stored(state + 8 * DONE, asked)
            left = longer
    return False


@cache
def compiled() -> Callable[[int, int, int, int, int], bool]:
    """Return whether the int64 at an address reaches a number within so many looks."""
    numba = whole_numba()

    teach()
    look: Callable[[int, int, int, int, int], bool] = numba.njit(nogil=True, cache=True)(_look)
    return look

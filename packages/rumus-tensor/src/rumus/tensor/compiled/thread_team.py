"""Threads that take parts of large work without being woken each time.

A captured step is some fifty pieces of a tenth of a millisecond, and waking a sleeping thread takes
half of that. So a thread that has done its part spins for a moment, in a compiled loop without the
interpreter lock, before it sleeps; a thread that waits for it does the same. The moment is short,
so that other programs get the cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from queue import SimpleQueue
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOMENT: Final = 1e-4  # seconds of spinning before a thread sleeps
LONGER: Final = 4  # moments after a part of a compiled list: Python runs before the next one
LINE: Final = 8  # int64 in a cache line
_TRIED: Final = 1000  # iterations used to time the loop

Work = Callable[[int, int], None]


class Signal:
    """A number that one thread raises and another waits for."""

    def __init__(self) -> None:
        self._number = np.zeros(8, np.int64)  # its own cache line
        self._address = self._number.ctypes.data
        self._is_asleep = False
        self._calls: SimpleQueue[None] = SimpleQueue()

    @property
    def number(self) -> int:
        """What it was raised to last."""
        return int(self._number[0])

    def raise_to(self, number: int) -> None:
        """Release the thread that waits for a number."""
        self._number[0] = number
        self.wake()

    def wake(self) -> None:
        """Let whoever sleeps look again."""
        if self._is_asleep and self._calls.empty():
            self._calls.put(None)

    def wait_for(self, number: int, state: int = 0) -> None:
        """Wait until the number is reached.

        number: what it is to reach.
        state: where this thread is asked for parts of compiled lists; 0 if it does none.
        """
        look, times = _looking()
        while not look(self._address, number, times, state, LONGER * times):
            self._is_asleep = True  # the order matters: the raising thread checks this afterwards
            if self._number[0] < number:
                self._calls.get()
            self._is_asleep = False


class _Worker:
    """A thread and its part of the work."""

    def __init__(self, number: int, states: NDArray[np.int64], state: int) -> None:
        self._asked, self._done = Signal(), Signal()
        self._states, self._state = states, state  # the memory of all, the address of its own
        self._part: tuple[Work, int, int] | None = None
        self.error: BaseException | None = None
        threading.Thread(target=self._run, name=f"rumus_{number}", daemon=True).start()

    def start(self, work: Work, start: int, stop: int) -> None:
        """Start a part; the previous one has ended."""
        self._part, self.error = (work, start, stop), None
        self._asked.raise_to(self._asked.number + 1)

    def wake(self) -> None:
        """Have it look for parts of a compiled list, if it sleeps."""
        self._asked.wake()

    def join(self) -> None:
        """Wait until what it was asked for is done. An interruption is raised after that."""
        interruption: BaseException | None = None
        while True:
            try:
                if self._done.number < self._asked.number:
                    self._asked.wake()  # an interruption may have come before it was woken
                self._done.wait_for(self._asked.number)
                break
            except BaseException as error:
                interruption = error
        if interruption is not None:
            raise interruption

    def _run(self) -> None:
        count = 0
        while True:
            count += 1
            self._asked.wait_for(count, self._state)
            part, self._part = self._part, None
            assert part is not None
            try:
                part[0](*part[1:])
            except BaseException as error:
                self.error = error
            del part  # keeps nothing alive
            self._done.raise_to(count)


class Team:
    """The threads besides the calling one; one thread may call at a time.

    count: how many there are, with the calling one.

    state: where they are asked for parts of compiled lists; see `numba_entries`.
    """

    def __init__(self, count: int) -> None:
        from rumus.tensor.compiled.numba_waiting import STATE

        _looking()  # compiled before a thread waits
        self.lock = threading.Lock()
        states = np.zeros(STATE * count + LINE, np.int64)
        self.state = -(-states.ctypes.data // (8 * LINE)) * 8 * LINE
        self._workers = [
            _Worker(number, states, self.state + 8 * STATE * number) for number in range(count - 1)
        ]

    def wake(self) -> None:
        """Have threads that sleep look for parts of a compiled list."""
        for worker in self._workers:
            worker.wake()

    def _join(self) -> None:
        for worker in self._workers:
            worker.join()

    def run(self, work: Work, parts: Sequence[tuple[int, int]]) -> None:
        """Call `work(start, stop)` for each part, the first on this thread, holding `lock`.

        It waits for all parts even after an error, so that none writes to freed arrays.
        """
        first, *others = parts
        busy = list(zip(self._workers, others, strict=False))
        try:
            try:
                for worker, part in busy:
                    worker.start(work, *part)
                work(*first)
            finally:
                self._join()
        except BaseException:
            self._join()  # a signal may have come before, or within, the other
            raise
        for worker, _ in busy:
            if worker.error is not None:
                error, worker.error = worker.error, None
                raise error


@cache
def _looking() -> tuple[Callable[[int, int, int, int, int], bool], int]:
    """The compiled polling loop, and its number of iterations in a moment."""
    from rumus.tensor.compiled.numba_waiting import compiled

    look, nothing = compiled(), np.zeros(1, np.int64)
    place = nothing.ctypes.data
    look(place, 1, 1, 0, 0)  # compiled now
    begin = perf_counter()
    look(place, 1, _TRIED, 0, 0)
    return look, max(1, int(MOMENT * _TRIED / (perf_counter() - begin)))

"""Threads that look for work before they sleep."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("numba") is not None:
    from rumus.tensor.backends.thread_team import MOMENT, Team

    PARTS = [(0, 3), (3, 5), (5, 9)]

    @pytest.fixture(scope="module")
    def team() -> Team:
        return Team(3)

    @pytest.mark.parametrize("pause", [0.0, MOMENT / 2, 50 * MOMENT])
    def test_each_part_is_done_once(team: Team, pause: float) -> None:
        """Also after the threads have gone to sleep, and when the first part is the last one."""
        found = np.zeros(9, np.int64)

        def work(start: int, stop: int) -> None:
            time.sleep(pause if start else 0)
            found[start:stop] += 1

        for number in range(1, 40):
            team.run(work, PARTS)
            assert (found == number).all()
            time.sleep(pause)

    @pytest.mark.parametrize("bad", [0, 3, 5])
    def test_an_error_waits_for_the_others(team: Team, bad: int) -> None:
        finished = []

        def work(start: int, stop: int) -> None:
            if start == bad:
                raise KeyError(start)
            time.sleep(0.02)
            finished.append(start)

        with pytest.raises(KeyError, match=str(bad)):
            team.run(work, PARTS)
        assert len(finished) == 2
        team.run(lambda start, stop: finished.append(start), PARTS)
        assert sorted(finished[2:]) == [0, 3, 5]

    def test_nothing_stays_alive(team: Team) -> None:
        array = np.zeros(9)
        gone = weakref.ref(array)

        def add(start: int, stop: int) -> None:
            array[start:stop] += 1

        team.run(add, PARTS)
        del add, array
        gc.collect()
        assert gone() is None

    def test_work_of_several_threads_at_a_time() -> None:
        from rumus.tensor.backends.numpy_backend import run_parts

        def ask(into: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
            def work(start: int, stop: int) -> None:
                into[start:stop] += 1

            for _ in range(200):
                run_parts(work, into.size, True)

        found = [np.zeros(100, np.int64) for _ in range(4)]
        threads = [threading.Thread(target=ask, args=(each,)) for each in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all((each == 200).all() for each in found)

"""Threads that spin for work before they sleep."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
import weakref
from importlib.util import find_spec
from types import FrameType
from typing import Any

import numpy as np
import pytest

if find_spec("numba") is not None:
    from rumus.tensor.compiled.thread_team import MOMENT, Team

    PARTS = [(0, 3), (3, 5), (5, 9)]

    @pytest.fixture(scope="module")
    def team() -> Team:
        return Team(3)

    @pytest.mark.parametrize("pause", [0.0, MOMENT / 2, 50 * MOMENT])
    def test_each_part_is_done_once(team: Team, pause: float) -> None:
        """Including after the threads fell asleep, and when the first part is also the last."""
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
        from rumus.tensor.compiled.shared_work import run_parts

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

    class Late(Exception):
        """Raised by the handler."""

    def _run_with_a_signal_at(wanted: int, team: Team) -> tuple[int, int, bool]:
        """Return how many parts had started, how many had then ended, and whether it raised."""
        begun: list[int] = []
        over: list[int] = []
        lines = 0

        def work(start: int, stop: int) -> None:
            begun.append(start)
            time.sleep(2 * MOMENT)
            over.append(start)

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal lines
            if not frame.f_code.co_filename.endswith("compiled/thread_team.py"):
                return None
            lines += event == "line"
            if event == "line" and lines == wanted:
                signal.raise_signal(signal.SIGTERM)
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            team.run(work, PARTS)
        except Late:
            return len(begun), len(over), True
        finally:
            sys.settrace(before)
        return len(begun), len(over), False

    def test_a_signal_at_any_line_waits_for_the_others_too(team: Team) -> None:
        """Every started part has ended when the error arrives, and the next run is unaffected."""

        def late(*_: object) -> None:
            raise Late

        before = signal.signal(signal.SIGTERM, late)
        try:
            at, raised = 0, True
            while raised:
                at += 1
                begun, over, raised = _run_with_a_signal_at(at, team)
                assert begun == over, f"line {at}"
                done: list[int] = []
                team.run(lambda start, stop, done=done: done.append(start), PARTS)  # type: ignore[misc]
                assert sorted(done) == [0, 3, 5]
        finally:
            signal.signal(signal.SIGTERM, before)
        assert at > 30

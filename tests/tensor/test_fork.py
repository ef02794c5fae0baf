"""A forked process: its parent's threads are gone, whatever they were doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import pytest

from rumus.tensor.compiled.shared_work import _threads, run_parts

PROGRAM = """
import os, signal, sys, threading
import numpy as np
from rumus import tensor as rt

backend = rt.{backend}()
x = rt.tensor(np.ones(1 << 20, np.float32), backend=backend)
(x * 2.0).numpy()  # starts the threads
leave = threading.Event()
if {is_inside}:
    from rumus.tensor.compiled import numba_blas
    before, inside = numba_blas._threads(), threading.Event()
    def other():
        with numba_blas.alone():
            inside.set()
            leave.wait(20)
    threading.Thread(target=other).start()
    inside.wait(20)
child = os.fork()
if child == 0:
    signal.alarm(20)
    right = (x * 3.0).numpy().sum() == 3 << 20
    m = rt.tensor(np.ones((300, 300), np.float32), backend=backend)
    right = right and ((m @ m).numpy() == 300).all()
    if {is_inside}:
        right = right and numba_blas._threads() == before
    os._exit(0 if right else 3)
status = os.waitpid(child, 0)[1]
leave.set()
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


def forks(backend: str, is_inside: bool) -> int:
    program = PROGRAM.format(backend=backend, is_inside=is_inside)
    return subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode


if hasattr(os, "fork"):

    def test_large_arrays_in_a_forked_process() -> None:
        assert forks("NumpyBackend", False) == 0

    if find_spec("numba") is not None:
        from rumus.tensor.compiled import numba_blas

        def test_a_fork_beside_a_thread_that_multiplies() -> None:
            assert forks("NumbaBackend", numba_blas.single() is not None) == 0


def test_an_error_waits_for_the_other_threads() -> None:
    finished = []

    def work(start: int, stop: int) -> None:
        if start == 0:
            raise KeyError("first")
        time.sleep(0.1)
        finished.append(stop)

    with pytest.raises(KeyError, match="first"):
        run_parts(work, 1000, True)
    assert len(finished) == _threads()[1] - 1


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals reach no single thread")
def test_an_interruption_waits_for_the_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal's handler raises in the calling thread, which is waiting for them."""
    monkeypatch.delitem(sys.modules, "numba", raising=False)  # its threads are others
    caller, finished = threading.get_ident(), []

    def work(start: int, stop: int) -> None:
        if start:
            signal.pthread_kill(caller, signal.SIGUSR1)
            time.sleep(0.1)
            finished.append(stop)

    def handler(*_: object) -> None:
        raise KeyError("stop")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(KeyError, match="stop"):
            run_parts(work, 1000, True)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(finished) == _threads()[1] - 1

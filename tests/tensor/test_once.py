"""What a process has one of, asked for by several threads at the same moment."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from rumus.tensor.memory.once import once

FIRST_TENSORS = """
import time
from concurrent.futures import ThreadPoolExecutor
from rumus.tensor import tensor
from rumus.tensor.backends import default_backend

def slowly(name):
    time.sleep(0.05)

default_backend.find_spec = slowly
with ThreadPoolExecutor(4) as threads:
    found = list(threads.map(tensor, [1.0] * 4))
assert len({id(each.backend) for each in found}) == 1
"""


def test_threads_that_ask_at_once_get_one_result() -> None:
    made: list[object] = []

    @once
    def make() -> object:
        time.sleep(0.02)  # the others ask meanwhile
        made.append(object())
        return made[-1]

    barrier = Barrier(4)

    def ask(_: int) -> object:
        barrier.wait()
        return make()

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(ask, range(4)))
    assert len(made) == 1
    assert all(each is made[0] for each in found)


def test_after_an_error_the_next_one_tries_again() -> None:
    calls: list[int] = []

    @once
    def make() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not yet")
        return 3

    with pytest.raises(ValueError, match="not yet"):
        make()
    assert (make(), make(), len(calls)) == (3, 3, 2)


def test_first_tensors_of_several_threads_are_on_one_backend() -> None:
    assert subprocess.run([sys.executable, "-c", FIRST_TENSORS], check=False).returncode == 0

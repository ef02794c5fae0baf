"""`SharedSum` among ranks that are threads here, over shared memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from rumus.distributed.link import NoLink, bounds
from rumus.distributed.shared_sum import SharedSum
from rumus.distributed.tree import add_rows
from rumus.tensor import Backend, NumpyBackend


class Thread(NoLink):
    """The link of one of several threads."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier) -> None:
        self.rank, self.size, self._barrier, self.sent = rank, size, barrier, 0

    def meet(self, place: str, number: int = 0, signal: int = 0) -> Any:
        self._barrier.wait(60)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("length", [64 * 4, 40_007])
@pytest.mark.parametrize("is_posted", [False, True])
def test_all_ranks_get_the_sum_in_the_tree(
    backend: Backend, size: int, length: int, is_posted: bool
) -> None:
    random = np.random.default_rng(length)
    steps = random.standard_normal((3, size, length), np.float32)
    regions = [backend.upload(np.zeros(length, np.float32)) for _ in range(size)]
    barrier = threading.Barrier(size)

    def rank(number: int) -> list[bytes]:
        link, found = Thread(number, size, barrier), []
        shared = SharedSum(link, backend, regions)
        for step in steps:
            array = backend.upload(step[number].copy())
            if is_posted and number != 1:  # nobody has to
                shared.post(array)
            shared.add_up(array)
            found.append(backend.download(array).tobytes())
            shared.collect(array)  # like adjacent parameters, in the same memory
            assert backend.download(array).tobytes() == found[-1]
        cuts = bounds(length, size)
        own = cuts[number + 1] - cuts[number]
        assert link.sent == len(steps) * 4 * (
            length + own
        )  # the other ranks' parts, and its own twice
        return found

    with ThreadPoolExecutor(size) as pool:
        every = list(pool.map(rank, range(size)))
    host = NumpyBackend()
    expected = [add_rows(host, list(step.copy())).tobytes() for step in steps]
    assert every == [expected] * size


def test_the_first_of_two_equal_arrays_is_posted(backend: Backend) -> None:
    """The second would be written over it: it waits for its turn."""
    regions = [backend.upload(np.zeros(256, np.float32)) for _ in range(2)]
    barrier = threading.Barrier(2)

    def rank(number: int) -> list[float]:
        shared = SharedSum(Thread(number, 2, barrier), backend, regions)
        arrays = [backend.upload(np.full(256, value, np.float32)) for value in (1.0, 10.0)]
        for array in arrays:
            shared.post(array)
        for array in arrays:
            shared.add_up(array)
        return [float(backend.download(array).max()) for array in arrays]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(rank, range(2))) == [[2.0, 20.0]] * 2

"""Large work in pieces: blocks that stay in cache, and parts that threads share.

The threads sleep between parts, or spin for a moment if there are compiled loops; see
`thread_team`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from rumus.tensor.compiled.thread_team import Team
from rumus.tensor.memory.backend import Shape
from rumus.tensor.memory.uninterrupted import Uninterrupted

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

BLOCK: Final = 131_072  # elements: in smaller blocks threads wait for the interpreter lock
PARALLEL: Final = 262_144  # from this many elements on, starting threads pays off

Index = tuple[slice, ...]


@lru_cache(maxsize=1)
def _threads() -> tuple[ThreadPoolExecutor, int]:
    """The worker threads, started for the first large array, and their number."""
    from concurrent.futures import ThreadPoolExecutor  # 6 ms that few need

    count = thread_count()
    return ThreadPoolExecutor(count, thread_name_prefix="rumus"), count


@lru_cache(maxsize=1)
def _team() -> Team:
    """The threads that spin before they sleep, if there are compiled loops."""
    return Team(thread_count())


def team_of_loops() -> Team | None:
    """Return the threads that share compiled loops; None where there is one core."""
    return _team() if thread_count() > 1 else None


@lru_cache(maxsize=1)
def thread_count() -> int:
    """Return the number of threads that share large work."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return count or 1


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_threads.cache_clear)
    os.register_at_fork(after_in_child=_team.cache_clear)


def blocks(shape: Shape, limit: int) -> Iterator[Index]:
    """Split `shape` into pieces of at most `limit` elements, as tuples of slices, in order."""
    rest = 1
    for axis in range(len(shape) - 1, -1, -1):
        if rest * shape[axis] > limit:
            break
        rest *= shape[axis]
    else:
        yield ()
        return
    step = max(1, limit // rest)
    for lead in np.ndindex(*shape[:axis]):
        prefix = tuple(slice(i, i + 1) for i in lead)
        for start in range(0, shape[axis], step):
            yield (*prefix, slice(start, min(start + step, shape[axis])))


def run_parts(work: Callable[[int, int], None], length: int, parallel: bool) -> None:
    """Call `work(start, stop)` over [0, length), in one piece or one piece per thread.

    It waits for all pieces even after an error, so that none writes to freed arrays.
    """
    if not parallel or length < 2:
        work(0, length)
        return
    count = thread_count()
    edges = [length * i // count for i in range(count + 1)]
    if count > 1 and "numba" in sys.modules:
        team = _team()
        if team.lock.acquire(blocking=False):
            try:
                team.run(work, list(pairwise(edges)))
            finally:
                team.lock.release()
            return
    pool, _ = _threads()
    first, *others = pairwise(edges)
    parts: list[Future[None]] = []
    try:
        try:
            with Uninterrupted():  # each that runs is known
                parts += [pool.submit(work, *part) for part in others]
            work(*first)
        finally:
            _wait_for(parts)
    except BaseException:
        _wait_for(parts)  # a signal may have come before the other
        raise
    for part in parts:
        part.result()


def _wait_for(parts: Sequence[Future[None]]) -> None:
    """Wait until all are done. An interruption is raised after that."""
    interruption: BaseException | None = None
    for part in parts:
        while not part.done():
            try:
                part.exception()
            except BaseException as error:
                interruption = error
    if interruption is not None:
        raise interruption

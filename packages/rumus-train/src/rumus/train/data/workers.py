"""Batches made ahead by threads or processes, and yielded in order.

Threads serve the worker processes, one for each task that a process may have: a thread waits for
the batch and uploads it. So there is one way to stop, and a process that dies is a call that fails.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.train.data.batcher import Batcher, Task
from rumus.train.data.dataset import AnyBatch
from rumus.train.data.stray_draws import Drawn, warn_of, watched

if TYPE_CHECKING:
    from rumus.train.data.process_pool import ProcessPool

S = TypeVar("S")
T = TypeVar("T")


def made_by_threads(
    batcher: Batcher, tasks: Iterable[Task], finish: Callable[[Task, AnyBatch], T], workers: int,
    ahead: int,
) -> Generator[T, None, None]:  # fmt: skip
    """Yield the batches of `tasks`, made by threads; see `in_order`."""
    stopped = threading.Event()

    def make(task: Task) -> T:
        plainly: Callable[[], AnyBatch] = lambda: batcher.make(task, stopped.is_set)
        if not batcher.is_new():
            return finish(task, plainly())
        batch, drawn = watched(plainly)
        if drawn is not None:
            warn_of(drawn)
        return finish(task, batch)

    return in_order(make, tasks, workers, ahead, stopped.set)


def made_by_processes(
    batcher: Batcher, tasks: Iterable[Task], finish: Callable[[Task, AnyBatch], T], workers: int,
    ahead: int, pool: ProcessPool,
) -> Generator[T, None, None]:  # fmt: skip
    """Yield the batches of `tasks`, made by processes of the pool and finished by threads."""
    from rumus.train.data.process_pool import IN_FLIGHT

    pool.begin(batcher, workers)

    def make(task: Task) -> T:
        made = pool.make(task)
        if isinstance(made, Drawn):
            if batcher.is_new():
                warn_of(made.source)
            made = made.batch
        return finish(task, made)

    yield from in_order(make, tasks, workers * IN_FLIGHT, ahead, pool.leave)


def in_order(
    make: Callable[[S], T],
    tasks: Iterable[S],
    workers: int,
    ahead: int,
    stop: Callable[[], None],
) -> Generator[T, None, None]:
    """Yield make(task) for each task in order; `workers` threads work ahead.

    ahead: how many may be finished or in progress beyond those requested. However the loop ends,
        `stop` is called, and no thread remains. The standard library's pool will not do: if
        interrupted while it starts a thread, it forgets that one.
    """
    stopped = threading.Event()
    todo: SimpleQueue[tuple[S, Future[T]] | None] = SimpleQueue()

    def work() -> None:
        while (item := todo.get()) is not None and not stopped.is_set():
            task, future = item
            try:
                future.set_result(make(task))
            except BaseException as error:
                future.set_exception(error)
            del item, future  # a yielded batch is not kept here

    # Daemons, so that an open loop does not keep the program alive.
    threads = [
        threading.Thread(target=work, name=f"rumus-data-{i}", daemon=True) for i in range(workers)
    ]
    rest = iter(tasks)
    waiting: deque[Future[T]] = deque()

    def end() -> None:
        stopped.set()
        stop()
        for _ in threads:
            todo.put(None)

    try:
        try:
            for thread in threads:
                thread.start()
            while True:
                for task in islice(rest, ahead + 1 - len(waiting)):
                    waiting.append(Future())
                    todo.put((task, waiting[-1]))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            with Uninterrupted():
                end()
    except BaseException:
        with Uninterrupted():
            end()  # a signal may have come before the other was reached
        raise
    finally:
        for thread in threads:
            if thread.is_alive():  # unless an interrupt came before it started
                thread.join()

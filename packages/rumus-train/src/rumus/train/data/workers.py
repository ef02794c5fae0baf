"""Batches made ahead of their consumer, by threads or by processes, and handed over in order.

A worker process is served by a thread, which waits for it and uploads what it made. So there is one
pool, one way to stop, and a process that dies is a call that fails.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from rumus.train.base.data_errors import WorkerError
from rumus.train.data.batcher import Batcher, Stopped, Task
from rumus.train.data.dataset import AnyBatch
from rumus.train.data.worker_process import Failure, serve

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

S = TypeVar("S")
T = TypeVar("T")


def made_by_threads(
    batcher: Batcher, tasks: Iterable[Task], finish: Callable[[Task, AnyBatch], T], workers: int,
    ahead: int,
) -> Generator[T, None, None]:  # fmt: skip
    """Yield the batches of `tasks`, made by threads; see `in_order`."""
    stopped = threading.Event()
    make = lambda task: finish(task, batcher.make(task, stopped.is_set))
    return in_order(make, tasks, workers, ahead, stopped.set)


def made_by_processes(
    batcher: Batcher, tasks: Iterable[Task], finish: Callable[[Task, AnyBatch], T], workers: int,
    ahead: int,
) -> Generator[T, None, None]:  # fmt: skip
    """Yield the batches of `tasks`, made by processes and finished by threads."""
    import atexit
    import multiprocessing.util  # noqa: F401  # its exit handler must come after ours

    processes = WorkerProcesses(batcher)
    make = lambda task: finish(task, processes.make(task))
    atexit.register(processes.stop)
    try:
        yield from in_order(make, tasks, workers, ahead, processes.stop)
    finally:
        processes.close()
        atexit.unregister(processes.stop)


def in_order(
    make: Callable[[S], T],
    tasks: Iterable[S],
    workers: int,
    ahead: int,
    stop: Callable[[], None],
) -> Generator[T, None, None]:
    """Yield make(task) for each task, in order, of which `workers` threads make some ahead.

    ahead: how many may be finished or in the making beyond what was asked for. However the loop
    ends, `stop` is called and no thread is left then. No pool of the standard library: an interrupt
    while it starts a thread lets it forget that one.
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
            del item, future  # a batch that was handed out is not kept here

    # Daemons, so that a loop that is still open when the program ends does not keep it alive.
    threads = [
        threading.Thread(target=work, name=f"rumus-data-{i}", daemon=True) for i in range(workers)
    ]
    rest = iter(tasks)
    waiting: deque[Future[T]] = deque()
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
        stopped.set()
        stop()
        for _ in threads:
            todo.put(None)
        for thread in threads:
            if thread.is_alive():  # not if an interrupt came before it was started
                thread.join()


class WorkerProcesses:
    """Processes that make batches, each started by the thread that first needs it.

    Not by the main thread, where an interrupt could come when one is half started.
    """

    def __init__(self, batcher: Batcher) -> None:
        self._sent = _pickled(batcher)
        self._lock = threading.Lock()
        self._all: list[WorkerProcess] = []
        self._idle: SimpleQueue[WorkerProcess] = SimpleQueue()
        self._is_stopped = False

    def make(self, task: Task) -> AnyBatch:
        """Return a batch that an idle process made, or a new one; as `WorkerProcess.make`."""
        try:
            process = self._idle.get_nowait()
        except Empty:
            process = self._start()
        try:
            return process.make(task)
        finally:
            self._idle.put(process)

    def _start(self) -> WorkerProcess:
        with self._lock:
            if self._is_stopped:
                raise Stopped
            process = _spawn()
            self._all.append(process)
        process.send(self._sent)
        return process

    def stop(self) -> None:
        """End all processes at once; a thread that waits for one is told."""
        with self._lock:
            self._is_stopped = True
            for process in self._all:
                process.kill()

    def close(self) -> None:
        """Wait for the end of all, and let go of what belongs to them."""
        while self._all:
            self._all.pop().close()


class WorkerProcess:
    """A process that makes batches, one at a time, for one thread of this process."""

    def __init__(self, process: SpawnProcess, connection: Connection) -> None:
        self._process, self._connection = process, connection

    def send(self, batcher: bytes) -> None:
        """Tell it what to work with."""
        with self._watched("it was starting"):
            self._connection.send_bytes(batcher)

    def make(self, task: Task) -> AnyBatch:
        """Return the batch that it made. SampleError as `Batcher.make`, WorkerError if it died."""
        what = f"it made batch {task.number} of epoch {task.epoch}"
        with self._watched(what):
            self._connection.send(task)
            reply = self._connection.recv()
        if isinstance(reply, Failure):
            raise reply.restored(self._process.pid)
        made: AnyBatch = reply
        return made

    @contextmanager
    def _watched(self, what: str) -> Iterator[None]:
        """Turn the end of the process into a WorkerError."""
        try:
            yield
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise WorkerError(self._epitaph(what)) from error

    def _epitaph(self, what: str) -> str:
        code = self._process.exitcode
        start = f"worker process {self._process.pid} of the data loader"
        if code is not None and code < 0:
            return (
                f"{start} was killed by signal {-code} while {what}; if by the system for want of "
                "memory, use fewer workers or smaller batches"
            )
        return (
            f"{start} ended with exit code {code} while {what}. A program that starts processes "
            "needs `if __name__ == '__main__':` around what it does, and a dataset and a transform "
            "that another process can import; its own message is on stderr"
        )

    def kill(self) -> None:
        """End it at once; a thread that waits for it is told."""
        self._process.kill()

    def close(self) -> None:
        """Wait for its end, and let go of what belongs to it."""
        self._process.join()
        self._connection.close()
        self._process.close()


def _pickled(batcher: Batcher) -> bytes:
    """What a process is sent. TypeError if the dataset or the transform cannot be."""
    import pickle

    try:
        return pickle.dumps(batcher, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise TypeError(
            f"the dataset or the transform cannot be sent to a process: {error}; define it at the "
            "top level of a module, or use threads, processes=False"
        ) from error


def _spawn() -> WorkerProcess:
    from multiprocessing import get_context

    # Not forked: a fork inherits locks that threads of this process hold, and a GPU's device.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True, name="rumus-data")
    try:
        with _signals_blocked():
            process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()  # the child has its own; with this one open its end would go unnoticed
    return WorkerProcess(process, ours)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Let a process that is started be deaf to what terminals and schedulers send to all.

    It is for this process to decide what a signal means, and its workers are needed until then.
    """
    import signal

    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    to_all = {
        signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1,
        signal.SIGUSR2, signal.SIGXCPU,
    }  # fmt: skip
    before = signal.pthread_sigmask(signal.SIG_BLOCK, to_all)
    try:
        # It starts with the first process, and then unblocks SIGINT and SIGTERM in this thread.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, to_all)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

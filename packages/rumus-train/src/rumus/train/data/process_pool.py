"""`ProcessPool`: worker processes of a loader that persist across epochs."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from hashlib import sha256
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rumus.tensor.memory.uninterrupted import is_of_handler, put_back_after
from rumus.train.base.data_errors import WorkerError
from rumus.train.data.batch_memory import BatchMemory, Place
from rumus.train.data.batcher import Batcher, Stopped, Task
from rumus.train.data.dataset import AnyBatch
from rumus.train.data.stray_draws import Drawn
from rumus.train.data.worker_process import Failure, Sizes, serve

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess


# Tasks per process: the current one and the next, so that it need not wait for this side to take
# its batch.
IN_FLIGHT: Final = 2
PATIENCE: Final = 5.0  # seconds for a process that ends


class ProcessPool:
    """Processes that make batches, each started by the thread that first needs it.

    The main thread starts none: an interrupt could leave one half-started.
    """

    def __init__(self) -> None:
        import atexit
        import multiprocessing.util  # noqa: F401  # its exit handler must come after ours

        self._sent: Sent | None = None
        self._is_left = True
        self._own()
        atexit.register(self.leave, and_idle=True)

    def _own(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._started: list[WorkerProcess] = []

    def begin(self, batcher: Batcher, workers: int) -> None:
        """Prepare for a loop with up to `workers` processes; they get `batcher` if it has changed.

        Raises TypeError if it cannot be pickled.
        """
        if os.getpid() != self._owner:  # a fork has the object but not the processes
            self._own()
        self._sent, self._workers = Sent.of(batcher), workers
        with self._lock:
            self._is_left = False

    def make(self, task: Task) -> AnyBatch | Drawn:
        """Have a process, started if necessary, make the batch; see `WorkerProcess.make`."""
        process = self._taken()
        try:
            assert self._sent is not None
            return process.make(task, self._sent)
        finally:
            with self._lock:
                process.tasks -= 1
                is_over = process.has_ended and not process.tasks
                if is_over:
                    self._started.remove(process)
            if is_over:
                process.close()

    def leave(self, *, and_idle: bool = False) -> None:
        """End the loop at once, and every busy process; a waiting thread gets an error."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._is_left = True
            for process in self._started:
                if process.tasks or and_idle:
                    process.kill()

    def close(self) -> None:
        """End all processes, wait for them, and release their resources."""
        import atexit

        if os.getpid() != self._owner:
            return
        self.leave(and_idle=True)
        while self._started:
            self._started.pop().close()
        atexit.unregister(self.leave)

    def _taken(self) -> WorkerProcess:
        """Return an idle process, else a new one up to `workers`, else the least busy one."""
        with self._lock:
            if self._is_left:
                raise Stopped
            for process in [each for each in self._started if not each.tasks]:
                if not process.is_alive:  # killed between two loops
                    self._started.remove(process)
                    process.close()
            usable = [each for each in self._started if not each.has_ended]
            least = min((each.tasks for each in usable), default=1)
            if least and len(usable) < self._workers:
                usable = [_spawn()]
                self._started += usable
            process = min(usable, key=lambda each: each.tasks)
            process.tasks += 1
        return process


class Sent(NamedTuple):
    """A pickled batcher; its arrays are kept out of band, without a copy.

    digest: of all of it, to notice a dataset that has changed since the last epoch.
    """

    parts: tuple[bytes | memoryview, ...]
    digest: bytes

    @classmethod
    def of(cls, batcher: Batcher) -> Sent:
        """Pickle it. Raises TypeError if the dataset or the transform cannot be pickled."""
        import pickle

        arrays: list[pickle.PickleBuffer] = []
        try:
            whole = pickle.dumps(batcher, 5, buffer_callback=arrays.append)
        except Exception as error:
            if is_of_handler(error):
                raise
            raise TypeError(
                f"the dataset or the transform cannot be sent to a process: {error}; define it at "
                "the top level of a module, or use threads, processes=False"
            ) from error
        parts: list[bytes | memoryview] = [whole, *(array.raw() for array in arrays)]
        digest = sha256()
        for part in parts:
            digest.update(part)
        return cls(tuple(parts), digest.digest())


class WorkerProcess:
    """A process that makes batches in the order of its tasks.

    tasks: the number of threads using it.
    """

    def __init__(
        self, process: SpawnProcess, connection: Connection, memories: Sequence[BatchMemory]
    ) -> None:
        self._process, self._connection, self._memories = process, connection, memories
        self._free = deque(range(IN_FLIGHT))  # the memories without a batch
        self._expected: deque[tuple[Task, Future[Any]]] = deque()
        self._sending, self._receiving = threading.Lock(), threading.Lock()
        self._has: bytes | None = None  # the digest of its batcher
        self.tasks = 0
        self.has_ended = False

    @property
    def is_alive(self) -> bool:
        """Whether it is still running."""
        return self._process.is_alive()

    def make(self, task: Task, sent: Sent) -> AnyBatch | Drawn:
        """Return the batch. Raises SampleError like `Batcher.make`, WorkerError if it died."""
        place = self._free.popleft()
        try:
            reply = self._reply_to(task, place, sent)
            if isinstance(reply, Failure):
                raise reply.restored(self._process.pid)
            return self._memories[place].read(reply) if isinstance(reply, Place) else reply
        finally:
            self._free.append(place)

    def _reply_to(self, task: Task, place: int, sent: Sent) -> AnyBatch | Drawn | Failure | Place:
        reply: Future[AnyBatch | Drawn | Failure | Place] = Future()
        try:
            with self._sending:
                self._send(sent)
                self._expected.append((task, reply))
                with self._watched(task):
                    self._connection.send((task, place))
            while not reply.done():
                with self._receiving:  # any waiting thread receives the next, for whomever it is
                    if not reply.done():
                        self._receive()
            return reply.result()
        finally:
            del reply  # its error refers to this frame: the loader would wait for the collector

    def _receive(self) -> None:
        task, reply = self._expected[0]
        try:
            with self._watched(task):
                found = self._connection.recv()
            reply.set_result(found)
        except BaseException as error:
            reply.set_exception(error)
        self._expected.popleft()
        del reply  # as in `_reply_to`

    def _send(self, sent: Sent) -> None:
        """Send the batcher, unless the process has it."""
        if self._has == sent.digest:
            return
        with self._watched(None):
            self._connection.send(Sizes(len(part) for part in sent.parts))
            for part in sent.parts:
                self._connection.send_bytes(part)
        self._has = sent.digest

    @contextmanager
    def _watched(self, task: Task | None) -> Iterator[None]:
        """Raise WorkerError if the process died; kill it on any other error."""
        try:
            yield
        except BaseException as error:
            self.has_ended = True
            if not isinstance(error, (EOFError, OSError)):
                self.kill()
                raise
            raise WorkerError(self._epitaph(task, self._exit_code())) from error

    def _exit_code(self) -> int | None:
        """The exit code of the process that has ended; None if somebody else has taken it.

        Another thread that starts a process asks for those of all, and notes it a moment later.
        """
        until = monotonic() + PATIENCE
        self._process.join(PATIENCE)
        while self._process.exitcode is None and monotonic() < until:
            sleep(0.01)
        return self._process.exitcode

    def _epitaph(self, task: Task | None, code: int | None) -> str:
        what = f"it made batch {task.number} of epoch {task.epoch}" if task else "it was starting"
        start = f"worker process {self._process.pid} of the data loader"
        if code is not None and code < 0:
            return (
                f"{start} was killed by signal {-code} while {what}; if the system ran out of "
                "memory, use fewer workers or smaller batches"
            )
        return (
            f"{start} ended with exit code {code} while {what}. A program that starts processes "
            "needs `if __name__ == '__main__':` around its code, and a dataset and a transform "
            "that another process can import; the worker's own message is on stderr"
        )

    def kill(self) -> None:
        """End it at once; a waiting thread gets an error."""
        self._process.kill()

    def close(self) -> None:
        """Wait for its end and release its resources."""
        self.kill()
        self._process.join()  # no `close()`: at exit `multiprocessing` may be joining it, too
        self._connection.close()
        for memory in self._memories:
            memory.close()


def _spawn() -> WorkerProcess:
    from multiprocessing import current_process, get_context

    if current_process().daemon:
        raise RuntimeError(
            "this process is a daemon of multiprocessing, which may start no processes: use "
            "threads, processes=False, or start it with daemon=False"
        )
    # Not forked: a fork inherits locks held by threads, and a GPU's device.
    context = get_context("spawn")
    memories = BatchMemory.create(IN_FLIGHT)
    ours, theirs = context.Pipe()
    given = (theirs, memories)
    process = context.Process(target=serve, args=given, daemon=True, name="rumus-data")
    try:
        _with_signals_blocked(process.start)
    except BaseException:
        ours.close()
        for memory in memories:
            memory.close()
        raise
    finally:
        theirs.close()  # if this copy stayed open, the child's death would go unnoticed
    return WorkerProcess(process, ours, memories)


def _with_signals_blocked(start: Callable[[], None]) -> None:
    """Block the signals that terminals and schedulers send to all, in a starting process.

    This process decides what a signal means, and needs its workers until then. Wherever a handler
    of another signal raises, they are let through again: this process would never hear of them.
    """
    import signal

    if not hasattr(signal, "pthread_sigmask"):
        start()
        return
    from multiprocessing import resource_tracker

    to_all = {
        signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1,
        signal.SIGUSR2, signal.SIGXCPU,
    }  # fmt: skip
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def start_blocked() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, to_all)
        # It starts with the first process, and then unblocks SIGINT and SIGTERM in this thread.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, to_all)
        start()

    def put_back() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    put_back_after(start_blocked, put_back)

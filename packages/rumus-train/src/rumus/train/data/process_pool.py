"""`ProcessPool`: worker processes of a loader that persist across epochs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from rumus.train.base.data_errors import WorkerError
from rumus.train.data.batch_memory import BatchMemory, Place
from rumus.train.data.batcher import Batcher, Stopped, Task
from rumus.train.data.dataset import AnyBatch
from rumus.train.data.stray_draws import Drawn
from rumus.train.data.worker_process import Failure, Sizes, serve

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess


class ProcessPool:
    """Processes that make batches, each started by the thread that first needs it.

    Not by the main thread, since an interrupt could hit a half-started one.
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
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()

    def begin(self, batcher: Batcher) -> None:
        """Prepare for a loop; processes get `batcher` if it has changed.

        Raises TypeError if it cannot be pickled.
        """
        if os.getpid() != self._owner:  # a fork has the object but not the processes
            self._own()
        self._sent = Sent.of(batcher)
        with self._lock:
            self._is_left = False

    def make(self, task: Task) -> AnyBatch | Drawn:
        """Return a batch that an idle process made, or a new one; as `WorkerProcess.make`."""
        process = self._taken()
        try:
            assert self._sent is not None
            process.send(self._sent)
            return process.make(task)
        finally:
            with self._lock:
                self._busy.discard(process)
                if not process.has_ended:
                    self._idle.append(process)
            if process.has_ended:
                process.close()

    def leave(self, *, and_idle: bool = False) -> None:
        """End the loop at once, and every busy process; a waiting thread gets an error."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._is_left = True
            for process in [*self._busy, *(self._idle if and_idle else ())]:
                process.kill()

    def close(self) -> None:
        """End all processes, wait for them, and release their resources."""
        import atexit

        if os.getpid() != self._owner:
            return
        self.leave(and_idle=True)
        while self._idle:
            self._idle.pop().close()
        atexit.unregister(self.leave)

    def _taken(self) -> WorkerProcess:
        with self._lock:
            if self._is_left:
                raise Stopped
            while self._idle and not self._idle[-1].is_alive:  # killed between two loops
                self._idle.pop().close()
            process = self._idle.pop() if self._idle else _spawn()
            self._busy.add(process)
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
    """A process that makes batches, one at a time, for one thread of this process."""

    def __init__(
        self, process: SpawnProcess, connection: Connection, memory: BatchMemory | None
    ) -> None:
        self._process, self._connection, self._memory = process, connection, memory
        self._has: bytes | None = None  # the digest of its batcher
        self.has_ended = False

    @property
    def is_alive(self) -> bool:
        """Whether it is still running."""
        return self._process.is_alive()

    def send(self, sent: Sent) -> None:
        """Send it the batcher, unless it has it."""
        if self._has == sent.digest:
            return
        with self._watched("it was starting"):
            self._connection.send(Sizes(len(part) for part in sent.parts))
            for part in sent.parts:
                self._connection.send_bytes(part)
        self._has = sent.digest

    def make(self, task: Task) -> AnyBatch | Drawn:
        """Return its batch. Raises SampleError like `Batcher.make`, WorkerError if it died."""
        what = f"it made batch {task.number} of epoch {task.epoch}"
        with self._watched(what):
            self._connection.send(task)
            reply = self._connection.recv()
        if isinstance(reply, Failure):
            raise reply.restored(self._process.pid)
        if isinstance(reply, Place):
            assert self._memory is not None
            return self._memory.read(reply)
        made: AnyBatch | Drawn = reply
        return made

    @contextmanager
    def _watched(self, what: str) -> Iterator[None]:
        """Turn the end of the process into a WorkerError; any other error ends it too."""
        try:
            yield
        except BaseException as error:
            self.has_ended = True
            if not isinstance(error, (EOFError, OSError)):
                self.kill()
                raise
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
        """End it at once; a waiting thread gets an error."""
        self._process.kill()

    def close(self) -> None:
        """Wait for its end and release its resources."""
        self.kill()
        self._process.join()  # not closed: at exit `multiprocessing` may be joining it, too
        self._connection.close()
        if self._memory is not None:
            self._memory.close()


def _spawn() -> WorkerProcess:
    from multiprocessing import get_context

    # Not forked: a fork inherits locks held by threads, and a GPU's device.
    context = get_context("spawn")
    memory = BatchMemory.create()
    ours, theirs = context.Pipe()
    given = (theirs, memory)
    process = context.Process(target=serve, args=given, daemon=True, name="rumus-data")
    try:
        with _signals_blocked():
            process.start()
    except BaseException:
        ours.close()
        if memory is not None:
            memory.close()
        raise
    finally:
        theirs.close()  # the child has its own; if this one stayed open, its end would go unnoticed
    return WorkerProcess(process, ours, memory)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Make a starting process ignore signals that terminals and schedulers send to all.

    This process decides what a signal means, and needs its workers until then.
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

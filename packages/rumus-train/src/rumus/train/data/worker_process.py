"""The code of a `DataLoader`'s worker process."""

from __future__ import annotations

import pickle
import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from rumus.train.base.data_errors import SampleError
from rumus.train.data.batch_memory import BatchMemory
from rumus.train.data.batcher import Batcher, Task, portable
from rumus.train.data.stray_draws import Drawn, watched


@dataclass(frozen=True, slots=True)
class Failure:
    """An error to send to the process that waits for the batch."""

    error: BaseException
    cause: BaseException | None
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Pack an error; `portable` handles one that cannot be pickled."""
        cause = error.__cause__
        trace = "".join(traceback.format_exception(error))
        return cls(portable(error), None if cause is None else portable(cause), trace)

    def restored(self, pid: int | None) -> BaseException:
        """Return the error with its cause and a note with the process's traceback."""
        self.error.__cause__ = self.cause
        self.error.add_note(f"In worker process {pid}:\n{self.trace}")
        return self.error


class Sizes(tuple[int, ...]):
    """The sizes in bytes of a pickled batcher and its arrays, which follow."""


def serve(connection: Connection, memories: Sequence[BatchMemory]) -> None:
    """Make batches on request until the other side is gone.

    A request is a task and the number of the memory for its batch.
    """
    with suppress(EOFError, OSError):
        _serve(connection, memories)


def _serve(connection: Connection, memories: Sequence[BatchMemory]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked at the start
    batcher: Batcher | Failure | None = None
    while True:
        asked = connection.recv()
        if isinstance(asked, Sizes):
            batcher = None  # free its arrays before the next ones arrive
            batcher = _received(connection, asked)
        elif isinstance(batcher, Batcher):
            task, place = asked
            connection.send(_reply(batcher, task, memories[place] if memories else None))
        else:
            connection.send(batcher)


def _received(connection: Connection, sizes: Sizes) -> Batcher | Failure:
    parts = [bytearray(size) for size in sizes]
    for part in parts:
        if part:
            connection.recv_bytes_into(part)
        else:
            connection.recv_bytes()
    try:
        batcher: Batcher = pickle.loads(parts[0], buffers=parts[1:])
    except Exception as error:
        return Failure.of(_unusable(error))
    return batcher


def _reply(batcher: Batcher, task: Task, memory: BatchMemory | None) -> object:
    try:
        made, drawn = (
            watched(lambda: batcher.make(task)) if batcher.is_new() else (batcher.make(task), None)
        )
        if drawn is not None:
            return Drawn(made, drawn)
        place = None if memory is None else memory.write(made)
    except Exception as error:
        return Failure.of(error)
    return place or made


def _unusable(error: Exception) -> SampleError:
    failure = SampleError(
        f"a worker process cannot make the dataset or the transform: {type(error).__name__}: "
        f"{error}; they must be importable there"
    )
    failure.__cause__ = error
    return failure

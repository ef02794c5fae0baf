"""What runs in a worker process of a `DataLoader`."""

from __future__ import annotations

import pickle
import signal
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from rumus.train.base.data_errors import SampleError
from rumus.train.data.batcher import Batcher, portable


@dataclass(frozen=True, slots=True)
class Failure:
    """An error on its way to the process that waits for the batch."""

    error: BaseException
    cause: BaseException | None
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Pack an error; `portable` says what is left of one that cannot be pickled."""
        cause = error.__cause__
        trace = "".join(traceback.format_exception(error))
        return cls(portable(error), None if cause is None else portable(cause), trace)

    def restored(self, pid: int | None) -> BaseException:
        """Return the error with its cause; a note says what happened in the process."""
        self.error.__cause__ = self.cause
        self.error.add_note(f"In worker process {pid}:\n{self.trace}")
        return self.error


def serve(connection: Connection) -> None:
    """Make the batches that are asked for, until the other side is gone."""
    with suppress(EOFError, OSError):
        _serve(connection)


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked from the start
    batcher: Batcher | Failure
    sent = connection.recv_bytes()
    try:
        batcher = pickle.loads(sent)
    except Exception as error:
        batcher = Failure.of(_unusable(error))
    while True:
        task = connection.recv()
        if isinstance(batcher, Failure):
            connection.send(batcher)
            continue
        try:
            reply: object = batcher.make(task)
        except Exception as error:
            reply = Failure.of(error)
        connection.send(reply)


def _unusable(error: Exception) -> SampleError:
    failure = SampleError(
        f"a worker process cannot make the dataset or the transform: {type(error).__name__}: "
        f"{error}; what they are made of must be importable there"
    )
    failure.__cause__ = error
    return failure

"""`MpiLink`: the ranks of an MPI job; none waits longer than the deadline."""

from __future__ import annotations

import atexit
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn, TypeVar

import numpy as np

from rumus.distributed.errors import RankError
from rumus.distributed.link import Link
from rumus.distributed.message_sum import MessageSum
from rumus.distributed.processors import processors
from rumus.distributed.roll_call import SIZE, TEXT, Call, elsewhere
from rumus.distributed.shared_sum import LEAST, SharedSum
from rumus.tensor import Backend, DType
from rumus.tensor.memory.backend import Array

T = TypeVar("T")

CHUNK: Final = 1 << 28  # bytes of one message: MPI counts them in 32 bits
END: Final = "the end of the program"
_SPINS: Final = 200  # polls of a message before the processor is yielded
_NAPS: Final = 2000  # and before the process sleeps between polls
_NAP: Final = 5e-5
_ASK: Final = 1  # tag of the note "I wait, and my deadline is over"
_ANSWER: Final = 1.0  # seconds for other waiting ranks to answer


class MpiLink(Link):
    """The ranks of `COMM_WORLD`. Importing mpi4py starts MPI; its exit handler ends it.

    deadline: seconds that a rank waits for the others before it reports who is missing.
    """

    def __init__(self, deadline: float = 600.0) -> None:
        from mpi4py import MPI

        self._mpi: Any = MPI
        self.in_place = MPI.IN_PLACE
        self._comm = MPI.COMM_WORLD.Dup()  # messages of our own
        self._notes = MPI.COMM_WORLD.Dup()
        for comm in (self._comm, self._notes):
            comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.rank, self.size = self._comm.rank, self._comm.size
        self.deadline = deadline
        self.sent = 0
        self._sums: dict[tuple[int, int, DType], SharedSum | MessageSum] = {}
        self.library = MPI.Get_library_version().split(",")[0].split("\n")[0].strip()
        self._is_broken = False  # after an error, no more joint operations
        self._last = Call("the start", 0)
        node = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = node.rank, node.size
        node.Free()
        # With more ranks than processors, a spinning rank blocks the others.
        self._spins = 0 if self.local_size > processors() else _SPINS
        self.names = self.gather(
            f"rank {self.rank} of {self.size} on {socket.gethostname()} (pid {os.getpid()})"
        )
        self._watch_the_end()

    # Who is where

    def meet(self, place: str, number: int = 0, signal: int = 0) -> Call:
        """See `Link.meet`."""
        if self._is_broken:
            raise RankError("an earlier error has ended the ranks' joint work")
        own = Call(place, number, signal=signal, clock=time.perf_counter())
        calls = self._exchange(own)
        if any(call.failed for call in calls):
            self._is_broken = True
            texts = self._texts("")
            told = [f"{self.names[r]}: {texts[r]}" for r in range(self.size) if calls[r].failed]
            raise RankError("training ends because another rank has failed: " + "; ".join(told))
        if (where := elsewhere(calls)) is not None:
            self._is_broken = True
            raise RankError(f"{where}: all ranks must do the same steps, in the same order")
        if number:  # a place to look up in the code
            self._last = own
        return Call(place, number, False, max(c.signal for c in calls), calls[0].clock)

    def fail(self, error: BaseException) -> None:
        """See `Link.fail`."""
        if self._is_broken or isinstance(error, RankError):
            return
        self._is_broken = True
        told = f"{type(error).__name__}: {error}"
        print(f"{self.names[self.rank]}: {told}", file=sys.stderr, flush=True)
        try:
            if any(c.failed for c in self._exchange(Call("an error", 0, failed=True))):
                self._texts(told)
        except RankError as silent:
            print(silent, file=sys.stderr, flush=True)
            self._abort()

    def _exchange(self, own: Call) -> list[Call]:
        records = bytearray(SIZE * self.size)
        self.wait(self._comm.Iallgather(own.packed(), records), own)
        return Call.unpacked(bytes(records))

    def _texts(self, own: str) -> list[str]:
        padded = own.encode()[:TEXT].ljust(TEXT, b"\0")
        found = bytearray(TEXT * self.size)
        self.wait(self._comm.Iallgather(padded, found), Call("an error", 0))
        parts = [bytes(found[r * TEXT : (r + 1) * TEXT]) for r in range(self.size)]
        return [part.rstrip(b"\0").decode(errors="replace") for part in parts]

    # Waiting

    def wait(self, request: Any, at: Call | None = None) -> None:
        """Wait for a message until the deadline, yielding the processor."""
        looks, start = 0, time.perf_counter()
        while not request.Test():
            looks += 1
            if looks < self._spins:
                continue
            if looks < _NAPS:
                os.sched_yield()
                continue
            time.sleep(_NAP)
            if time.perf_counter() - start > self.deadline or self._notes.Iprobe(tag=_ASK):
                self._name_the_silent(at or self._last, start)

    def _name_the_silent(self, at: Call, start: float) -> NoReturn:
        """Tell all others that this one waits; those that do not answer in a second are missing."""
        note, got = np.array([self.rank], np.int32), np.empty(1, np.int32)
        asked = [self._notes.Isend(note, r, tag=_ASK) for r in range(self.size) if r != self.rank]
        waiting, until = {self.rank}, time.perf_counter() + _ANSWER
        while time.perf_counter() < until:
            while self._notes.Iprobe(tag=_ASK):
                self._notes.Recv(got, tag=_ASK)
                waiting.add(int(got[0]))
            time.sleep(0.005)
        for request in asked:
            request.Test()
        self._is_broken = True
        silent = [name for r, name in enumerate(self.names) if r not in waiting]
        who = ", ".join(silent) or "no rank in particular: a message is lost, as over a broken link"
        error = RankError(
            f"after {time.perf_counter() - start:.0f} s at {at} (deadline {self.deadline:g} s) no "
            f"answer from {who}; the last operation that all completed is {self._last}"
        )
        error.is_silent = True
        raise error

    # The end of the process

    def _watch_the_end(self) -> None:
        """Notify the others when this process ends, in whatever way."""
        hook = sys.excepthook

        def uncaught(kind: type[BaseException], error: BaseException, at: Any) -> None:
            hook(kind, error, at)
            sys.stderr.flush()
            if getattr(error, "is_silent", False):
                self._abort()
            self.fail(error)

        sys.excepthook = uncaught
        atexit.register(self._leave)  # before mpi4py's own, which would wait for the others

    def _leave(self) -> None:
        """Meet the others at the end; ranks that are elsewhere are notified."""
        if self._is_broken:
            return
        try:
            self.meet(END)
        except RankError as error:
            print(f"{self.names[self.rank]}: {error}", file=sys.stderr, flush=True)
            if error.is_silent:
                self._abort()

    def _abort(self) -> NoReturn:
        """Abort the job: a rank is silent, so none could end normally."""
        sys.stdout.flush()
        sys.stderr.flush()
        # Over a cut link the launcher receives nothing, and Abort waits for it.
        late = threading.Timer(_ANSWER, os._exit, (1,))
        late.daemon = True
        late.start()
        self._mpi.COMM_WORLD.Abort(1)
        os._exit(1)

    # Objects

    def gather(self, thing: T) -> list[T]:
        """See `Link.gather`."""
        own = np.frombuffer(pickle.dumps(thing), np.uint8)
        lengths = np.empty(self.size, np.int64)
        self.wait(self._comm.Iallgather(np.array([own.size], np.int64), lengths))
        found = np.empty(int(lengths.sum()), np.uint8)
        self.wait(self._comm.Iallgatherv(own, [found, lengths.tolist()]))
        stops = np.cumsum(lengths)
        return [
            pickle.loads(found[b - n : b].tobytes()) for n, b in zip(lengths, stops, strict=True)
        ]

    def first(self, thing: T) -> T:
        """See `Link.first`."""
        pickled = pickle.dumps(thing) if self.rank == 0 else b""
        length = np.array([len(pickled)], np.int64)
        self.wait(self._comm.Ibcast(length, 0))
        data = np.frombuffer(
            bytearray(pickled) if self.rank == 0 else bytearray(int(length[0])), np.uint8
        )
        for start in range(0, data.size, CHUNK):
            self.wait(self._comm.Ibcast(data[start : start + CHUNK], 0))
        return thing if self.rank == 0 else pickle.loads(data.tobytes())

    # Arrays

    def post(self, arrays: Sequence[tuple[Backend, Array]]) -> None:
        """See `Link.post`."""
        for known in self._sums.values():
            known.forget()  # posted, and then added up another way
        for backend, array in arrays:
            flat = array.reshape(-1)
            there = self._sums.get((id(backend), flat.size, flat.dtype))
            if there is not None:  # all ranks make one together
                there.post(flat)

    def add_up(self, backend: Backend, array: Array) -> None:
        """See `Link.add_up`."""
        flat = array.reshape(-1)
        self._sum_of(backend, flat).add_up(flat)

    def collect(self, backend: Backend, array: Array) -> None:
        """See `Link.collect`."""
        flat = array.reshape(-1)
        self._sum_of(backend, flat).collect(flat)

    def _sum_of(self, backend: Backend, flat: Array) -> SharedSum | MessageSum:
        """The summation for arrays like this one; all ranks choose the same."""
        key = id(backend), flat.size, flat.dtype
        found = self._sums.get(key)
        if found is None:
            shared: SharedSum | None = None
            if flat.size * flat.dtype.itemsize >= LEAST:
                shared = SharedSum.of(self, backend, flat.size, flat.dtype)
            found = self._sums[key] = shared or MessageSum(self, self._comm, backend)
        return found

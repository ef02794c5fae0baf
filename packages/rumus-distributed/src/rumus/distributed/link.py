"""`Link`: the joint operations of ranks; `NoLink` is for a single process."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Protocol, TypeVar

from rumus.distributed.roll_call import Call
from rumus.tensor import Backend
from rumus.tensor.memory.backend import Array

T = TypeVar("T")


class Link(Protocol):
    """The connection of a rank to all others. Every rank must call each method.

    rank, size: this rank's number, and how many there are; local_rank, local_size: the same on this
        machine. sent: bytes of arrays sent so far.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    sent: int

    def meet(self, place: str, number: int = 0, signal: int = 0) -> Call:
        """Wait until all ranks are at this place; return their joint answer.

        That is the largest signal, and the clock of rank 0. Raises RankError, on all of them, if
        one has failed or is elsewhere; RankError with `is_silent` if one misses the deadline.
        """
        ...

    def fail(self, error: BaseException) -> None:
        """Answer the next roll call of the others with an error, once; it raises nothing."""
        ...

    def gather(self, thing: T) -> list[T]:
        """Return the objects of all ranks, by rank; they are pickled, so keep them small."""
        ...

    def first(self, thing: T) -> T:
        """Return rank 0's object on all ranks; it is pickled."""
        ...

    def post(self, arrays: Sequence[tuple[Backend, Array]]) -> None:
        """Start sending what `add_up` will send first of these final arrays.

        Calling it is optional, also for single ranks, and need not be followed by a sum: it does
        not wait, and only saves time. The device works on it while the host does the roll call.
        """

    def add_up(self, backend: Backend, array: Array) -> None:
        """Replace an array by its sum over all ranks, in a fixed tree."""
        ...

    def collect(self, backend: Backend, array: Array) -> None:
        """Replace the other ranks' parts of an array, given by `bounds`, by their values."""
        ...


def bounds(length: int, size: int) -> list[int]:
    """Return the bounds of the parts of an array of this length, one for each rank.

    They lie, as far as possible, where slots of an arena may begin: at multiples of 64.

    >>> bounds(640, 4), bounds(10, 2)
    ([0, 128, 320, 448, 640], [0, 0, 10])
    """
    rows = length // 64
    return [rows * rank // size * 64 for rank in range(size)] + [length]


class NoLink:
    """The link of one process."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    sent = 0

    def meet(self, place: str, number: int = 0, signal: int = 0) -> Call:
        """Nobody else is to come."""
        return Call(place, number, signal=signal, clock=perf_counter())

    def fail(self, error: BaseException) -> None:
        """Nobody hears of it."""

    def gather(self, thing: T) -> list[T]:
        """Return a list of it."""
        return [thing]

    def first(self, thing: T) -> T:
        """Return it."""
        return thing

    def post(self, arrays: Sequence[tuple[Backend, Array]]) -> None:
        """Nobody waits for them."""

    def add_up(self, backend: Backend, array: Array) -> None:
        """It is the sum."""

    def collect(self, backend: Backend, array: Array) -> None:
        """It is all there."""

"""`Link`: what ranks do together; `NoLink` is that of one process, which is all there is."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Protocol, TypeVar

from rumus.distributed.roll_call import Call
from rumus.tensor import Backend
from rumus.tensor.memory.backend import Array

T = TypeVar("T")


class Link(Protocol):
    """The connection of a rank to all others. Each method is one that every rank has to call.

    rank, size: which of how many this is; local_rank, local_size: on this machine. sent: bytes that
    it has sent of arrays so far.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    sent: int

    def meet(self, place: str, number: int = 0, signal: int = 0) -> Call:
        """Wait until all ranks are at this place; return what they say together.

        That is the largest signal, and the clock of rank 0. RankError, on all of them, if one has
        failed or is elsewhere; RankError with `is_silent` if one does not come before the deadline.
        """
        ...

    def fail(self, error: BaseException) -> None:
        """Answer the next roll call of the others with an error, once; it raises nothing."""
        ...

    def gather(self, thing: T) -> list[T]:
        """Return what all ranks give, by rank: small things, which are pickled."""
        ...

    def first(self, thing: T) -> T:
        """Return what rank 0 gives, on all of them: it is pickled."""
        ...

    def post(self, arrays: Sequence[tuple[Backend, Array]]) -> None:
        """Send on its way what `add_up` will send first of these arrays, which are final.

        Not every rank has to, and no sum has to follow: it waits for nobody, and is only sooner.
        The device continues with it while the host asks the others how they are.
        """

    def add_up(self, backend: Backend, array: Array) -> None:
        """Replace an array by its sum over all ranks, in a fixed tree."""
        ...

    def collect(self, backend: Backend, array: Array) -> None:
        """Replace the other ranks' parts of an array, by `bounds`, by what they have there."""
        ...


def bounds(length: int, size: int) -> list[int]:
    """Return where the parts of an array of this length begin and end, one for each rank.

    They are cut where slots of an arena may begin, as far as possible: at multiples of 64.

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

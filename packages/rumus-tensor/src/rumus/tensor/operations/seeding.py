"""`seed`: the number that determines all randomness of a program, unless a part has its own.

Initial weights, dropout, the order of a loader and its transforms are functions of this number and
of streams numbered from the start of the program. Each process draws a new one, which is saved with
each run; the same number gives the same bits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from weakref import WeakValueDictionary

from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.memory.recording import live, refuse
from rumus.tensor.operations.draws import Place, Undecided, watching
from rumus.tensor.operations.generator import Generator


class _Streams:
    """The seed of this process, and how many streams it has handed out.

    They belong to the step, as a generator's draws do: one that does not count has taken none,
    except for generators that the program has kept of it, as in a layer made when it is first used.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seed: int | None = None
        self.is_given = False
        self.undecided = Undecided(self)
        self._position = 0  # of the next stream
        self._taken = WeakValueDictionary[tuple[int, int], Generator]()
        self._repeated = WeakValueDictionary[tuple[int, int], Callable[[], Place]]()

    @property
    def place(self) -> Place:
        """The seed, and the number of streams, as the running step sees them."""
        assert self.seed is not None
        return self.seed, 0, self._position

    @place.setter
    def place(self, place: Place) -> None:
        self.seed, _, self._position = place

    def next(self) -> int:
        """Hand out a stream."""
        self.undecided.hear_on_host()
        assert self.seed is not None
        with self.lock:
            self._note()
            while True:
                stream = self._position % 2**32
                self._position += 1
                if not self._is_kept(self.seed, stream):
                    return stream

    def note_taken(self, generator: Generator, place: Callable[[], Place]) -> None:
        """Note who has a stream, while a step may still turn out not to count.

        place: what a recorded step keeps, to begin at another stream in each repetition: the
            program does not keep its generator.
        """
        if watching.all:
            key = generator.seed, generator.stream
            self._taken[key], self._repeated[key] = generator, place

    def _is_kept(self, seed: int, stream: int) -> bool:
        return (seed, stream) in self._taken and (seed, stream) not in self._repeated

    def begin(self, seed: int) -> None:
        """Hand out the streams of a seed from the first one on."""
        if watching.all:
            self.undecided.hear_on_host()
        with self.lock:
            if self.seed is not None:
                self._note()
            self.undecided.forget()
            self.place = seed, 0, 0

    def _note(self) -> None:
        for draws in watching.all:
            draws.note(self)
            draws.placed.add(id(self))  # a device does not count streams


_process = _Streams()


@checked_arguments
def seed(value: int | None = None) -> int:
    """Set the seed of this program, for everything made from now on, and return it.

    Call it before making a model: `seed(1)`, or `seed()` for a new one. Layers and their dropout,
    and loaders without their own `seed=`, are then bit for bit the same if they are made in the
    same order.

    value: in [0, 2^32), ValueError otherwise; None for a new one.

    TypeError for a value that is not an integer.

    >>> from rumus.tensor import next_generator, seed
    >>> draws = []
    >>> for _ in range(2):
    ...     _ = seed(7)
    ...     draws.append(next_generator().uniform((2,)).tolist())
    >>> draws[0] == draws[1]
    True
    """
    found = _drawn() if value is None else whole_number("seed", value)
    if not 0 <= found < 2**32:
        raise ValueError(f"seed must be in [0, 2**32), not {value}")
    if value is None and _process.seed is not None:
        refuse("it draws a new seed; call seed() before the step")

    def begin() -> None:
        _process.begin(found)
        _process.is_given = value is not None

    live(begin)
    return found


def _drawn() -> int:
    return int.from_bytes(os.urandom(4), "little")


def run_seed() -> int:
    """Return the seed of this program; drawn on the first call if it was not set."""
    if _process.seed is None:
        seed()
    assert _process.seed is not None
    return _process.seed


def is_seeded() -> bool:
    """Whether the program has set its seed, rather than drawn it."""
    return _process.is_given


def next_generator() -> Generator:
    """Return a generator of the program's seed with a new stream.

    Streams are handed out in order, so making something earlier changes everything made after it.
    Pass an explicit `Generator` to anything that must not depend on that.
    """

    def place() -> Place:
        return run_seed(), _process.next(), 0

    generator = Generator(run_seed())
    generator._begin_at(place)
    _process.note_taken(generator, place)
    return generator

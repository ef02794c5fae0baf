"""`seed`: the number that determines all randomness of a program, unless a part has its own.

Initial weights, dropout, the order of a loader and its transforms are functions of this number and
of streams numbered from the start of the program. Each process draws a new one, which is saved with
each run; the same number gives the same bits.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator

from rumus.tensor.expression.whole_number import whole_number
from rumus.tensor.memory.recording import live, refuse
from rumus.tensor.operations.generator import Generator


class _Seed:
    """The seed of this process, and the streams already handed out."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: int | None = None
        self.is_given = False
        self.streams: Iterator[int] = itertools.count()


_process = _Seed()


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
    if value is None and _process.value is not None:
        refuse("it draws a new seed; call seed() before the step")

    def begin() -> None:
        with _process.lock:
            _process.value, _process.is_given = found, value is not None
            _process.streams = itertools.count()

    live(begin)
    return found


def _drawn() -> int:
    return int.from_bytes(os.urandom(4), "little")


def run_seed() -> int:
    """Return the seed of this program; drawn on the first call if it was not set."""
    if _process.value is None:
        seed()
    assert _process.value is not None
    return _process.value


def is_seeded() -> bool:
    """Whether the program has set its seed, rather than drawn it."""
    return _process.is_given


def next_generator() -> Generator:
    """Return a generator of the program's seed with a new stream.

    Streams are handed out in order, so making something earlier changes everything made after it.
    Pass an explicit `Generator` to anything that must not depend on that.
    """
    generator = Generator(run_seed())
    generator._go_to(lambda: (run_seed(), next(_process.streams) % 2**32, 0))
    return generator

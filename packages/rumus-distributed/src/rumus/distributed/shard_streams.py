"""`ShardStreams`: random numbers that depend on the shard and the batch, not on who computes them.

A generator's numbers are a function of its position. Each shard of each batch of a step has a
stretch of positions of its own, far longer than what it draws, and the step moves the generator
behind all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from rumus.tensor import Generator
from rumus.tensor.operations.generator import Draws

STRETCH: Final = 1 << 36  # words: a step of 8 shards may be done 2**27 times


class ShardStreams:
    """The random generators of a training, by the names they are saved under.

    shards: how many a batch has.
    """

    def __init__(self, generators: Mapping[str, object], shards: int) -> None:
        self._known = {n: g for n, g in generators.items() if isinstance(g, Generator)}
        self._foreign = {n: g for n, g in generators.items() if isinstance(g, np.random.Generator)}
        self._shards = shards
        self._starts: dict[str, int] = {}
        self._before: dict[str, Any] = {}

    def begin(self) -> None:
        """Note where the generators stand before a step."""
        self._starts = {name: random.position for name, random in self._known.items()}
        self._before = {n: g.bit_generator.state for n, g in self._foreign.items()}

    @contextmanager
    def of(self, shard: int, batch: int) -> Iterator[None]:
        """Within the block, draw what belongs to this shard of this batch of the step.

        ValueError for a generator that draws and is not among those of the training, and for a
        NumPy generator, which has no positions.
        """
        for name, random in self._known.items():
            random.position = self._starts[name] + (batch * self._shards + shard) * STRETCH
        draws = Draws()
        with draws.watched():
            yield
        known = {id(random) for random in self._known.values()}
        for number, (random, _) in draws.before.items():
            if number not in known:
                raise ValueError(
                    f"{random} draws in the loss function, and the trainer does not know it: its "
                    "numbers would depend on the rank. Give it, or its module, to "
                    "Trainer(optimizer, state={'model': model})"
                )
        for name, foreign in self._foreign.items():
            if foreign.bit_generator.state != self._before[name]:
                raise ValueError(
                    f"state[{name!r}] is a NumPy generator that draws in the loss function: its "
                    "numbers would depend on the rank. Use rumus.tensor.Generator"
                )

    def end(self, batches: int) -> None:
        """Move the generators behind a step over so many batches; none is a step that is undone."""
        for name, random in self._known.items():
            random.position = self._starts[name] + batches * self._shards * STRETCH

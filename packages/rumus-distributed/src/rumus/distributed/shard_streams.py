"""`ShardStreams`: random numbers that depend on the shard and the batch, not on the rank.

A generator's numbers are a function of its seed, its stream and its position. Each shard of each
batch of a step draws from its own stream, and the step advances the generator by a fixed stretch,
however many words the shards of a rank drew.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from rumus.tensor import Generator
from rumus.tensor.memory.uninterrupted import putting_back
from rumus.tensor.operations.draws import Draws
from rumus.train.base.random_sources import kind_of, place_of, source_of

STRETCH: Final = 1 << 32  # words: more than a shard draws
_GOLDEN: Final = 0x9E3779B1  # odd, so that every shard number has its own stream


class ShardStreams:
    """The random generators of a training, by the names they are saved under.

    shards: how many a batch has.
    """

    def __init__(self, generators: Mapping[str, object], shards: int) -> None:
        self._known = [g for g in generators.values() if isinstance(g, Generator)]
        self._foreign = {
            name: source
            for name, thing in generators.items()
            if not isinstance(thing, Generator) and (source := source_of(thing)) is not None
        }
        self._shards = shards
        self._starts: list[tuple[int, int, int]] = []
        self._before: dict[str, Hashable] = {}

    def begin(self) -> None:
        """Advance the generators past a step; `Trainer.drawing` restores them if it fails."""
        self._starts = [random.place for random in self._known]
        self._before = {name: place_of(source) for name, source in self._foreign.items()}
        for random in self._known:
            random.skip(STRETCH)

    @contextmanager
    def of(self, shard: int, batch: int) -> Iterator[None]:
        """Within the block, draw the numbers of this shard of this batch of the step.

        Raises ValueError for a generator that is not part of the training, and for a NumPy
        generator, which has no streams.
        """
        after = [random.place for random in self._known]
        shift = _GOLDEN * (1 + batch * self._shards + shard)
        draws = Draws()

        def put_back() -> None:
            for random, place in zip(self._known, after, strict=True):
                random.place = place

        with putting_back(put_back), draws.watched():
            for random, (seed, stream, position) in zip(self._known, self._starts, strict=True):
                random.place = seed, (stream + shift) % 2**32, position
            yield
        self._check(draws)

    def _check(self, draws: Draws) -> None:
        if draws.is_lost:
            raise ValueError(
                "the loss function draws from a generator that it makes itself; the trainer does "
                "not know it, so its numbers would depend on the rank: make it once, before the "
                "training, and give it to Trainer(optimizer, state={'noise': noise})"
            )
        known = {id(random) for random in self._known}
        for random in draws.generators:
            if id(random) not in known:
                raise ValueError(
                    f"{random} draws in the loss function, but the trainer does not know it, so "
                    "its numbers would depend on the rank: give it, or its module, to "
                    "Trainer(optimizer, state={'model': model})"
                )
        for name, foreign in self._foreign.items():
            if place_of(foreign) != self._before[name]:
                raise ValueError(
                    f"state[{name!r}] is {kind_of(foreign)} that draws in the loss function, so "
                    "its numbers would depend on the rank: use rumus.tensor.Generator"
                )

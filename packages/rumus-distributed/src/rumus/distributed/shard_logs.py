"""`ShardLogs`: what the shards of a step log beside their losses, added up in the shards' order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import NumpyBackend, tensor
from rumus.train.base.logged import Log, Value

# From the sums of a metric's parts to the metric; None for a number, which is averaged.
Finishes: TypeAlias = dict[str, Callable[..., Any] | None]
# Of the parts of what is logged, by name.
Sums: TypeAlias = dict[str, list[NDArray[Any]]]
_HOST: Final = NumpyBackend()


class ShardLogs:
    """The sums of what some shards have logged, by name: numbers times their weight.

    shards: the sums of each, to be exchanged between ranks. finishes: functions do not travel. What
    is known of them is kept from step to step, for a rank without rows in one of them.
    """

    def __init__(self, finishes: Finishes) -> None:
        self._finishes = finishes
        self.shards: list[Sums] = [{}]

    def add(self, log: Log, weight: float) -> None:
        """Take what the rows of a batch have logged."""
        sums = self.shards[-1]
        for name, value in log.items():
            self._finishes[name] = value.finish
            factor = weight if value.finish is None else 1.0
            parts = [part.numpy().astype(np.float64) * factor for part in value.parts]
            _add(sums, name, parts)

    def merge(self, other: ShardLogs) -> None:
        """Take the shards that follow."""
        self.shards += other.shards

    def joined(self, weight: float) -> Log:
        """Return what all shards have logged. Every rank has to log the same names."""
        sums: Sums = {}
        for shard in self.shards:
            for name, parts in shard.items():
                _add(sums, name, parts)
        return {name: self._value(name, parts, weight) for name, parts in sums.items()}

    def _value(self, name: str, parts: list[NDArray[Any]], weight: float) -> Value:
        finish = self._finishes.get(name)
        share = 1 / weight if finish is None and name in self._finishes else 1.0
        tensors = [tensor((part * share).astype(np.float32), backend=_HOST) for part in parts]
        return Value(tuple(tensors), finish)


def _add(sums: Sums, name: str, parts: list[NDArray[Any]]) -> None:
    """Add the parts of what was logged under a name."""
    before = sums.get(name, [np.zeros_like(part) for part in parts])
    sums[name] = [one + more for one, more in zip(before, parts, strict=True)]

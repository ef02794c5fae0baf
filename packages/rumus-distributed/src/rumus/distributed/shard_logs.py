"""`ShardLogs`: values that the shards of a step log, added up in the shards' order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rumus.tensor import NumpyBackend, tensor
from rumus.train.base.logged import Log, Value

# Computes a metric from the sums of its parts; None for a number, which is averaged.
Finishes: TypeAlias = dict[str, Callable[..., Any] | None]
# Of the parts of logged values, by name.
Sums: TypeAlias = dict[str, list[NDArray[Any]]]
# Of a shard: its sums, and the total weight of each number.
Shard: TypeAlias = tuple[Sums, dict[str, float]]
_HOST: Final = NumpyBackend()


class ShardLogs:
    """The sums of values logged by some shards, by name: numbers times their weight.

    shards: the sums of each, exchanged between ranks. finishes: functions are not sent between
        ranks; they are kept from step to step, for a rank without rows in a step.
    """

    def __init__(self, finishes: Finishes) -> None:
        self._finishes = finishes
        self.shards: list[Shard] = [({}, {})]

    def add(self, log: Log, weight: float) -> None:
        """Add the values logged by the rows of a batch."""
        sums, weights = self.shards[-1]
        for name, value in log.items():
            self._finishes[name] = value.finish
            factor = 1.0
            if value.finish is None:
                factor, weights[name] = weight, weights.get(name, 0.0) + weight
            parts = [part.numpy().astype(np.float64) * factor for part in value.parts]
            _add(sums, name, parts)

    def merge(self, other: ShardLogs) -> None:
        """Append the following shards."""
        self.shards += other.shards

    def joined(self, weight: float) -> Log:
        """Return the values logged by all shards; numbers are averaged over those that log them.

        weight: of the step.
        """
        sums: Sums = {}
        totals: dict[str, float] = {}
        for shard, weights in self.shards:
            for name, parts in shard.items():
                _add(sums, name, parts)
            for name, own in weights.items():
                totals[name] = totals.get(name, 0.0) + own
        return {
            name: self._value(name, parts, totals.get(name), weight) for name, parts in sums.items()
        }

    def _value(
        self, name: str, parts: list[NDArray[Any]], own: float | None, weight: float
    ) -> Value:
        """The value of a name. own: the weight of the shards that log it; None for a metric."""
        tensors = [
            tensor((part / (own or 1.0)).astype(np.float32), backend=_HOST) for part in parts
        ]
        return Value(tuple(tensors), self._finishes.get(name), share=(own or weight) / weight)


def _add(sums: Sums, name: str, parts: list[NDArray[Any]]) -> None:
    """Add the parts of the values logged under a name."""
    before = sums.get(name, [np.zeros_like(part) for part in parts])
    sums[name] = [one + more for one, more in zip(before, parts, strict=True)]

"""`Memory`: how many bytes an optimizer holds, or would hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rumus.optim.group import Claimable, as_groups
from rumus.optim.segments import StateLayout
from rumus.tensor import Arena
from rumus.tensor.backend import Array
from rumus.tensor.slot_table import ALIGNMENT, slot_size


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, with the gaps that align each parameter.

    >>> memory = Memory(parameters=4, gradients=4, state=8)
    >>> memory.total
    16
    """

    parameters: int
    gradients: int
    state: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.gradients + self.state


class Held(Protocol):
    """An arena with the state of its parameters."""

    @property
    def arena(self) -> Arena:
        """The parameters and their gradients."""
        ...

    @property
    def state(self) -> Mapping[str, Array]:
        """Flat arrays by name."""
        ...

    @property
    def scratch(self) -> Mapping[str, Array]:
        """Flat arrays that are written anew by each step."""
        ...


def used(segments: Iterable[Held]) -> Memory:
    """Return the bytes of arenas and their state."""
    parameters = gradients = state = 0
    for segment in segments:
        parameters += _bytes(segment.arena.values)
        gradients += _bytes(segment.arena.gradients)
        state += sum(map(_bytes, (*segment.state.values(), *_flat(segment.scratch))))
    return Memory(parameters, gradients, state)


def _flat(scratch: Mapping[str, Array]) -> list[Array]:
    """What grows with the parameters: not the numbers that stand for all of them."""
    return [array for array in scratch.values() if array.shape]


def planned(
    parameters: Claimable[Any], layout: StateLayout, flat: int = 0, by_row: int = 0
) -> Memory:
    """Return the bytes for parameters with state of these dtypes.

    flat, by_row: how many arrays they have besides, of the parameters' dtype but at least float32,
    and as large, or with one element for each row of a slot.
    """
    size = state = 0
    for group in as_groups(parameters):
        for _, p in group.trainable().named:
            elements = slot_size(p.size)
            size += elements * p.dtype.itemsize
            rows = elements // ALIGNMENT
            state += (flat * elements + by_row * rows) * max(4, p.dtype.itemsize)
            state += elements * sum(dtype.itemsize for dtype in layout(p.dtype).values())
    return Memory(size, size, state)


def _bytes(array: Array) -> int:
    return int(math.prod(array.shape) * np.dtype(array.dtype).itemsize)

"""`Memory`: the bytes that an optimizer holds, or would hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from rumus.optim.engine.packed_state import Codes, planned_bytes
from rumus.optim.engine.segments import StateLayout, runs, whole_vectors
from rumus.optim.engine.stage import Stage
from rumus.optim.options.group import Claimable, as_groups
from rumus.tensor import Arena, float32
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.packing import Packing
from rumus.tensor.memory.slot_table import ALIGNMENT, slot_size


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, including the gaps that align each parameter.

    parameters: bytes of the parameters.
    gradients: bytes of their gradients.
    state: bytes of the optimizer's state.

    >>> from rumus.optim import Memory
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

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            self.parameters + other.parameters,
            self.gradients + other.gradients,
            self.state + other.state,
        )


@dataclass(frozen=True, slots=True)
class Small:
    """The float32 numbers that stages keep for each arena and for each parameter.

    scratch: the arrays with a number per parameter that they write before each step.
    """

    numbers: int = 0
    by_tensor: int = 0
    scratch: frozenset[str] = frozenset()

    @classmethod
    def of(cls, stages: Iterable[Stage]) -> Small:
        """Return the numbers of these stages."""
        found = tuple(stages)
        measured = [name for stage in found for name in stage.measured]
        by_tensor = sum(len(stage.by_tensor) for stage in found) + len(measured)
        return cls(sum(len(stage.numbers) for stage in found), by_tensor, frozenset(measured))

    def bytes(self, elements: int) -> int:
        """Return their bytes for an arena of this many elements."""
        rows = whole_vectors(elements // ALIGNMENT)
        return float32.itemsize * (self.numbers * ALIGNMENT + self.by_tensor * rows)


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
        """Flat arrays that each step overwrites."""
        ...

    @property
    def shared(self) -> Mapping[str, Array]:
        """The used part of flat arrays that are shared in turn."""
        ...

    @property
    def packing(self) -> Packing | None:
        """State that is stored as codes."""
        ...


def used(segments: Sequence[Held]) -> Memory:
    """Return the bytes of arenas and their state, with the memory for unpacking."""
    parameters = gradients = state = 0
    shared: dict[int, Array] = {}
    for segment in segments:
        parameters += _bytes(segment.arena.values)
        gradients += _bytes(segment.arena.gradients)
        state += sum(map(_bytes, (*segment.state.values(), *_flat(segment.scratch))))
        for part in segment.packing.parts.values() if segment.packing is not None else ():
            state += _bytes(part.codes) + _bytes(part.scales)
            shared[id(part.scratch)] = part.scratch
    state += sum(map(_bytes, shared.values())) + _in_turn(segments)
    return Memory(parameters, gradients, state)


def _in_turn(segments: Iterable[Held]) -> int:
    """The bytes of arrays that segments share in turn: those of the largest."""
    largest: dict[tuple[int, str, np.dtype[Any]], int] = {}
    for segment in segments:
        for name, array in segment.shared.items():
            key = id(segment.arena.backend), name, np.dtype(array.dtype)
            largest[key] = max(largest.get(key, 0), _bytes(array))
    return sum(largest.values())


def _flat(scratch: Mapping[str, Array]) -> list[Array]:
    """The arrays that grow with the parameters, without single numbers."""
    return [array for array in scratch.values() if array.shape]


def planned(
    parameters: Claimable[Any],
    layout: StateLayout,
    flat: int = 0,
    by_row: int = 0,
    codes: Codes = MappingProxyType({}),
    shared: int = 0,
    numbers: int = 0,
    small: Small = Small(),
) -> Memory:
    """Return the bytes for parameters with state of these dtypes, or codes for large ones.

    flat, by_row: the number of extra arrays, of the parameters' dtype but at least float32, as
        large as the parameters or with one element per row of a slot. shared: the number of arrays
        as large as the largest arena, shared in turn. numbers: the number of state parts that are
        one number per arena. small: what stages keep.
    """
    largest_arena: dict[tuple[int, int], int] = {}  # elements, by backend and itemsize
    size = state = 0
    scratch: dict[int, int] = {}  # elements of each part, by the backend
    groups = [group.trainable() for group in as_groups(parameters)]
    for run in runs(groups, {}, layout, codes):
        sizes = [p.size for p in run.parameters]
        dtype, elements = run.parameters[0].dtype, sum(map(slot_size, sizes))
        size += elements * dtype.itemsize
        rows = elements // ALIGNMENT
        state += numbers * ALIGNMENT * max(4, dtype.itemsize)
        state += small.bytes(elements)
        state += (flat * elements + by_row * rows) * max(4, dtype.itemsize)
        state += elements * sum(each.itemsize for each in run.dtypes.values())
        key = id(run.backend), max(4, dtype.itemsize)
        largest_arena[key] = max(elements, largest_arena.get(key, 0))
        if run.is_packed:
            packed, largest = planned_bytes(sizes, dtype, codes)
            state += packed
            place, most = id(run.backend), elements if by_row else largest
            scratch[place] = max(most, scratch.get(place, 0))
    state += shared * sum(elements * each for (_, each), elements in largest_arena.items())
    return Memory(size, size, state + len(codes) * float32.itemsize * sum(scratch.values()))


def _bytes(array: Array) -> int:
    return int(math.prod(array.shape) * np.dtype(array.dtype).itemsize)

"""What a segment needs so that the reductions of its rule are measured before each step."""

from __future__ import annotations

import numpy as np

from rumus.optim.engine.reductions import SIZE, squares_of
from rumus.optim.engine.segments import Segment
from rumus.tensor import Arena, Kernel, float16, float32
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.slot_table import ALIGNMENT, slot_size
from rumus.tensor.memory.updater import Preparation


def measure(segment: Segment, kernel: Kernel) -> None:
    """Have `kernel` run before each step of a segment, and its outputs be measured."""
    arena, scratch = segment.arena, segment.scratch
    dtype = float32 if arena.dtype == float16 else arena.dtype
    for name in kernel.outputs:
        scratch[name] = arena.zeros(dtype)
        scratch[squares_of(name)] = arena.backend.allocate((arena.table.rows, 1), dtype)
    scratch[SIZE] = sizes(arena)
    squares = {squares_of(name): name for name in kernel.outputs}
    segment.preparation = Preparation(arena.table, squares, kernel)


def sizes(arena: Arena) -> Array:
    """Return how many elements the tensor has that each row of an arena belongs to."""
    counts = [slot_size(size) // ALIGNMENT for size in arena.table.sizes]
    column = np.repeat(arena.table.sizes, counts).reshape(-1, 1)
    return arena.backend.upload(column.astype(np.promote_types(arena.dtype, float32)))

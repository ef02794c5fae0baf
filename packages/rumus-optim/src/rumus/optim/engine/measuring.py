"""Preparing segments to measure the reductions of their rules before each step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.reductions import SIZE, Reductions, arrays_of
from rumus.optim.engine.segments import Segment
from rumus.tensor import DType, Expr, Kernel, float32
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.section import Preparation, Sum
from rumus.tensor.memory.slot_table import ALIGNMENT, slot_size


def measure(rule: str, found: Sequence[tuple[Segment, Reductions]]) -> None:
    """Arrange for the sums in rules to be measured before each step of segments.

    Existing arrays are measured in place; one kernel first writes everything else to memory that
    all segments on a backend share in turn. A sum over all segments needs them on one backend and
    in one dtype, which the optimizer checks before each step.
    """
    written, of_all = [], dict[tuple[str, int], Array]()
    for segment, reductions in found:
        measured, backend = reductions.measured, segment.arena.backend
        places = {n: e.name if _is_flat(segment, e) else n for n, e in measured.items()}
        others = {name: measured[name] for name, place in places.items() if place == name}
        arrays = (*arrays_of(*others.values()), *others)
        kernel = Kernel(f"measure_{rule}", others, arrays) if others else None
        small = segment.preparation.small if segment.preparation is not None else ()
        both = {**reductions.of_tensors, **reductions.of_all}
        sums = {name: Sum(places[what.of], what.squared) for name, what in both.items()}
        table, dtype = segment.arena.table, computed_in(segment.arena.dtype)
        segment.preparation = Preparation(table, sums, kernel, small)
        for name in reductions.of_tensors:
            segment.scratch[name] = backend.allocate((table.rows, 1), dtype)
        for name in reductions.of_all:
            place = of_all.setdefault((name, id(backend)), backend.allocate((), dtype))
            segment.scratch[name] = place
            segment.joint = f"{rule}: its rule has a global_sum()"
        if reductions.has_sizes:
            segment.scratch[SIZE] = _sizes(segment)
        written += [(segment, tuple(others))]
    _share(written)


def _is_flat(segment: Segment, expression: Expr) -> bool:
    """Whether an expression is an array with one element per parameter element."""
    if expression.operation != "array" or expression.uniform:
        return False
    name = expression.name
    found = {**segment.state, **segment.scratch}.get(name)
    return name in ("p", "g") or (found is not None and len(found.shape) == 1)


def _share(written: Sequence[tuple[Segment, tuple[str, ...]]]) -> None:
    """Give segments shared arrays, as large as the largest needs, to use in turn."""
    alike: dict[tuple[int, DType, str], list[Segment]] = {}
    for segment, names in written:
        arena = segment.arena
        for name in names:
            key = id(arena.backend), computed_in(arena.dtype), name
            alike.setdefault(key, []).append(segment)
    for (_, dtype, name), segments in alike.items():
        flat = max(segments, key=lambda segment: segment.arena.size).arena.zeros(dtype)
        for segment in segments:
            segment.shared[name] = flat[: segment.arena.size]


def _sizes(segment: Segment) -> Array:
    """The number of elements of each arena row's tensor, or of the only tensor."""
    arena = segment.arena
    counts = [slot_size(size) // ALIGNMENT for size in arena.table.sizes]
    column = np.repeat(arena.table.sizes, counts).reshape(-1, 1)
    found = column if segment.factors is None else column[0, 0]
    return arena.backend.upload(found.astype(np.promote_types(arena.dtype, float32)))

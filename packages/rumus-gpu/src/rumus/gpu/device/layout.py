"""How a kernel walks an input: the few layouts it is compiled for.

The output is one row of elements, four per invocation. An input is walked the same way, or is one
value for all, one row repeated, or one value for each row. Any other layout is copied first; this
file only detects that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from rumus.gpu.device.array import GPUArray, Shape, merged

Walk: TypeAlias = Literal["same", "scalar", "one", "row", "column", "slot", "cycle", "block"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How one input is walked, and the numbers this needs.

    same: element i. scalar: one element. one: the first. row: element i % length, the length a
    multiple of 4. column: element i / repeats, a multiple of 4. slot: the same with a row of an
    arena's slot as repeats. cycle: element (i / repeats) % length, for any numbers; this also
    serves arrays that do not start where a buffer can be bound. block: element
    (i / every) % count * length + i % length: each block of `every` elements has its own row.
    """

    walk: Walk
    numbers: tuple[int, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of `numbers` in a kernel."""
        return {
            "same": (),
            "one": (),
            "scalar": ("start",),
            "row": ("length",),
            "column": ("repeats",),
            "slot": (),
            "cycle": ("start", "length", "repeats"),
            "block": ("every", "count", "length"),
        }[self.walk]


def broadcast_strides(own: Shape, strides: Shape, shape: Shape) -> Shape:
    """Return the strides that walk an array as if it had `shape`. own: its shape."""
    walked = [0 if n == 1 else stride for n, stride in zip(own, strides, strict=True)]
    return (0,) * (len(shape) - len(own)) + tuple(walked)


def layout_of(array: GPUArray, shape: Shape) -> Layout | None:
    """Return how `array` is walked over a contiguous output of `shape`; None: copy it first."""
    if array.shape == shape and array.is_flat:
        return Layout("same")
    if array.size == 1:
        return Layout("scalar", (array.rest,))
    runs = merged(shape, broadcast_strides(array.shape, array.strides, shape))
    steps = tuple(step for _, step in runs)
    if steps not in ((1,), (0, 1), (1, 0), (0, 1, 0)):
        return None
    at = steps.index(1)
    length = runs[at][0]
    repeats = runs[at + 1][0] if at + 1 < len(runs) else 1
    if not array.rest:
        if steps == (1,):
            return Layout("same")
        if steps == (0, 1) and length % 4 == 0:
            return Layout("row", (length // 4,))
        if steps == (1, 0) and repeats % 4 == 0:
            return Layout("column", (repeats // 4,))
    return Layout("cycle", (array.rest, length, repeats))

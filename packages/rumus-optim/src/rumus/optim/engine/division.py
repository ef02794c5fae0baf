"""`Division`: how processes divide the state of an optimizer that all of them step.

Each steps a part of every arena, with the state of that part alone, and the parameters are put
together afterwards (ZeRO-1; Rajbhandari et al.: arXiv:1910.02054). State is whole where it is saved
and loaded, by name, so that it fits any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from rumus.tensor import Backend
from rumus.tensor.memory.backend import Array

if TYPE_CHECKING:
    from rumus.optim.engine.segments import Segment


class Division(Protocol):
    """What a process has of flat memory, and how the parts become a whole."""

    def part(self, size: int) -> slice:
        """Return where this process's part of `size` elements lies."""
        ...

    def collect(self, backend: Backend, whole: Array) -> None:
        """Write the other processes' parts of a flat array into it; all of them call it."""
        ...


def indivisible(segments: Iterable[Segment]) -> str | None:
    """Return why the state cannot be cut anywhere, None if it can.

    An update that is elementwise can, with factors that are the same for all elements.
    """
    for segment in segments:
        scratch = [name for name, array in segment.scratch.items() if array.shape]
        if segment.packing is not None:
            return "its state is kept in blocks of 8-bit codes"
        if segment.preparation is not None or segment.factors is not None:
            return "it measures whole tensors before a step"
        if scratch or segment.shared:
            return f"{', '.join([*scratch, *segment.shared])} is computed from whole tensors"
    return None

"""`Division`: how processes divide the state of an optimizer that they all step.

Each steps a part of every arena, with only that part's state, and the parameters are gathered
afterwards (ZeRO-1; Rajbhandari et al.: arXiv:1910.02054). State is saved and loaded whole, by name,
so that it fits any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from rumus.tensor import Backend
from rumus.tensor.memory.backend import Array

if TYPE_CHECKING:
    from rumus.optim.engine.segments import Segment


class Division(Protocol):
    """A process's part of flat memory, and how the parts are gathered."""

    def part(self, size: int) -> slice:
        """Return the range of this process's part of `size` elements."""
        ...

    def collect(self, backend: Backend, whole: Array) -> None:
        """Write the other processes' parts of a flat array into it; all of them call it."""
        ...


def indivisible(segments: Iterable[Segment]) -> str | None:
    """Return why the state cannot be split at arbitrary elements; None if it can.

    It can if the update is elementwise, with factors that are the same for all elements.
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

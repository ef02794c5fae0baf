"""`BufferMeans`: the effect of a step's shards on buffers, such as running statistics.

Each shard updates a copy of the buffers from before the step. If the step counts, the buffers
become the mean of these copies, weighted like the gradients and added up in the same tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from rumus.distributed.tree import add_rows
from rumus.tensor import Backend, DType, Expr, Kernel, Tensor
from rumus.tensor.graph.buffer_update import BufferUpdate
from rumus.tensor.memory.backend import Array

_BUFFER, _SUM, _FACTOR = Expr.array("buffer"), Expr.array("sum"), Expr.scalar("factor")
_WEIGH: Final = Kernel("weigh", {"sum": _SUM * _FACTOR}, ("sum",))
_TAKE: Final = Kernel("take_mean", {"buffer": _SUM * _FACTOR}, ("buffer", "sum"))


def buffers_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the buffers of the modules among objects, by dotted name."""
    return {
        f"{name}.{path}": buffer
        for name, thing in state.items()
        if hasattr(thing, "named_buffers")
        for path, buffer in thing.named_buffers()
    }


class BufferMeans:
    """Weighted sums of buffers: those of a shard, or of several that were merged.

    buffers: all of a training, by name; stored consecutively in one array per dtype.
    """

    def __init__(self, buffers: Mapping[str, Tensor]) -> None:
        self._buffers = buffers
        self._numbers = {id(buffer): n for n, buffer in enumerate(buffers.values())}
        self._sums: dict[DType, Array] = {}
        self._views: list[Array] = []
        self.changed = [False] * len(buffers)

    def add(self, updates: Iterable[BufferUpdate]) -> None:
        """Apply updates to the copies. Raises ValueError for an unknown buffer."""
        for update in updates:
            numbers = [self._numbers.get(id(buffer)) for buffer in update.buffers]
            known = [number for number in numbers if number is not None]
            if len(known) < len(numbers):
                raise ValueError(
                    "the loss function changes buffers of a module that the trainer does not "
                    "know: use Trainer(optimizer, state={'model': model})"
                )
            self._begin()
            update.write_copies([self._views[number] for number in known])
            for number in known:
                self.changed[number] = True

    def weigh(self, weight: float) -> None:
        """Multiply the copies of a shard by its weight."""
        self._begin()
        for backend, total in self.sums():
            backend.elementwise(_WEIGH, (total,), _WEIGH.bind({"factor": weight}), (total,))

    def merge(self, other: Self) -> Self:
        """Add the sums of another one."""
        for (backend, mine), (_, more) in zip(self.sums(), other.sums(), strict=True):
            add_rows(backend, (mine, more))
        self.changed = [a or b for a, b in zip(self.changed, other.changed, strict=True)]
        return self

    def sums(self) -> list[tuple[Backend, Array]]:
        """Return the arrays that hold all sums, to be changed in place."""
        backends = [buffer.backend for buffer in self._buffers.values()]
        return [(backends[0], total) for total in self._sums.values()]

    def updates(self, weight: float) -> list[BufferUpdate]:
        """Return a function that writes the means: the sums divided by the weight of all shards."""
        factor = {"factor": 1 / weight}
        return [
            BufferUpdate(_TAKE, (buffer,), (view,), factor)
            for buffer, view, changed in zip(
                self._buffers.values(), self._views, self.changed, strict=True
            )
            if changed
        ]

    def _begin(self) -> None:
        """Copy the buffers, the first time."""
        if self._views or not self._buffers:
            return
        lengths: dict[DType, int] = {}
        starts = []
        for buffer in self._buffers.values():
            starts.append(lengths.get(buffer.dtype, 0))
            lengths[buffer.dtype] = starts[-1] + buffer.size
        backend = next(iter(self._buffers.values())).backend
        self._sums = {dtype: backend.allocate((n,), dtype) for dtype, n in lengths.items()}
        for buffer, start in zip(self._buffers.values(), starts, strict=True):
            flat = self._sums[buffer.dtype][start : start + buffer.size]
            self._views.append(flat.reshape(buffer.shape))
            backend.copy(buffer._array, self._views[-1])

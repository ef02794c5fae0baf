"""`BufferUpdate`: a change proposed by a forward pass, written if its step counts.

Running statistics belong to the step: a pass that is only for inspection, repeated, refused or
skipped leaves them unchanged. So a forward pass proposes updates, the tape carries them to the
gradient store, and applying the gradients writes them with the same decision.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Final

from rumus.tensor.expression.expr import Expr
from rumus.tensor.expression.kernel import Kernel
from rumus.tensor.graph.autograd import is_recording
from rumus.tensor.memory.backend import Array, Backend
from rumus.tensor.memory.recording import is_capturing

if TYPE_CHECKING:
    from rumus.tensor.graph.tensor import Tensor

MOST: Final = 1024  # not carried by any tape


class BufferUpdate:
    """One in-place kernel over buffers, deferred until its step.

    kernel: its outputs are its first arrays, one for each of `buffers`. arrays: the others, read
        when the update is written. scalars: by name.
    """

    def __init__(
        self,
        kernel: Kernel,
        buffers: Sequence[Tensor],
        arrays: Sequence[Array],
        scalars: Mapping[str, float],
    ) -> None:
        self.backend: Backend = buffers[0]._backend
        self.arrays = tuple(arrays)
        self._kernel = kernel
        self.buffers = tuple(buffers)
        self._scalars = kernel.bind(scalars)
        self._prepared: tuple[Array | None, Callable[[Sequence[float]], None]] | None = None
        self._times = 0

    def is_like(self, other: BufferUpdate) -> bool:
        """Whether another update does the same to the same buffers, with other arrays."""
        mine = (self._kernel, *map(id, self.buffers))
        theirs = (other._kernel, *map(id, other.buffers))
        return mine == theirs and repr(self._scalars) == repr(other._scalars)

    def kept(self) -> BufferUpdate:
        """Return the same update with copies of its arrays, which a captured step overwrites."""
        backend, copies = self.backend, []
        for array in self.arrays:
            copies.append(backend.allocate(array.shape, array.dtype))
            backend.copy(array, copies[-1])
        kept = copy(self)
        kept.arrays, kept._prepared, kept._times = tuple(copies), None, 0
        return kept

    def write(self, applied: Array | None = None) -> None:
        """Run the kernel; on a device that makes the decision, only if `applied` is not 0."""
        self._times += 1
        if self._prepared is not None and self._prepared[0] is applied:
            self._prepared[1](self._scalars)
        else:
            self._run(applied)
        for buffer in self.buffers:
            buffer._version.written()

    def write_copies(self, copies: Sequence[Array]) -> None:
        """Run the kernel on copies of the buffers, which stay unchanged."""
        arrays = [*copies, *self.arrays]
        self.backend.elementwise(self._kernel, arrays, self._scalars, copies)

    def _run(self, applied: Array | None) -> None:
        backend, kernel = self.backend, self._kernel
        own = [buffer._array for buffer in self.buffers]
        arrays = [*own, *self.arrays]
        if applied is not None:
            kernel, arrays = _conditional(kernel), [*arrays, applied]
        if self._times > 1 and is_capturing(backend):  # of a captured step: once in each replay
            run = backend.prepare(kernel, arrays, own)
            self._prepared = applied, run
            run(self._scalars)
        else:
            backend.elementwise(kernel, arrays, self._scalars, own)


@cache
def _conditional(kernel: Kernel) -> Kernel:
    """The kernel with outputs that stay unchanged if `applied` is 0."""
    is_applied = Expr.array("applied") > 0.5
    outputs = {
        name: is_applied.where(new, Expr.array(name)) for name, new in kernel.outputs.items()
    }
    return Kernel(f"{kernel.name}_if_applied", outputs, (*kernel.arrays, "applied"))


class _Loose(threading.local):
    """Updates proposed on this thread by results without a tape, such as those of frozen layers."""

    def __init__(self) -> None:
        self.updates: deque[BufferUpdate] = deque(maxlen=MOST)


_loose = _Loose()


def propose(update: BufferUpdate, result: Tensor) -> None:
    """Write an update if a step whose backward passes through `result` counts.

    Nothing happens under `no_grad`. If nothing that `result` depends on is trained, the next
    `backward` on this thread carries the update.
    """
    if not is_recording():
        return
    if result._node is None:
        _loose.updates.append(update)
    else:
        result._node.updates = (*result._node.updates, update)


def take_loose() -> list[BufferUpdate]:
    """Return and forget the updates that no tape carries."""
    found = list(_loose.updates)
    _loose.updates.clear()
    return found
